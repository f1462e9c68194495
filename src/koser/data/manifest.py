"""The manifest: one row per utterance, and where every other row went.

A corpus adapter turns a folder into a `Manifest`; everything after it sees only
this. What a corpus lacks is null, never a guess.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

import polars as pl

from koser.data.sealing import UNREADABLE, is_intact, write_sealed
from koser.errors import ManifestError, StorageError
from koser.storage.objects import local_file
from koser.storage.places import Place
from koser.storage.writing import make_folder_of

# Times in seconds, `sampling_rate` in Hz. `path` is the file exactly as it is on disk, or a URL.
# `start`/`end` are null where an utterance is a whole file, `channel` (from 0) where it is
# heard on all of them. `votes` holds one struct
# per rater; `distribution` one probability per label of the manifest, in its order.
SCHEMA: dict[str, pl.DataType] = {
    "id": pl.String(),
    "path": pl.String(),
    "start": pl.Float64(),
    "end": pl.Float64(),
    "duration": pl.Float64(),
    "sampling_rate": pl.Int32(),
    "n_channels": pl.Int16(),
    "channel": pl.Int16(),
    "label": pl.String(),
    "situation": pl.String(),
    "votes": pl.List(pl.Struct({"label": pl.String(), "intensity": pl.Int8()})),
    "distribution": pl.List(pl.Float64()),
    "valence": pl.Float64(),
    "arousal": pl.Float64(),
    "speaker": pl.String(),
    "group": pl.String(),
    "session": pl.String(),
    "release": pl.String(),
    "gender": pl.String(),
    "age": pl.Int16(),
    "text": pl.String(),
    "corpus": pl.String(),
    "language": pl.String(),
}

REQUIRED = ("id", "path", "duration", "sampling_rate", "n_channels", "label", "corpus")

# How far times (in seconds) and sums of probabilities may be off by rounding.
TOLERANCE = 1e-6

_METADATA_KEY = "koser.provenance"
# Columns that older manifests lack; null says the same.
_ADDED_LATER = ("channel",)


@dataclass(frozen=True)
class LeftOut:
    """A row of the corpus that is not in the manifest, and why.

    Attributes
    ----------
    source : str
        What names the row: an id, or file and line.
    reason : str
        The category it is counted under, such as ``"no audio file"``.
    detail : str
        What is particular to this row.
    """

    source: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Provenance:
    """Where a manifest comes from.

    Attributes
    ----------
    adapter : str
        Name of the corpus adapter.
    root : str
        The folder or file it read.
    labels : tuple[str, ...]
        All classes of the task, in the order of every probability column.
    label_policy : str
        How a label was chosen, such as ``"situation"``.
    grouping : str or None
        What stands for a speaker: ``"speaker"``, ``"group(age×gender)"`` or nothing.
    n_rows_in : int
        Annotated rows (or audio files, where those are the rows) that were read.
    left_out : tuple[LeftOut, ...]
        Every row that was read and is not in the manifest.
    unlisted : tuple[str, ...]
        Audio files of the corpus that no row names.
    notes : tuple[str, ...]
        What else a reader should know, one sentence each.
    is_synthetic : bool
        Whether the speech was made by a machine. Shown beside every number.
    """

    adapter: str
    root: str
    labels: tuple[str, ...]
    label_policy: str
    grouping: str | None
    n_rows_in: int
    left_out: tuple[LeftOut, ...] = ()
    unlisted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_synthetic: bool = False

    def left_out_by_reason(self) -> dict[str, int]:
        """Count of left-out rows per reason, most frequent first."""
        return dict(Counter(row.reason for row in self.left_out).most_common())

    def to_json(self) -> str:
        """Serialise to one line of JSON, Korean readable."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """Read what `to_json` wrote.

        Raises
        ------
        ManifestError
            If `text` is anything else, such as what another version of koser wrote.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            values["left_out"] = tuple(LeftOut(**row) for row in values["left_out"])
            for key in ("labels", "unlisted", "notes"):
                values[key] = tuple(values[key])
            return cls(**values)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ManifestError(
                f"The provenance of the manifest is not readable ({error!r}). "
                f"Make the manifest again with this version of koser."
            ) from error


