"""The refusals of the test server."""


class Refusal(Exception):
    """A request is refused with this status and this code; `members` are added to the answer."""

    def __init__(self, status: int, code: str, **members: object) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.members = members
