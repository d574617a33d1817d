"""Recognizes texts that identify a person, a machine or an account, so that they are never sent. Pure.

`values.clean_text` drops such values, and `snapshot` such keys.

Each pattern takes a time that grows with the length of the text, whatever the text is.

It errs on the side of dropping: a version of four numbers looks like an IP address, and a whole commit hash like a key.
"""

import ipaddress
import re

MAX_SEARCHED_CHARS = 1100  # the longest string that is sent, and what its end may belong to
MIN_TOKEN_CHARS = 24
MIN_PHONE_DIGITS = 8
MAX_PHONE_DIGITS = 15  # of the international numbering plan
MIN_TOKEN_CHANGES = 4  # from letters to digits or back: a word such as usersActiveLast30Days has two

EMAIL = re.compile(r"[^\s@<>(),;:]@[^\s@<>(),;:]{1,255}?\.[A-Za-z]{2}")
PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:(?:\.\d{1,3}){3})?(?![\w:])")
MAC = re.compile(r"(?<![\w:-])[0-9A-Fa-f]{2}(?:([:-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}(?![\w:-])")
HOME = re.compile(r"(?<![\w.])(?:/(?:home|Users)/|[A-Za-z]:[\\/]+(?:Users|Documents and Settings)[\\/]+)[^/\\\s]")
PHONE = re.compile(
    r"(?<!\w)\+\d[\d\s()./-]{6,20}\d(?!\w)"  # international
    r"|\(\d{3}\)\s?\d{3}[-. ]\d{4}(?!\d)|(?<![\w.-])\d{3}([-. ])\d{3}\1\d{4}(?![\w.-])"  # North American
)
KNOWN_TOKEN = re.compile(
    r"\b(?:gh[pousr]_|github_pat_|npm_|hf_|shm_|glpat-|pypi-|xox[a-z]-|[spr]k[_-](?:live|test|ant|proj)[_-])[A-Za-z0-9]{12}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{12}|\bAIza[\w-]{20}|\beyJ[\w-]{6,}\.[\w-]+"
    r"|(?i:\b(?:bearer|basic)\s+(?=[\w.~+/=-]*\d)[\w.~+/=-]{12,})|-----BEGIN "
)
PLAIN_IDENTIFIER = re.compile(r"[a-z_.][a-z0-9_.]*")
LONG_RUN = re.compile(r"[A-Za-z0-9]{24,}")  # MIN_TOKEN_CHARS
HEX_RUN = re.compile(r"[0-9A-Fa-f]{32,}")
CHANGE = re.compile(r"[A-Za-z][0-9]|[0-9](?=[A-Za-z])")


def describe_personal(text: str) -> str | None:
    """The personal data in the text, such as `an e-mail address`, or None for an ordinary text."""
    text = text[:MAX_SEARCHED_CHARS]
    if len(text) < MIN_TOKEN_CHARS and PLAIN_IDENTIFIER.fullmatch(text):  # most keys, and many values
        return None
    if "@" in text and EMAIL.search(text):  # without the letter, the search takes quadratic time
        return "an e-mail address"
    if PASSWORD.search(text):
        return "a URL with a password"
    if any(_is_address(match.group()) for pattern in (IPV4, IPV6) for match in pattern.finditer(text)):
        return "an IP address"
    if MAC.search(text):
        return "a hardware address"
    if HOME.search(text):
        return "a path of a user's home directory"
    if KNOWN_TOKEN.search(text) or any(_is_token(match.group()) for match in LONG_RUN.finditer(text)):
        return "a key or a token"
    if any(_is_phone(match.group()) for match in PHONE.finditer(text)):
        return "a phone number"
    return None


def _is_address(text: str) -> bool:
    """Whether it is an IP address of some machine. Loopback addresses identify none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def _is_token(run: str) -> bool:
    """Whether letters and digits are mixed as in a random text."""
    if HEX_RUN.fullmatch(run):
        return not run.isdigit() and not run.isalpha()
    return len(CHANGE.findall(run)) >= MIN_TOKEN_CHANGES


def _is_phone(text: str) -> bool:
    return MIN_PHONE_DIGITS <= sum(letter.isdigit() for letter in text) <= MAX_PHONE_DIGITS