@dataclass(frozen=True)
class Manifest:
    """Utterances with their labels and whatever the corpus knows about them.

    Attributes
    ----------
    table : pl.DataFrame
        One row per utterance, with exactly the columns of `SCHEMA`.
    provenance : Provenance
        Where the rows come from and which ones were left out.
    """

    table: pl.DataFrame = field(repr=False)
    provenance: Provenance

    def __len__(self) -> int:
        return self.table.height

    @property
    def labels(self) -> tuple[str, ...]:
        """All classes of the task, in order."""
        return self.provenance.labels

    @property
    def grouping_column(self) -> str | None:
        """The column that stands for a speaker: ``speaker``, ``group`` or None."""
        if self.provenance.grouping is None:
            return None
        return "speaker" if self.provenance.grouping == "speaker" else "group"

    def validate(self) -> Manifest:
        """Return the manifest itself if it is sound.

        Raises
        ------
        ManifestError
            If columns, ids, labels, times or the count of rows contradict each other.
        """
        table, provenance = self.table, self.provenance
        if dict(table.schema) != SCHEMA:
            wrong = sorted(set(table.schema.items()) ^ set(SCHEMA.items()), key=str)
            raise ManifestError(f"Columns are not those of a koser manifest: {wrong}.")
        if len(set(self.labels)) != len(self.labels):
            raise ManifestError(f"The list of labels names one twice: {', '.join(self.labels)}.")
        for column in REQUIRED:
            n_missing = table[column].null_count()
            if n_missing:
                raise ManifestError(f"Column '{column}' is empty in {n_missing} rows.")
        _refuse_rows(table, table["id"].is_duplicated(), "have an id that another row has too")
        _refuse_rows(table, ~table["label"].is_in(list(self.labels)), "carry an unlisted label")
        self._validate_times()
        is_heard = (table["channel"] >= 0) & (table["channel"] < table["n_channels"])
        _refuse_rows(table, ~is_heard.fill_null(True), "name a channel that their file lacks")
        self._validate_distributions()
        grouping = self.grouping_column
        if grouping is not None:
            _refuse_rows(table, table[grouping].is_null(), f"have no {grouping}")
        n_accounted = table.height + len(provenance.left_out)
        if n_accounted != provenance.n_rows_in:
            raise ManifestError(
                f"{provenance.n_rows_in} rows were read, but {table.height} kept and "
                f"{len(provenance.left_out)} left out make {n_accounted}. "
                f"This is a bug in the '{provenance.adapter}' adapter."
            )
        return self

    def _validate_times(self) -> None:
        # a NaN compares as larger than every number, so it has to be named
        table, duration = self.table, self.table["duration"]
        is_lasting = (duration > 0) & duration.is_finite()
        _refuse_rows(table, ~is_lasting, "do not last longer than 0 s")
        start, end = table["start"], table["end"]
        _refuse_rows(table, start.is_null() != end.is_null(), "have a start or an end, not both")
        is_segment = (start >= 0) & ((end - start - duration).abs() < TOLERANCE)
        _refuse_rows(
            table, ~is_segment.fill_null(True), "have a start and end that contradict the duration"
        )

    def _validate_distributions(self) -> None:
        rows = self.table.filter(self.table["distribution"].is_not_null())
        shares = rows["distribution"]
        n_labels = len(self.labels)
        what = f"have no distribution over the {n_labels} labels"
        n_shares = shares.list.drop_nulls().list.len()
        _refuse_rows(rows, n_shares != n_labels, f"{what} (another length, or a null)")
        is_proper = (shares.list.min() >= 0) & ((shares.list.sum() - 1).abs() < TOLERANCE)
        _refuse_rows(rows, ~is_proper.fill_null(False), f"{what} (negative, or no sum of 1)")

    def write(self, path: Place) -> None:
        """Write to one Parquet file; a reader sees the old file or the whole new one.

        Raises
        ------
        ManifestError
            If the folder cannot be made or written to.
        StorageError
            If the object cannot be.
        """
        metadata = {_METADATA_KEY: self.provenance.to_json()}
        try:
            make_folder_of(path)
            write_sealed(self.table, path, metadata)
        except StorageError:
            raise
        except OSError as error:
            raise ManifestError(f"Cannot write the manifest '{path}': {error}.") from error

    @classmethod
    def read(cls, path: Place) -> Manifest:
        """Read a manifest that `write` made.

        Raises
        ------
        ManifestError
            If the file is missing, damaged, no Parquet, or no manifest of koser.
        StorageError
            If the object cannot be had.
        """
        try:
            with local_file(path) as file:
                provenance = read_provenance(file, name=str(path))
                table = pl.read_parquet(file, hive_partitioning=False, glob=False)
        except StorageError:
            raise
        except UNREADABLE as error:
            raise unreadable(path, error) from error
        return cls(with_columns_since(table), provenance).validate()


