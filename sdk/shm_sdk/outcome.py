"""What became of one attempt to report: the answer that callers get instead of an exception."""

import enum
from dataclasses import dataclass


class Result(enum.Enum):
    """How an attempt ended, and so what happens next."""

    SENT = "sent"  # the server has stored the snapshot; the next one goes in the install's slot
    PENDING = "pending"  # the vendor activates installs by hand and has not yet; asked again in the next slot
    REFUSED = "refused"  # the server does not want this; asked again, ever less often
    FAILED = "failed"  # it did not get there, or not now; tried again after a back-off
    OFF = "off"  # telemetry is off in this process; nothing is tried any more


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attempt. `status` is the deciding HTTP status, None where no answer came."""

    result: Result
    reason: str  # a sentence for a person; holds no secret
    status: int | None = None
    retry_after: float | None = None  # seconds that the server asked to be left alone

    @property
    def sent(self) -> bool:
        """True when the server said that it has the snapshot (202)."""
        return self.result is Result.SENT
