"""The completion of what follows `:`: commands, views, applications, and the keys of metrics."""

from collections.abc import Iterable, Sequence

from shm_tui.model.place import FOR_ADMINS, OF_SERVER, PERIODS, VIEW_NAMES

VIEWS_WITHOUT_COMPLETION = ("instance",)  # views that need an argument, which nobody knows by heart


def candidates(
    commands: Iterable[str], applications: Iterable[str], keys: Iterable[str], *, is_admin: bool = False
) -> list[str]:
    """Everything that can be typed, in the order of the proposals. `keys` are those of the current application."""
    views = [
        name for name in VIEW_NAMES if name not in VIEWS_WITHOUT_COMPLETION and (is_admin or name not in FOR_ADMINS)
    ]
    slugs = list(applications)
    return [
        *views,
        *slugs,
        *commands,
        *(f"metric/{key}" for key in keys),
        *(f"{slug}/{view}" for slug in slugs for view in views if view not in OF_SERVER),
        *PERIODS,
    ]


def complete(text: str, proposals: Sequence[str]) -> str | None:
    """The text with its last word completed by the first proposal that begins with it; None if there is none."""
    start, _, word = text.rpartition(" ")
    if not word or word.startswith("/") or " /" in text:
        return None
    folded = word.casefold()
    found = next((each for each in proposals if each.casefold().startswith(folded) and each != word), None)
    return None if found is None else f"{start} {found}" if start else found
