"""Types within answers, with what the OpenAPI document has to know of them beside their Python type."""

from datetime import datetime
from typing import Annotated

import msgspec

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]  # in UTC
Metrics = Annotated[  # as they were sent: never read again on their way through
    msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})
]
