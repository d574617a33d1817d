"""The list of erased installs, outside of the database: what a restored backup has to erase again.

It has a hash for each install that was erased or deleted, one by one or many at once, as long as the database keeps
it (`SHM_MAX_SNAPSHOT_AGE`). Only the database with the same hash key, or a restored backup of it, can compare them.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec

from shm.core.errors import ConfigurationError
from shm.core.json_types import Timestamp
from shm.core.settings import Settings
from shm.db.database import Database
from shm.ingest.erasure import Eraser
from shm.ingest.export_records import Hash

FORMAT = "shm-erased"
VERSION = 1  # of the format; a reader refuses a later one
PAGE_SIZE = 1_000  # hashes of a statement
MAX_LINE_BYTES = 1_000  # a line has about 200


class ListHeader(msgspec.Struct, tag="header"):
    """The first line. `complete_since`: earlier erasures are not listed. `database`: names the database's hash key."""

    format: str
    version: int
    created_at: Timestamp
    complete_since: Timestamp
    database: Hash


class ErasedInstall(msgspec.Struct, tag="erased"):
    """An install: the hashes of its ID and of its ID with its key. `is_by_install`: it has erased itself."""

    id_hash: Hash
    key_hash: Hash
    erased_at: Timestamp
    is_by_install: bool = False  # older lists lack it


class ListEnd(msgspec.Struct, tag="end"):
    """The last line. `installs`: how many are listed."""

    installs: Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True, slots=True)
class ErasedList:
    """A complete list. `name`: its file."""

    name: str
    header: ListHeader
    installs: list[ErasedInstall]


_decoder: msgspec.json.Decoder[ListHeader | ErasedInstall | ListEnd] = msgspec.json.Decoder(
    ListHeader | ErasedInstall | ListEnd
)
_encoder = msgspec.json.Encoder()


async def read_list(
    database: Database, settings: Settings, earlier: ErasedList | None = None
) -> AsyncGenerator[bytes, None]:
    """The lines of the list, several at a time.

    With the `earlier` list that it replaces, erasures of that list which the database lacks stay: it may be a restored
    backup, whose erasures are not repeated yet. Raises ConfigurationError if that list is another database's.
    """
    now = database.clock.now()
    complete_since = now - settings.max_snapshot_age
    key = await database.fetch_value(str, "erasure.select_hash_key_name")
    assert key is not None  # noqa: S101  # one row
    if earlier is not None and earlier.header.database != key:
        raise ConfigurationError(
            f"{earlier.name} is the list of another database, whose backups need it: it was not replaced. Move it away "
            "if those are gone."
        )
    missing = {each.id_hash: each for each in (earlier.installs if earlier else []) if each.erased_at > complete_since}
    yield _encoder.encode(ListHeader(FORMAT, VERSION, now, complete_since, key)) + b"\n"
    installs, after = 0, ""
    while page := await database.fetch(ErasedInstall, "erasure.select_erased", after=after, limit=PAGE_SIZE):
        yield _encoder.encode_lines(page)
        installs, after = installs + len(page), page[-1].id_hash
        for each in page:
            missing.pop(each.id_hash, None)
    yield _encoder.encode_lines(missing.values())
    yield _encoder.encode(ListEnd(installs + len(missing))) + b"\n"


def load_list(path: Path) -> ErasedList:
    """Reads the list of a file. Raises ConfigurationError."""
    try:
        with path.open("rb") as file:
            return parse_list(file, str(path))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None


def parse_list(file: BinaryIO, name: str) -> ErasedList:
    """Parses a list. Raises ConfigurationError, which names the line, also for an incomplete one."""
    header: ListHeader | None = None
    installs: list[ErasedInstall] = []
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        try:
            record = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _invalid(name, number, str(error)) from None
        match record:
            case ListHeader() if header is None and record.format == FORMAT and record.version <= VERSION:
                header = record
            case ErasedInstall() if header is not None:
                installs.append(record)
            case ListEnd(count) if header is not None and count == len(installs) and not file.read(1):
                return ErasedList(name, header, installs)
            case _:
                raise _invalid(name, number, "a list of `shm export --erased` has no such line in this place")
    raise _invalid(name, number, "the list ends before its last line")


async def erase_again(database: Database, eraser: Eraser, erased: ErasedList) -> int:
    """Erases the listed installs from a restored database, and refuses what they signed before their erasure.

    Returns how many were erased. Raises ConfigurationError for the list of another database.
    """
    if await database.fetch_value(str, "erasure.select_hash_key_name") != erased.header.database:
        raise ConfigurationError(
            f"{erased.name} is the list of another database: nothing was erased. Run `shm restore --erased LIST` with "
            "the list of this one before a server starts."
        )
    instances = 0
    for first in range(0, len(erased.installs), PAGE_SIZE):
        batch = _encoder.encode(erased.installs[first : first + PAGE_SIZE]).decode()
        for instance_id in await database.fetch_values(str, "erasure.find_erased", batch=batch):
            instances += await eraser.delete(instance_id)
        await database.execute("erasure.store_erased", batch=batch)
    return instances


def _invalid(name: str, number: int, problem: str) -> ConfigurationError:
    return ConfigurationError(f"{name}, line {number}: {problem}.")
