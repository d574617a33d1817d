"""Plain JSON texts: those in which no string can need sanitizing, and each number is decoded exactly by msgspec.

Nearly all of the server's responses are plain, and are decoded ten times as fast as others. Only functions of C read
the text here: they take a hundredth of the time of a loop over its strings.
"""

MAX_STRING_CHARS = 1024  # the longest string of the protocol
MAX_DEPTH = 16  # the protocol allows objects 8 levels deep; the rest is for the server's own objects
MAX_INT_DIGITS = 80  # longer integers become Decimal, whose conversion is linear; Python's int() is quadratic

_DIGITS_TO_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_ALL_BUT_QUOTES_TO_SPACES = bytes(ord('"') if code == ord('"') else ord(" ") for code in range(256))
_LISTS_TO_OBJECTS = bytes.maketrans(b"[]", b"{}")
_ALL_BUT_BRACKETS_AND_QUOTES = bytes(code for code in range(256) if code not in b'{}[]"')
_LONG_INTEGER = b"0" * (MAX_INT_DIGITS + 1)
_LONG_STRING = b" " * (MAX_STRING_CHARS + 1)


def is_plain(text: bytes) -> bool:
    """Whether a JSON text has only printable ASCII without escapes, in short strings, and no deep nesting.

    JSON allows control characters in strings only as escapes, except for DEL. False for some plain texts too, such as
    those with brackets in strings.
    """
    return (
        text.isascii()
        and b"\\" not in text
        and b"\x7f" not in text
        and _LONG_STRING not in text.translate(_ALL_BUT_QUOTES_TO_SPACES)
        and _LONG_INTEGER not in text.translate(_DIGITS_TO_ZEROS)
        and _is_shallow(text)
    )


def _is_shallow(text: bytes) -> bool:
    brackets = text.translate(_LISTS_TO_OBJECTS, _ALL_BUT_BRACKETS_AND_QUOTES).replace(b'""', b"")
    for _ in range(MAX_DEPTH):  # each turn removes the innermost level
        brackets = brackets.replace(b"{}", b"")
    return not brackets  # else it is deeper, or strings have brackets
