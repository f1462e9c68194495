"""The transcript cache: what Whisper heard, kept across runs in one SQLite file.

A transcript is addressed by the content of its clip and by everything it depends on
beside that: model, language, decoding, guards. Each batch is a transaction, so a process
that is killed loses the batch in flight. What failed is kept in a table of its own, with
the reason, and is tried again; it is never an empty text.

SQLite notices a damaged page only where its structure breaks, so every transcript has a
checksum: one that fails is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from koser.errors import StoreError
from koser.features.text.guards import Status, Transcript

CACHE_NAME = "transcripts.sqlite"

logger = logging.getLogger(__name__)

_SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS transcriber (id TEXT PRIMARY KEY, description TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS transcript (
    clip BLOB NOT NULL, transcriber TEXT NOT NULL REFERENCES transcriber, status TEXT NOT NULL,
    text TEXT NOT NULL, avg_logprob REAL, no_speech_prob REAL, context TEXT NOT NULL, crc INTEGER,
    PRIMARY KEY (clip, transcriber)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failure (
    source TEXT NOT NULL, transcriber TEXT NOT NULL REFERENCES transcriber, error TEXT NOT NULL,
    n_tries INTEGER NOT NULL, PRIMARY KEY (source, transcriber)) WITHOUT ROWID;
"""
# SQLite takes at most 999 parameters a statement in its older versions.
_CHUNK = 900
# Seconds that a writer waits for another one.
_TIMEOUT = 60.0


class TranscriptCache:
    """Transcripts of one transcriber.

    Parameters
    ----------
    path : Path
        The SQLite file; made if it does not exist.
    description : Mapping[str, object]
        All that a transcript depends on beside the sound.

    Raises
    ------
    StoreError
        If the file cannot be made, or is not such a cache.
    """

    def __init__(self, path: Path, description: Mapping[str, object]) -> None:
        self.path = path
        text = json.dumps(dict(description), sort_keys=True, ensure_ascii=False)
        self._id = hashlib.sha256(text.encode()).hexdigest()[:16]
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Transactions are begun and ended here, not by the module's own rules.
            self._connection = sqlite3.connect(path, timeout=_TIMEOUT, isolation_level=None)
        with self._transaction() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > _SCHEMA_VERSION:
                raise StoreError(
                    f"'{path}' was made by a later version of koser (schema {version}). Update "
                    f"koser, or keep transcripts elsewhere with --store."
                )
            for statement in _SCHEMA.strip().split(";\n"):
                connection.execute(statement)
            if version == 1:  # its transcripts have no checksum, and are believed
                connection.execute("ALTER TABLE transcript ADD COLUMN crc INTEGER")
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            connection.execute("INSERT OR IGNORE INTO transcriber VALUES (?, ?)", (self._id, text))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def find(self, clips: Sequence[bytes]) -> dict[bytes, Transcript]:
        """The transcripts that are known, by the key of their clip.

        Raises
        ------
        StoreError
            If the file is damaged.
        """
        found: dict[bytes, Transcript] = {}
        n_damaged = 0
        with self._explained():
            for first in range(0, len(clips), _CHUNK):
                part = clips[first : first + _CHUNK]
                marks = ", ".join("?" * len(part))
                rows = self._connection.execute(
                    "SELECT clip, text, status, avg_logprob, no_speech_prob, context, crc "
                    f"FROM transcript WHERE transcriber = ? AND clip IN ({marks})",
                    (self._id, *part),
                )
                for clip, *values, crc in rows:
                    if crc is not None and crc != checksum(clip, *values):
                        n_damaged += 1
                        continue
                    text, status, *others = values
                    found[clip] = Transcript(text, Status(status), *others)
        if n_damaged:
            logger.warning(
                "%d transcripts in '%s' are damaged and are made again.", n_damaged, self.path
            )
        return found

    def add(self, transcripts: Mapping[bytes, Transcript], sources: Sequence[str] = ()) -> None:
        """Keep transcripts, all of them or none; `sources` have not failed after all.

        Raises
        ------
        StoreError
            If the file cannot be written.
        """
        rows = []
        for clip, t in transcripts.items():
            values = (t.text, t.status.value, t.avg_logprob, t.no_speech_prob, t.context)
            rows.append((clip, self._id, *values, checksum(clip, *values)))
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO transcript (clip, transcriber, text, status, avg_logprob, "
                "no_speech_prob, context, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            connection.executemany(
                "DELETE FROM failure WHERE source = ? AND transcriber = ?",
                [(source, self._id) for source in sources],
            )

    def add_failure(self, source: str, error: str) -> None:
        """Keep that a clip failed, why, and how often it was tried.

        Raises
        ------
        StoreError
            If the file cannot be written.
        """
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO failure VALUES (?, ?, ?, 1) ON CONFLICT (source, transcriber) "
                "DO UPDATE SET error = excluded.error, n_tries = n_tries + 1",
                (source, self._id, error),
            )

    def failures(self) -> dict[str, tuple[str, int]]:
        """What failed when it was last tried: reason and number of tries, by source."""
        with self._explained():
            rows = self._connection.execute(
                "SELECT source, error, n_tries FROM failure WHERE transcriber = ? ORDER BY source",
                (self._id,),
            )
            return {source: (error, n_tries) for source, error, n_tries in rows}

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                if self._connection.in_transaction:  # SQLite ends it itself on a full disk
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as error:  # ValueError: no such status
            if isinstance(error, StoreError):
                raise
            raise StoreError(
                f"The transcript cache '{self.path}' cannot be used ({error}). Check the disk and "
                f"the rights; if the file is damaged, remove it: transcripts are made again."
            ) from error


def checksum(clip: bytes, *values: object) -> int:
    """CRC-32 of a transcript: the key of its clip, then every column in order."""
    return zlib.crc32(json.dumps(values, ensure_ascii=False).encode(), zlib.crc32(clip))
