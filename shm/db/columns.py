"""Names of columns, as one parameter of a statement: `Columns(("instance_id", "status"))` for `SELECT %(columns)s`."""

from dataclasses import dataclass

from psycopg2.extensions import AsIs, register_adapter


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of a table or a view. Raises ValueError for a name that would have to be quoted."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in self.names:
            if not (name.isidentifier() and name.isascii() and name.islower()):
                raise ValueError(f"{name!r} is no plain name of a column")


register_adapter(Columns, lambda columns: AsIs(", ".join(columns.names)))
