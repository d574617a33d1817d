"""Removes the metrics that the vendor hides from an instance's metrics object. Pure.

The digits of numbers and all other values stay as they were sent.
"""

from collections.abc import Collection

import msgspec

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()


def remove_hidden(metrics: msgspec.Raw, hidden_keys: Collection[str]) -> msgspec.Raw:
    """The metrics object without hidden keys; the parts of a nested key are joined by dots."""
    return msgspec.Raw(_encoder.encode(_visible(metrics, hidden_keys, "")))


def _visible(metrics: msgspec.Raw, hidden_keys: Collection[str], prefix: str) -> dict[str, msgspec.Raw]:
    visible: dict[str, msgspec.Raw] = {}
    for name, value in _object.decode(metrics).items():
        key = prefix + name
        if not bytes(value).lstrip().startswith(b"{"):
            if key not in hidden_keys:
                visible[name] = value
        elif any(hidden.startswith(f"{key}.") for hidden in hidden_keys):
            visible[name] = msgspec.Raw(_encoder.encode(_visible(value, hidden_keys, f"{key}.")))
        else:
            visible[name] = value
    return visible
