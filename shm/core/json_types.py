"""Field types of responses and queries that need more than their Python type in the OpenAPI document."""

from datetime import datetime
from typing import Annotated

import msgspec

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]  # in UTC
Metrics = Annotated[  # the JSON text as it was sent, passed on without parsing
    msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})
]

# The `extra` of a list in a query whose members may contain commas, so that each is a parameter of its own.
REPEATED = {"is_repeated": True}
