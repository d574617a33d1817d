"""Names of columns as a parameter are names of columns only."""

import pytest

from shm.db.columns import Columns


@pytest.mark.parametrize("name", ["", "a b", "a;b", 'a"b', "(SELECT 1)", "Status", "é", "a--", "1a"])
def test_anything_else_is_refused(name: str) -> None:
    Columns(("instance_id", "status"))
    with pytest.raises(ValueError, match="no plain name"):
        Columns(("instance_id", name))
