"""Field types of requests and responses that need more than their Python type in the OpenAPI document.

Patterns end with `\\Z`, because Python's `$` also matches before a line feed at the end. The document has `$` instead.
The document's readers use ECMAScript's `\\s`, which lacks some of Python's characters and has U+FEFF.
"""

from datetime import datetime
from typing import Annotated

import msgspec

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]  # in UTC
Metrics = Annotated[  # the JSON text as it was sent, passed on without parsing
    msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})
]

MAX_URL_LENGTH = 500
UUID_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z"
WEB_ADDRESS = r"https?://[^\s\x00-\x1f\x85\ufeff]+"
WITHOUT_NUL = r"^[^\x00]*\Z"  # PostgreSQL cannot store NUL

Uuid = Annotated[str, msgspec.Meta(pattern=UUID_PATTERN)]
Url = Annotated[str, msgspec.Meta(max_length=MAX_URL_LENGTH, pattern=rf"^({WEB_ADDRESS})?\Z")]
Text = Annotated[str, msgspec.Meta(pattern=WITHOUT_NUL)]

# The `extra` of a list in a query whose members may contain commas, so that each is a parameter of its own.
REPEATED = {"is_repeated": True}
