"""Bodies with valid signatures: JSON that cannot be stored, malformed JSON, and valid JSON that looks dangerous."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from tests.support.hostile.case import STORED, Case, Verdict, signed, snapshot
from tests.support.installs import Install

TOO_LARGE: Verdict = (413, "body_too_large")

# Metrics that are refused: the JSON text and the code.
REFUSED: dict[str, tuple[bytes, str]] = {
    "U+0000 in a string": (rb'{"a":"x\u0000y"}', "nul_character"),
    "U+0000 in a key": (rb'{"a\u0000b":1}', "nul_character"),
    "U+0000 in a string in an array": (rb'{"a":[["\u0000"]]}', "nul_character"),
    "U+0000 in a nested key": (rb'{"a":{"b":{"\u0000":null}}}', "nul_character"),
    "a raw NUL in a string": (b'{"a":"\0"}', "bad_json"),
    "a raw line feed in a string": (b'{"a":"\n"}', "bad_json"),
    "a lone high surrogate": (rb'{"a":"\ud800"}', "bad_json"),
    "a lone low surrogate": (rb'{"a":"\udfff"}', "bad_json"),
    "a lone surrogate in a key": (rb'{"\ud83d":1}', "bad_json"),
    "a lone surrogate in the value of a key that is repeated later": (rb'{"a":[{"\ud800":1}],"a":1}', "bad_json"),
    "two high surrogates": (rb'{"a":"\ud83d\ud83d"}', "bad_json"),
    "a pair of surrogates in the wrong order": (rb'{"a":"\ude00\ud83d"}', "bad_json"),
    "a high surrogate and another escape": (rb'{"a":"\ud83d\n"}', "bad_json"),
    "a surrogate encoded in UTF-8": (b'{"a":"\xed\xa0\x80"}', "bad_json"),
    "a pair of surrogates encoded in UTF-8": (b'{"a":"\xed\xa0\xbd\xed\xb8\x80"}', "bad_json"),
    "a byte that is not UTF-8": (b'{"a":"\xff"}', "bad_json"),
    "a byte that is not UTF-8, in a key": (b'{"\xff":1}', "bad_json"),
    "a truncated UTF-8 sequence": (b'{"a":"\xe2\x82"}', "bad_json"),
    "an overlong U+0000": (b'{"a":"\xc0\x80"}', "bad_json"),
    "a character beyond U+10FFFF": (b'{"a":"\xf4\x90\x80\x80"}', "bad_json"),
    "a character of Latin-1": ('{"a":"é"}'.encode("latin1"), "bad_json"),
    "NaN": (b'{"a":NaN}', "bad_json"),
    "Infinity": (b'{"a":Infinity}', "bad_json"),
    "-Infinity": (b'{"a":-Infinity}', "bad_json"),
    "nan": (b'{"a":nan}', "bad_json"),
    "1e400": (b'{"a":1e400}', "number_out_of_range"),
    "-1e400": (b'{"a":-1e400}', "number_out_of_range"),
    "1e309, the first power of ten beyond a double": (b'{"a":1e309}', "number_out_of_range"),
    "the first number beyond a double": (b'{"a":1.7976931348623158e308}', "number_out_of_range"),
    "1e-324, below the smallest double": (b'{"a":1e-324}', "number_out_of_range"),
    "1e-400": (b'{"a":1e-400}', "number_out_of_range"),
    "1e200000": (b'{"a":1e200000}', "number_out_of_range"),
    "1e-200000": (b'{"a":1e-200000}', "number_out_of_range"),
    "0e200000": (b'{"a":0e200000}', "number_out_of_range"),
    "1e400 in an array": (b'{"a":[0,[1e400]]}', "number_out_of_range"),
    "an exponent of 18 digits": (b'{"a":1e' + b"9" * 18 + b"}", "number_out_of_range"),
    "an exponent of 30 digits": (b'{"a":1e' + b"9" * 30 + b"}", "number_out_of_range"),
    "a negative exponent of 30 digits": (b'{"a":1e-' + b"9" * 30 + b"}", "number_out_of_range"),
    "zero with an exponent of 30 digits": (b'{"a":0e' + b"9" * 30 + b"}", "number_out_of_range"),
    "an integer of 1,000 digits": (b'{"a":' + b"7" * 1000 + b"}", "number_out_of_range"),
    "an integer of 5,000 digits": (b'{"a":' + b"7" * 5000 + b"}", "number_out_of_range"),
    "an integer of 60,000 digits": (b'{"a":-' + b"7" * 60_000 + b"}", "number_out_of_range"),
    "an integer of 5,000 digits in an array": (b'{"a":[' + b"7" * 5000 + b"]}", "number_out_of_range"),
    "a fraction of 60,000 digits": (b'{"a":0.' + b"7" * 60_000 + b"}", "number_out_of_range"),
    "a number with a leading zero": (b'{"a":01}', "bad_json"),
    "a number with a plus": (b'{"a":+1}', "bad_json"),
    "a number that begins with a point": (b'{"a":.5}', "bad_json"),
    "a number that ends with a point": (b'{"a":5.}', "bad_json"),
    "a number in hex": (b'{"a":0x10}', "bad_json"),
    "a number with an underscore": (b'{"a":1_000}', "bad_json"),
    "a number with an empty exponent": (b'{"a":1e}', "bad_json"),
    "a number with two signs": (b'{"a":--1}', "bad_json"),
    "a number in Arabic digits": ('{"a":١}'.encode(), "bad_json"),
    "257 keys": (json.dumps({f"k{n}": n for n in range(257)}).encode(), "too_many_metrics"),
    "5,000 keys": (json.dumps({f"k{n}": n for n in range(5000)}, separators=(",", ":")).encode(), "too_many_metrics"),
    "5,000 keys of empty objects": (b"{%s}" % b",".join(b'"%d":{}' % n for n in range(5000)), "too_many_metrics"),
    "30,000 values in an array": (b'{"a":[' + b"0," * 29_999 + b"0]}", "too_many_metrics"),
    "a key of 129 characters": (b'{"' + b"k" * 129 + b'":1}', "key_too_long"),
    "a key of 60,000 characters": (b'{"' + b"k" * 60_000 + b'":1}', "key_too_long"),
    "a nested key of 129 characters": (b'{"' + b"k" * 64 + b'":{"' + b"k" * 64 + b'":1}}', "key_too_long"),
    "a key full of escapes, too long": (rb'{"' + rb"\u001b[31m" * 30 + b'":1}', "key_too_long"),
    "U+0000 below a key full of escapes": (rb'{"' + rb"\u001b]52;c;\u202e" * 10 + rb'":"\u0000"}', "nul_character"),
    "a string of 1,025 characters": (b'{"a":"' + b"x" * 1025 + b'"}', "text_too_long"),
    "a string of 60,000 characters": (b'{"a":"' + b"x" * 60_000 + b'"}', "text_too_long"),
    "9 levels": (b'{"a":' * 9 + b"1" + b"}" * 9, "too_deep"),
    "9 levels of arrays": (b'{"a":' + b"[" * 8 + b"]" * 8 + b"}", "too_deep"),
    "10,000 levels": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "too_deep"),
    "10,000 levels of arrays": (b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "too_deep"),
    "60,000 levels that are never closed": (b'{"a":' + b"[" * 60_000, "too_deep"),
    "one key twice, with a dot and nested": (b'{"a.b":1,"a":{"b":2}}', "ambiguous_metric"),
    "an array in place of the object": (b"[1]", "bad_field"),
    "a number in place of the object": (b"3", "bad_field"),
    "an integer of 5,000 digits in place of the object": (b"7" * 5000, "bad_field"),
    "null in place of the object": (b"null", "bad_field"),
    "a string in place of the object": (b'"{}"', "bad_field"),
    "nothing in place of the object": (b"", "bad_json"),
    "a trailing comma": (b'{"a":1,}', "bad_json"),
    "a missing comma": (b'{"a":1 "b":2}', "bad_json"),
    "a missing colon": (b'{"a" 1}', "bad_json"),
    "a comment": (b'{"a":1/**/}', "bad_json"),
    "single quotes": (b"{'a':1}", "bad_json"),
    "a key without quotes": (b"{a:1}", "bad_json"),
    "a number as a key": (b"{1:1}", "bad_json"),
    "an escape that JSON does not define": (rb'{"a":"\x41"}', "bad_json"),
    "a truncated escape": (rb'{"a":"\u12"}', "bad_json"),
    "a form feed as space": (b'{\f"a":1}', "bad_json"),
    "a no-break space as space": ('{\u00a0"a":1}'.encode(), "bad_json"),
    "True of Python": (b'{"a":True}', "bad_json"),
    "undefined": (b'{"a":undefined}', "bad_json"),
}

# Metrics that are stored: the JSON text, and the metrics in the API afterwards.
STORED_METRICS: dict[str, tuple[bytes, Any]] = {
    "an empty object": (b"{}", {}),
    "256 keys": (b"{%s}" % b",".join(b'"k%d":%d' % (n, n) for n in range(256)), {f"k{n}": n for n in range(256)}),
    "8 levels": (b'{"a":' * 8 + b"1" + b"}" * 8, {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}}}),
    "two equal keys, of which the last counts": (b'{"a":1,"a":2}', {"a": 2}),
    "two equal keys, one of them escaped": (rb'{"a":1,"\u0061":2}', {"a": 2}),
    "two equal keys, the first of which cannot be stored": (rb'{"a":"\u0000","a":1e200000,"a":2}', {"a": 2}),
    "a hundred equal keys": (b"{%s}" % b",".join(b'"a":%d' % n for n in range(100)), {"a": 99}),
    "the largest double": (b'{"a":1.7976931348623157e308}', {"a": Decimal("1.7976931348623157e308")}),
    "the smallest double": (b'{"a":5e-324}', {"a": Decimal("5e-324")}),
    "1e308": (b'{"a":1e308}', {"a": 10**308}),
    "minus zero": (b'{"a":-0,"b":-0.0,"c":-0e5}', {"a": 0, "b": 0, "c": 0}),
    "an integer of 309 digits": (b'{"a":1' + b"0" * 307 + b"1}", {"a": 10**308 + 1}),
    "a fraction of 300 digits": (b'{"a":0.' + b"7" * 300 + b"}", {"a": Decimal("0." + "7" * 300)}),
    "2^53 + 1": (b'{"a":9007199254740993}', {"a": 2**53 + 1}),
    "an integer beyond 64 bits": (b'{"a":18446744073709551617}', {"a": 2**64 + 1}),
    "a pair of surrogates, escaped": (rb'{"a":"\ud83d\ude00"}', {"a": "\U0001f600"}),
    "every control character but U+0000": (
        json.dumps({"a": "".join(map(chr, range(1, 32))) + "\x7f"}).encode(),
        {"a": "".join(map(chr, range(1, 32))) + "\x7f"},
    ),
    "escape sequences of a terminal": (rb'{"\u001b[31m":"\u001b]52;c;aGk=\u0007"}', {"\x1b[31m": "\x1b]52;c;aGk=\x07"}),
    "bidirectional control characters": ('{"\u202ea":"\u2066b"}'.encode(), {"\u202ea": "\u2066b"}),
    "noncharacters": ('{"a":"\uffff\ufffe\U0010ffff"}'.encode(), {"a": "\uffff\ufffe\U0010ffff"}),
    "text that looks like SQL": (
        b'{"\'; DROP TABLE snapshots; --":"%s %(a)s $1 \\\\"}',
        {"'; DROP TABLE snapshots; --": "%s %(a)s $1 \\"},
    ),
    "an empty key": (b'{"":1}', {"": 1}),
    "keys of dots": (b'{".":1,"..":2,"a.":3}', {".": 1, "..": 2, "a.": 3}),
    "keys with a meaning in JavaScript": (b'{"__proto__":1,"constructor":2}', {"__proto__": 1, "constructor": 2}),
    "every kind of space in JSON": (b' \t\r\n{ \t\r\n"a" : 1 } ', {"a": 1}),
}

# Text after the metrics of a snapshot, and the code; None if it is stored.
TEXT_AFTER_METRICS: dict[str, tuple[bytes, str | None]] = {
    "a second object": (b'}{"x":1', "bad_json"),
    "an unknown field": (b',"x":{"y":[1,2]}', None),
    "an unknown field, with a byte that is not UTF-8": (b',"x":"\xff"', "bad_json"),
    "a field whose name is not UTF-8": (b',"\xff":1', "bad_json"),
    "an unknown field, with a lone surrogate": (rb',"x":"\ud800"', "bad_json"),
    "an unknown field, 10,000 levels deep": (b',"x":' + b"[" * 10_000 + b"]" * 10_000, "too_deep"),
    "an instance_id of another type": (b',"instance_id":7', "bad_field"),
    "an app_version of another type": (b',"app_version":1.4', "bad_field"),
    "an app_version of 257 characters": (b',"app_version":"' + b"1" * 257 + b'"', "text_too_long"),
    "an app_version with U+0000": (rb',"app_version":"\u0000"', "nul_character"),
    "an app_version of null": (b',"app_version":null', None),
    "a negative sequence": (b',"sequence":-1', "bad_field"),
    "the largest sequence": (b',"sequence":9223372036854775807', None),
    "a sequence beyond 63 bits": (b',"sequence":9223372036854775808', "bad_field"),
    "a sequence of 5,000 digits": (b',"sequence":' + b"7" * 5000, "number_out_of_range"),
    "a sequence with a fraction": (b',"sequence":1.5', "bad_field"),
    "a sequence of 1e400": (b',"sequence":1e400', "bad_field"),
    "a sequence of 1e99999999999999999999": (b',"sequence":1e99999999999999999999', "bad_field"),
    "a sequence of text": (b',"sequence":"1"', "bad_field"),
    "a sequence of true": (b',"sequence":true', "bad_field"),
}

# Bodies that are not a JSON object in UTF-8, or too large. Each is sent, signed, to every path but that of backlogs.
INVALID_BODIES: dict[str, tuple[bytes, Verdict]] = {
    "nothing": (b"", (400, "bad_json")),
    "a space": (b" ", (400, "bad_json")),
    "a NUL": (b"\0", (400, "bad_json")),
    "an array": (b"[]", (400, "bad_field")),
    "a number": (b"3", (400, "bad_field")),
    "a string": (b'"{}"', (400, "bad_field")),
    "null": (b"null", (400, "bad_field")),
    "NaN": (b"NaN", (400, "bad_json")),
    "a truncated object": (b'{"action":', (400, "bad_json")),
    "a BOM before the object": (b"\xef\xbb\xbf{}", (400, "bad_json")),
    "UTF-16": ("{}".encode("utf-16"), (400, "bad_json")),
    "UTF-32": ("{}".encode("utf-32-le"), (400, "bad_json")),
    "a byte that is not UTF-8": (b'{"action":"\xff"}', (400, "bad_json")),
    "gzip data": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00", (400, "bad_json")),
    "10,000 levels": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, (400, "too_deep")),
    "an object of 100,000 keys": (json.dumps({str(n): n for n in range(100_000)}).encode(), TOO_LARGE),
    "65,537 bytes": (b'{"a":"' + b"x" * 65_529 + b'"}', TOO_LARGE),
    "a megabyte": (b" " * 1_048_576, TOO_LARGE),
    "two megabytes": (b" " * 2_097_152, TOO_LARGE),
}

ACTIONS: dict[str, tuple[bytes, Verdict]] = {
    "two objects": (b"{}{}", (400, "bad_json")),
    "a number with an exponent of 30 digits": (b'{"action":1e' + b"9" * 30 + b"}", (400, "number_out_of_range")),
    "an integer of 5,000 digits": (b'{"action":' + b"7" * 5000 + b"}", (400, "number_out_of_range")),
    "an empty object": (b"{}", (200, None)),
    "an object with unknown fields": (rb'{"action":"\u0000","a":[1e400]}', (200, None)),
}


def with_metrics(metrics: bytes) -> Callable[[Install], bytes]:
    """A snapshot with these metrics."""
    return lambda install: snapshot(install, metrics)


def with_text_after_metrics(text: bytes) -> Callable[[Install], bytes]:
    """A snapshot with this text after its metrics."""
    return lambda install: snapshot(install, b'{"a":1}', more=text)


def with_body(path: str, body: bytes) -> Callable[[Install], bytes]:
    """Exactly this body, signed."""
    return lambda install: signed(path, install, body)


CASES: tuple[Case, ...] = (
    *(Case(f"metrics: {name}", with_metrics(text), ((400, code),)) for name, (text, code) in REFUSED.items()),
    *(
        Case(f"metrics: {name}", with_metrics(text), (STORED,), shows=shows)
        for name, (text, shows) in STORED_METRICS.items()
    ),
    *(
        Case(
            f"a snapshot: {name}",
            with_text_after_metrics(text),
            ((400, code),) if code else (STORED,),
            shows=None if code else {"a": 1},
        )
        for name, (text, code) in TEXT_AFTER_METRICS.items()
    ),
    *(
        Case(f"{path}: {name}", with_body(path, body), (verdict,))
        for path in ("/v1/register", "/v1/activate", "/v1/snapshot", "/v1/rotate", "/v1/erase", "/v1/disclose")
        for name, (body, verdict) in INVALID_BODIES.items()
    ),
    *(
        Case(f"/v1/activate: {name}", with_body("/v1/activate", body), (verdict,))
        for name, (body, verdict) in ACTIONS.items()
    ),
)
