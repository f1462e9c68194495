"""Published folds and parts: lists of who belongs where, shipped or the user's own.

A list is a CSV, TSV or Parquet table with one row per utterance or speaker: a column
``id``, ``speaker`` or ``group``, and a column ``fold`` (any names; each is tested once)
or ``part`` (``train``, ``val``, ``test``, ``left_out``).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import polars as pl

from koser.data.assignment import PARTS, IntArray, codes
from koser.errors import SplitError
from koser.storage.objects import local_file
from koser.storage.places import is_url, name_of

KEYS = ("id", "speaker", "group")
VALUES = ("fold", "part")

_SHIPPED = resources.files("koser.data") / "folds"


@dataclass(frozen=True)
class Listed:
    """What a list says about the utterances of a manifest.

    Attributes
    ----------
    value : str
        What it says: ``"fold"`` or ``"part"``.
    values : np.ndarray [shape=(n_utterances,)]
        The fold that tests each, from 0 in the order of the folds' names; or the part of
        each, as its place in `PARTS`.
    notes : tuple[str, ...]
        What a reader should know.
    """

    value: str
    values: IntArray
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoldList:
    """A list as it was read.

    Attributes
    ----------
    name : str
        The list's file.
    key, value : str
        The columns it has: one of `KEYS`, one of `VALUES`.
    table : pl.DataFrame
        These two columns as strings, each key once.
    """

    name: str
    key: str
    value: str
    table: pl.DataFrame

    def look_up(self, utterances: pl.DataFrame) -> Listed:
        """What the list says about each row of `utterances`, a manifest's table.

        Raises
        ------
        SplitError
            If the list does not name every utterance.
        """
        rows = utterances.select(self.key)
        found = rows.join(self.table, on=self.key, how="left", maintain_order="left")
        missing = found.filter(pl.col(self.value).is_null())
        if missing.height:
            names = missing[self.key].fill_null("(none)").unique(maintain_order=True)
            raise SplitError(
                f"The list '{self.name}' does not name the {self.key} of {missing.height} "
                f"utterances: {_first(names)}. List them all, or prepare another manifest."
            )
        notes: tuple[str, ...] = ()
        absent = self.table.filter(~pl.col(self.key).is_in(utterances[self.key].implode()))
        if absent.height:
            notes = (
                f"{absent.height} of the {self.table.height} listed in '{self.name}' are not in "
                f"the manifest: {_first(absent[self.key])}.",
            )
        values = found[self.value]
        is_fold = self.value == "fold"
        numbers = _numbered(values) if is_fold else np.array([PARTS.index(each) for each in values])
        return Listed(self.value, numbers, notes)


def shipped_lists() -> list[str]:
    """Names of the lists that come with koser."""
    return sorted(Path(entry.name).stem for entry in _SHIPPED.iterdir())


def read_fold_list(name: str) -> FoldList:
    """Read a list by the name of a shipped one, or from a file.

    Parameters
    ----------
    name : str
        Such as ``"ravdess"``, or the path or URL of a CSV, TSV or Parquet file.

    Raises
    ------
    SplitError
        If there is no such list, or it is no sound one.
    """
    if name in shipped_lists():
        with resources.as_file(_SHIPPED / f"{name}.csv") as file:
            table = _read_table(file, ".csv")
    elif is_url(name) or Path(name).is_file():
        with local_file(name) as file:
            table = _read_table(file, name_of(name).suffix)
    else:
        raise SplitError(
            f"No list '{name}': neither a file nor one that koser ships "
            f"({', '.join(shipped_lists())}). Write --split fixed:LIST.csv"
        )
    return _checked(name, table)


def _read_table(file: Path, suffix: str) -> pl.DataFrame:
    try:
        if suffix == ".parquet":
            table = pl.read_parquet(file, hive_partitioning=False, glob=False)
        else:
            separator = "\t" if suffix == ".tsv" else ","
            table = pl.read_csv(file, separator=separator, infer_schema=False, glob=False)
        columns = pl.all().cast(pl.String).str.strip_chars().str.normalize("NFC")
        return table.select(columns.replace("", None))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SplitError(f"'{file}' is not a table (CSV, TSV or Parquet): {error}.") from error


def _checked(name: str, table: pl.DataFrame) -> FoldList:
    keys = [column for column in KEYS if column in table.columns]
    values = [column for column in VALUES if column in table.columns]
    if not keys or len(values) != 1:
        raise SplitError(
            f"The list '{name}' has the columns {', '.join(table.columns)}. It needs one of "
            f"{', '.join(KEYS)}, and either fold or part."
        )
    key, value = keys[0], values[0]  # the finest key, where a list has several
    table = table.select(key, value)
    for column in (key, value):
        if n_missing := table[column].null_count():
            raise SplitError(
                f"Column '{column}' of the list '{name}' is empty in {n_missing} rows."
            )
    repeated = table.filter(pl.col(key).is_duplicated())[key].unique(maintain_order=True)
    if len(repeated):
        raise SplitError(
            f"The list '{name}' names {len(repeated)} × {key} more than once: {_first(repeated)}. "
            f"Keep one row for each."
        )
    unknown = table.filter(~pl.col(value).is_in(PARTS))[value]
    if value == "part" and len(unknown):
        raise SplitError(
            f"The list '{name}' has {len(unknown)} rows with an unknown part: "
            f"{_first(unknown.unique(maintain_order=True))}. Parts are {', '.join(PARTS)}."
        )
    return FoldList(name, key, value, table)


def _numbered(names: pl.Series) -> IntArray:
    """Folds from 0 on: in the order of their numbers, else of their names."""
    numbers = names.cast(pl.Int64, strict=False)
    return codes(names if numbers.null_count() else numbers)


def _first(names: pl.Series) -> str:
    return ", ".join(names.head(5)) + (", …" if len(names) > 5 else "")
