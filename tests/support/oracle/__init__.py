"""The brute-force truth: what every figure must be, recomputed from raw snapshots and what is known of each install.

`raw` reads those rows and nothing that was derived from them; `truth` says what follows at a moment, in the words of
the definitions and without regard to speed; `held` holds a server to it. A new figure gets a function in `truth` that
takes `Raw` and a moment, one in `held` that compares an answer with it, and a line in `hold_to_the_oracle`, or in
`hold_the_past_to_the_oracle` where it is of what has to be rolled up first.
"""

from tests.support.oracle.held import hold_the_past_to_the_oracle, hold_to_the_oracle
from tests.support.oracle.raw import Raw, read
from tests.support.oracle.truth import WINDOW

__all__ = ["WINDOW", "Raw", "hold_the_past_to_the_oracle", "hold_to_the_oracle", "read"]
