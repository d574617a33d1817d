"""What a console knows at its start besides its server and its place."""

from dataclasses import dataclass

from shm_tui.config.file import EMPTY, Config
from shm_tui.config.kept_tokens import KeptTokens


@dataclass(frozen=True)
class Settings:
    """What a console reads at its start. `kept` is None in a restricted session, which reads and writes no file."""

    config: Config = EMPTY
    kept: KeptTokens | None = None
    context: str = ""  # of the first server
    has_token: bool = True
    data_dir: str | None = None  # of the machine's own server
