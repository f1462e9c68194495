"""Folders of shards, as bulk prediction leaves them: whether every shard is what was written."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from koser.doctor.findings import Diagnosis, Finding, fail, note, ok, warn
from koser.engines.shards import ShardFolder, read_shards
from koser.errors import ResultsError

_AGAIN = "Run the command that made it again: it goes on."


def examine_shards(path: Path) -> Diagnosis:
    """Check a folder with a ``done.jsonl`` and every shard that it lists."""
    try:
        findings = tuple(_of_shards(read_shards(path)))
    except ResultsError as error:
        findings = (fail("shards", str(error), ""),)  # it says what to do
    return Diagnosis("shards", str(path), findings)


def _of_shards(folder: ShardFolder) -> Iterator[Finding]:
    damaged = [
        shard.name
        for shard in folder.done.values()
        if zlib.crc32((folder.path / shard.name).read_bytes()) != shard.crc
    ]
    n_rows = sum(shard.n_rows for shard in folder.done.values())
    told = f"{len(folder.done):,} of {folder.n_shards:,} shards, {n_rows:,} rows"
    if damaged:
        yield fail("shards", f"damaged: {', '.join(damaged)}", f"Remove these files. {_AGAIN}")
    elif not folder.is_complete:
        yield warn("shards", f"it is not finished: {told}", _AGAIN)
    else:
        yield ok("shards", f"{told}, every checksum holds")
    if folder.n_failed:
        yield note("shards", f"{folder.n_failed:,} rows say only why there is no result")
