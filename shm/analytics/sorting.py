"""Sort orders of lists of instances, and their page tokens. Pure.

A page token contains the sort key of a page's last row, with all digits of a number. The next page is found by
comparison with this key, not by counting rows. A token is valid for its own sort order only; a request with another
order is refused.
"""

import base64
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from shm.analytics.instance_fields import COLUMNS, TIME_COLUMNS
from shm.core.errors import BadRequest
from shm.core.json_types import Text
from shm.core.metric_keys import MAX_DIGITS
from shm.core.page_tokens import invalid_page_token

SORT_COLUMNS = tuple(name for name in COLUMNS if name != "version_rank")  # the order of `app_version`
METRIC_PREFIX = "metrics."  # followed by a metric's key; the parts of a nested key are joined by dots
MAX_LENGTH = 1_024  # characters: far more than a key may have
DESCENDING_BY_DEFAULT = (*TIME_COLUMNS, METRIC_PREFIX)

By = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^({'|'.join(SORT_COLUMNS)}|metrics\.[\s\S]*)\Z",
        max_length=MAX_LENGTH,
        description="A field of an instance, or `metrics.` and a metric's key, such as `metrics.mail.sent`.",
    ),
]
Order = Annotated[
    Literal["asc", "desc"],
    msgspec.Meta(description="Without it, `desc` for times and metrics, `asc` for other fields."),
]


@dataclass(frozen=True, slots=True)
class SortKey:
    """The sort key of a row, as the statements compute it: the rank of its value's type, the value, and the ID."""

    type_rank: int
    number: Decimal
    text: str
    instance_id: str

    @property
    def is_number(self) -> bool:
        """Whether the value is a number or a time."""
        return abs(self.type_rank) == 1


@dataclass(frozen=True, slots=True)
class NumberRange:
    """The numbers, each with an instance's ID, that a scan needs: from `low` to `high`, both included.

    `has_others`: it needs all other values too. Only metrics are left out by it, not columns.
    """

    low: SortKey | None = None
    high: SortKey | None = None
    has_others: bool = True

    @classmethod
    def between(cls, begin: SortKey | None, end: SortKey | None, *, ascending: bool, has_others: bool) -> "NumberRange":
        """From `begin` to `end` in an order. A key that is no number is no bound."""
        begin, end = (key if key is not None and key.is_number else None for key in (begin, end))
        return cls(begin, end, has_others) if ascending else cls(end, begin, has_others)

    @property
    def parameters(self) -> dict[str, object]:
        """The range as parameters of the statements."""
        return {
            "low_number": None if self.low is None else str(self.low.number),
            "low_id": None if self.low is None else self.low.instance_id,
            "high_number": None if self.high is None else str(self.high.number),
            "high_id": None if self.high is None else self.high.instance_id,
            "has_others": self.has_others,
        }


ALL_VALUES = NumberRange()


class _PageToken(msgspec.Struct, array_like=True, frozen=True):
    by: str
    order: Literal["asc", "desc"]
    type_rank: Annotated[int, msgspec.Meta(ge=-9, le=9)]
    number: Decimal
    text: Text
    instance_id: UUID


_decoder = msgspec.json.Decoder(_PageToken)
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Sorting:
    """A sort order: a column or a metric, and the direction."""

    by: By = "last_seen_at"
    order: Literal["asc", "desc"] = "desc"

    @classmethod
    def parse(cls, by: str, order: Literal["asc", "desc"] | None) -> "Sorting":
        """The sort order of a request. Without `order`, times and metrics are descending, other fields ascending.

        Raises BadRequest.
        """
        if by not in SORT_COLUMNS and not by.startswith(METRIC_PREFIX):  # the pattern matches a trailing newline
            raise BadRequest("bad_parameter", "sort names no field of an instance.")
        return cls(by, order or ("desc" if by.startswith(DESCENDING_BY_DEFAULT) else "asc"))

    @property
    def is_default(self) -> bool:
        """Whether it is the default order, the only one with an index."""
        return self == DEFAULT_SORTING

    @property
    def metric(self) -> str | None:
        """The key of the metric; None if the order is by a column."""
        return self.by.removeprefix(METRIC_PREFIX) if self.by.startswith(METRIC_PREFIX) else None

    def encode_page_token(self, last: SortKey) -> str:
        """The `after` of the next page."""
        token = _PageToken(self.by, self.order, last.type_rank, last.number, last.text, UUID(last.instance_id))
        return base64.urlsafe_b64encode(_encoder.encode(token)).decode().rstrip("=")

    def decode_page_token(self, after: str) -> SortKey:
        """The sort key of the last row of the page before. Raises BadRequest unless the token is of this sort order."""
        try:
            token = _decoder.decode(base64.urlsafe_b64decode(after + "=" * (-len(after) % 4)))
            token.text.encode()
        except (ValueError, msgspec.DecodeError, RecursionError):
            raise invalid_page_token() from None
        number = token.number
        if (token.by, token.order) != (self.by, self.order):
            raise BadRequest("bad_after", "after is a page token of another sort order.")
        if not number.is_finite() or max(len(number.as_tuple().digits), abs(number.adjusted())) > MAX_DIGITS:
            raise invalid_page_token()
        return SortKey(token.type_rank, number, token.text, str(token.instance_id))


DEFAULT_SORTING = Sorting()
