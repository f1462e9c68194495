"""Look at every row of a transcript cache, and drop what is damaged."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from koser.errors import StoreError
from koser.features.text.cache import checksum


@dataclass(frozen=True)
class CacheState:
    """What was found in a transcript cache.

    Attributes
    ----------
    path : Path
        The file.
    n_transcripts : int
        That can be believed; `n_unchecked` of them were written before there were checksums.
    n_damaged : int
        That are not what was written.
    n_failures : int
        Clips that could not be transcribed.
    """

    path: Path
    n_transcripts: int
    n_unchecked: int
    n_damaged: int
    n_failures: int


def check_cache(path: Path, *, repair: bool = False) -> CacheState:
    """Check the file's structure and every transcript's checksum.

    Parameters
    ----------
    path : Path
        The SQLite file.
    repair : bool
        Delete damaged transcripts.

    Raises
    ------
    StoreError
        If the file is no transcript cache, or its structure is damaged.
    """
    try:
        # Not made if it is missing.
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)
        try:
            return _look(connection, path, repair=repair)
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            f"The transcript cache '{path}' is damaged, or none ({error}). Remove it: transcripts "
            f"are made again."
        ) from error


def _look(connection: sqlite3.Connection, path: Path, *, repair: bool) -> CacheState:
    problems = [row[0] for row in connection.execute("PRAGMA integrity_check(5)")]
    if problems != ["ok"]:
        raise sqlite3.DatabaseError(" ".join("; ".join(problems).split()))
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    crc = "crc" if version > 1 else "NULL"
    damaged: list[tuple[bytes, str]] = []
    n_rows = n_unchecked = 0
    rows = connection.execute(
        "SELECT clip, transcriber, text, status, avg_logprob, no_speech_prob, context, "
        f"{crc} FROM transcript"
    )
    for clip, transcriber, *values, expected in rows:
        n_rows += 1
        n_unchecked += expected is None
        if expected is not None and expected != checksum(clip, *values):
            damaged.append((clip, transcriber))
    (n_failures,) = connection.execute("SELECT count(*) FROM failure").fetchone()
    if repair and damaged:
        with connection:
            connection.executemany(
                "DELETE FROM transcript WHERE clip = ? AND transcriber = ?", damaged
            )
    return CacheState(path, n_rows - len(damaged), n_unchecked, len(damaged), n_failures)
