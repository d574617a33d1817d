"""Terms of the filter that select the instances of a row, for the list that Enter opens."""

import re

COLUMN_FIELDS = {"version": "version", "os_arch": "os", "environment": "env", "deployment_mode": "mode"}


def equals_term(dimension: str, value: str | None) -> str | None:
    """The filter `field=value` of a breakdown's dimension; None for a value that no filter can name."""
    if not value or '"' in value or '"' in dimension:
        return None
    quoted = value if re.fullmatch(r"[^\s]+", value) else f'"{value}"'
    if dimension in COLUMN_FIELDS:
        return f"{COLUMN_FIELDS[dimension]}={quoted}"
    key = dimension.removeprefix("metrics.")
    return f'"{key}"={ {"true": "yes", "false": "no"}.get(value, quoted) }'
