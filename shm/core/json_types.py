"""Field types of responses that need more than their Python type in the OpenAPI document."""

from datetime import datetime
from typing import Annotated

import msgspec

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]  # in UTC
Metrics = Annotated[  # the JSON text as it was sent, passed on without parsing
    msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})
]
