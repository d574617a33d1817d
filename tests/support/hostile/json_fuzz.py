"""Hypothesis strategies for edge-case JSON: accepted, rejected or malformed, mostly with one defect at a time."""

from dataclasses import dataclass, replace

from hypothesis import strategies as st

IN_STRINGS = st.sampled_from(
    [
        *(
            "a",
            "b",
            "key",
            ".",
            "..",
            " ",
            "",
            "é",
            "鬱",
            "\U0001f600",
            "\u202e",
            "\u0080",
            "\uffff",
            "\u2028",
            "%s",
            "'",
        ),
        *("$1", "--", "x" * 31, "sys_", "_pct", "__proto__", "sys_ephemeral"),
        *(r"\"", r"\\", r"\/", r"\b", r"\n", r"\t", r"\u0061", r"\u001b]52;c;", r"\ud83d\ude00", r"\uffff", r"\u007f"),
    ]
)
BAD_IN_STRINGS = st.sampled_from(
    [r"\u0000", r"\ud800", r"\udc00\ud800", r"\x", r"\u12", "\x00", "\n", "\x1f", "\\", '"', "x" * 129, "x" * 1025]
)
NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)
EDGE_NUMBERS = st.sampled_from(
    [
        *("-0", "-0.0", "0e0", "1E+2", "1.50", "1e308", "1.7976931348623157e308", "5e-324", "9007199254740993"),
        *(
            "18446744073709551616",
            "-9223372036854775809",
            "1" * 309,
            "0." + "0" * 300 + "1",
            "1e-307",
            "0." + "1" * 330,
        ),
        *("1e309", "1e400", "1e-400", "1e200000", "1e" + "9" * 30, "1" * 1000, "1" * 5000, "0." + "1" * 400, "2e308"),
    ]
)
INVALID_NUMBERS = st.sampled_from(
    ["NaN", "Infinity", "-Infinity", "01", "+1", ".5", "1.", "0x1", "1e", "--1", "-", "True", "undefined", "", "1_0"]
)
WORDS = st.sampled_from(["true", "false", "null", "{}", "[]"])
DEEP = st.integers(1, 12).map(lambda levels: '{"a":' * levels + "1" + "}" * levels)
DEEP_ARRAYS = st.integers(1, 12).map(lambda levels: "[" * levels + "]" * levels)
MANY = st.integers(120, 270).map(lambda values: f"[{','.join('0' * values)}]")
SPACES = st.sampled_from(["", "", " ", "\r\n\t"])
INVALID_SPACES = st.sampled_from(["\f", "\u00a0", "/**/", ",", ":"])
CORRUPTIONS = st.sampled_from(
    [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\x00", b"\xef\xbb\xbf", b'"', b"}", b"{", b",", b"[" * 2000]
)


@dataclass(frozen=True, slots=True)
class Grammar:
    """The strategies from which JSON texts are built."""

    pieces: st.SearchStrategy[str] = IN_STRINGS
    leaves: st.SearchStrategy[str] = NUMBERS | WORDS
    spaces: st.SearchStrategy[str] = SPACES

    def strings(self) -> st.SearchStrategy[str]:
        """A string with its quotes."""
        return st.lists(self.pieces, max_size=4).map(lambda found: f'"{"".join(found)}"')

    def objects(self, inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        """An object, sometimes with repeated keys."""
        members = st.builds("{1}{0}{1}:{1}{2}".format, self.strings(), self.spaces, inner)
        return st.lists(members, max_size=5).map(lambda found: f"{{{','.join(found)}}}")

    def values(self) -> st.SearchStrategy[str]:
        """Any value."""
        return st.recursive(
            self.leaves | self.strings(), lambda inner: _arrays(inner) | self.objects(inner), max_leaves=12
        )

    def metrics(self) -> st.SearchStrategy[str]:
        """An object with any values."""
        return self.objects(self.values())


GOOD = Grammar()
EDGY = replace(GOOD, leaves=GOOD.leaves | EDGE_NUMBERS)
LARGE = replace(GOOD, leaves=st.one_of(GOOD.leaves, DEEP, DEEP_ARRAYS, MANY))
BAD = (
    replace(GOOD, leaves=GOOD.leaves | INVALID_NUMBERS),
    replace(GOOD, pieces=IN_STRINGS | BAD_IN_STRINGS),
    replace(GOOD, spaces=SPACES | INVALID_SPACES),
)


def metrics() -> st.SearchStrategy[bytes]:
    """The metrics of a snapshot."""
    objects = st.one_of(*(grammar.metrics() for grammar in (GOOD, EDGY, LARGE, *BAD)))
    return st.one_of(objects.map(str.encode), maybe_corrupt(GOOD.metrics()), any_value())


def any_value() -> st.SearchStrategy[bytes]:
    """A JSON value, valid or nearly so."""
    return maybe_corrupt(st.one_of(*(grammar.values() for grammar in (GOOD, EDGY, LARGE, *BAD))))


def fields(*names: str) -> st.SearchStrategy[dict[str, bytes]]:
    """JSON texts for some fields of an object, many of them strings."""
    return st.dictionaries(st.sampled_from(names), GOOD.strings().map(str.encode) | any_value(), max_size=4)


@st.composite
def maybe_corrupt(draw: st.DrawFn, text: st.SearchStrategy[str]) -> bytes:
    """A text in UTF-8, in about half of the cases with an insertion that makes it invalid."""
    whole = draw(text).encode()
    for corruption in draw(st.lists(CORRUPTIONS, max_size=1)):
        index = draw(st.integers(0, len(whole)))
        whole = whole[:index] + corruption + whole[index:]
    return whole


def _arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(inner, max_size=4).map(lambda found: f"[{','.join(found)}]")
