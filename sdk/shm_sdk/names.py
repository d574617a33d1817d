"""Names that derive from the application's name: of its files, its directories and its variables. Pure."""

import re

from shm_sdk.digests import hash_hex

# How the official clients replace accented letters in file names. They drop all other non-ASCII letters.
MAX_SLUG_CHARS = 128  # of a file's name of 255, with its suffixes
ACCENTS = str.maketrans("àáâãäåèéêëìíîïòóôõöùúûüýÿñç _", "aaaaaaeeeeiiiiooooouuuuyync--")


def official_slug(app_name: str) -> str:
    """The part before `_shm_identity.json` in the file names of the official clients."""
    letters = (letter for letter in app_name.lower().translate(ACCENTS) if _is_slug_character(letter))
    return "-".join(part for part in "".join(letters).split("-") if part) or "app"


def directory_name(app_name: str) -> str:
    """A unique directory name for each application: its slug, with a digest if that drops characters."""
    slug = official_slug(app_name)
    if is_exact(app_name) and len(slug) <= MAX_SLUG_CHARS:
        return slug
    return f"{slug[:MAX_SLUG_CHARS]}-{hash_hex(app_name.encode(errors='surrogatepass'))[:8]}"


def is_exact(app_name: str) -> bool:
    """Whether the slug keeps every letter. Otherwise two applications may have the same slug."""
    return all(_is_slug_character(letter) for letter in app_name.lower().translate(ACCENTS))


def is_uuid(text: str) -> bool:
    """Whether it is a UUID with its hyphens. The module `uuid` would load a third of a megabyte."""
    return re.fullmatch("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text) is not None


def telemetry_variable(app_name: str) -> str:
    """The variable that turns off this application's telemetry only, such as SHM_TELEMETRY_LEDGER."""
    return f"SHM_TELEMETRY_{directory_name(app_name).replace('-', '_').upper()}"


def _is_slug_character(letter: str) -> bool:
    return letter == "-" or (letter.isascii() and letter.isalnum())
