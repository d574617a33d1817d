"""A brute-force oracle: every figure, recomputed from raw snapshots and from the rows of instances and applications.

`raw` reads these rows and no derived table. `truth` computes each figure at a given time in plain, slow Python.
`assertions` compares a server's responses with the result. To add a figure, write a function in `truth` that takes
`Raw` and a time, one in `assertions` that compares a response with it, and a line in `assert_matches_oracle`, or in
`assert_series_match_oracle` if the figure needs the rollup.
"""

from tests.support.oracle.assertions import assert_matches_oracle, assert_series_match_oracle
from tests.support.oracle.raw import Raw, read_raw
from tests.support.oracle.truth import WINDOW

__all__ = ["WINDOW", "Raw", "assert_matches_oracle", "assert_series_match_oracle", "read_raw"]