def read_provenance(path: Path, *, name: str | None = None) -> Provenance:
    """Hold a manifest's file against its checksum, and read where its rows come from.

    Parameters
    ----------
    path : Path
        The file.
    name : str, optional
        What messages call it, by default the path.

    Raises
    ------
    ManifestError
        If the file is missing, damaged, no Parquet, or no manifest of koser.
    """
    name = str(path) if name is None else name
    # What an object was copied to has no name in any folder.
    if not path.exists() or path.is_dir():
        raise ManifestError(
            f"No manifest at '{name}'. Make one: koser prepare CORPUS ROOT --out {quote(name)}"
        )
    try:
        with path.open("rb") as file:
            is_damaged = is_intact(file) is False
        if is_damaged:
            raise ManifestError(
                f"'{name}' is damaged, or was changed after it was written: its checksum is "
                f"wrong. Copy it again, or make it again: koser prepare"
            )
        metadata = pl.read_parquet_metadata(path)
    except UNREADABLE as error:
        raise unreadable(name, error) from error
    if _METADATA_KEY not in metadata:
        raise ManifestError(
            f"'{name}' is a Parquet file, but not a manifest of koser. "
            f"Bring your own table in with: koser prepare table {quote(name)} "
            f"--out M.parquet"
        )
    return Provenance.from_json(metadata[_METADATA_KEY])


def unreadable(name: Place, error: BaseException) -> ManifestError:
    """What to say of a manifest's file that raised one of `koser.data.sealing.UNREADABLE`."""
    if isinstance(error, PermissionError):
        return ManifestError(f"No permission to read the manifest '{name}'. Ask its owner.")
    return ManifestError(f"'{name}' is not a Parquet file, or is damaged: {error}.")


def build_table(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows as a table with exactly the columns of `SCHEMA`; absent keys are null.

    Parameters
    ----------
    rows : Iterable[Mapping[str, Any]]
        One mapping per utterance; keys are columns of `SCHEMA`.

    Raises
    ------
    ManifestError
        If a key is no column.
    """
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA}
    for row in rows:
        unknown = row.keys() - SCHEMA.keys()
        if unknown:
            raise ManifestError(f"No such columns in a manifest: {sorted(unknown)}.")
        for name, values in columns.items():
            values.append(row.get(name))
    return pl.DataFrame(columns, schema=SCHEMA)


def with_columns_since(table: pl.DataFrame) -> pl.DataFrame:
    """`table` with the columns that koser gained after it may have been written, as null."""
    added = [name for name in _ADDED_LATER if name not in table.columns]
    if not added:
        return table
    table = table.with_columns(pl.lit(None, SCHEMA[name]).alias(name) for name in added)
    return table.select(*(name for name in SCHEMA if name in table.columns))


def _refuse_rows(table: pl.DataFrame, is_wrong: pl.Series, what: str) -> None:
    wrong = table.filter(is_wrong)
    if wrong.height:
        first = ", ".join(wrong["id"].head(5).to_list())
        raise ManifestError(f"{wrong.height} rows {what}, the first: {first}.")
