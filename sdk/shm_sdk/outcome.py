"""The result of one attempt to report, which callers receive instead of an exception."""

import enum
from typing import NamedTuple


class Result(enum.Enum):
    """How an attempt ended, which decides when the next one follows."""

    SENT = "sent"  # the server has stored the snapshot; the next report follows in the install's slot
    PENDING = "pending"  # the vendor approves installs by hand, or the user has not agreed; the next report asks again
    REFUSED = "refused"  # the server refused the request; the attempts become less and less frequent
    FAILED = "failed"  # no response, or the server is not ready; retried after a back-off
    OFF = "off"  # telemetry is off in this process; no attempt follows


class Outcome(NamedTuple):
    """One attempt. `status` is the deciding HTTP status, None without a response."""

    result: Result
    reason: str  # a sentence for a person; contains no secret
    status: int | None = None
    retry_after: float | None = None  # seconds that the server asked to wait

    @property
    def sent(self) -> bool:
        """True when the server has confirmed the snapshot (202)."""
        return self.result is Result.SENT


class Preview(NamedTuple):
    """The bodies that a report would send. Timestamps and sequence numbers differ in the report itself."""

    server_url: str
    is_registered: bool  # False: there is no identity yet, and the ID shown is made up
    register: bytes
    snapshot: bytes
