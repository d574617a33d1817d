"""A brute-force oracle: every figure, recomputed from raw snapshots and from the rows of instances and applications.

`raw` reads those rows and no derived table. `truth` computes each figure at a moment, in plain Python and without
regard to speed. `assertions` compares a server's responses with it. A new figure gets a function in `truth` that takes
`Raw` and a moment, one in `assertions` that compares a response with it, and a line in `assert_matches_oracle`, or in
`assert_series_match_oracle` if the figure needs the rollup.
"""

from tests.support.oracle.assertions import assert_matches_oracle, assert_series_match_oracle
from tests.support.oracle.raw import Raw, read_raw
from tests.support.oracle.truth import WINDOW

__all__ = ["WINDOW", "Raw", "assert_matches_oracle", "assert_series_match_oracle", "read_raw"]
