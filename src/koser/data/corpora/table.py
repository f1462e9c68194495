"""Anyone's own table of utterances: CSV, TSV or Parquet, one row each."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import polars as pl

from koser.data.corpora.collecting import Collector, decode, finite_number, path_on_disk
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import ConfigError, CorpusError, StorageError
from koser.labels import canonical_label
from koser.storage.objects import local_file
from koser.storage.places import Place, folder_of, is_url, join, name_of

NUMBERS = ("start", "end", "channel", "valence", "arousal", "age")
TEXTS = (
    *("id", "path", "label", "situation", "speaker", "group", "session", "release"),
    *("gender", "text", "corpus", "language"),
)
# What a table may bring; the audio itself tells the rest.
COLUMNS = (*TEXTS, *NUMBERS)

OLDEST = 150  # years; an age beyond is a slip of the pen

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def prepare(
    file: Place,
    *,
    columns: Mapping[str, str] | None = None,
    audio_root: Place | None = None,
    is_synthetic: bool = False,
    engine: Engine = SERIAL,
) -> Manifest:
    """Read the rows of `file`.

    Parameters
    ----------
    file : Place
        ``.csv`` or ``.tsv`` (UTF-8 or cp949) or ``.parquet``; may be a URL.
    columns : Mapping[str, str], optional
        koser's column -> the file's column, such as ``{"path": "wav", "label": "emotion"}``.
        Other columns are taken where the file calls them as koser does (`COLUMNS`).
        ``path`` and ``label`` are required; ``start`` and ``end`` are in seconds,
        ``channel`` counts from 0.
    audio_root : Place, optional
        Folder or URL that relative paths start from; by default the one of `file`.
    is_synthetic : bool
        Whether the speech was made by a machine.
    engine : Engine
        Where the audio's headers are read.

    Returns
    -------
    Manifest
        One row per row of the table. Without an ``id``, it is the path without suffix, and
        the segment and channel. Rows without path, label, audio or a usable time or channel,
        or without a speaker where there is such a column, are left out and reported.

    Raises
    ------
    ConfigError
        If `columns` names a column that koser or the file does not have.
    CorpusError
        If the file cannot be read or no row is left.
    StorageError
        If it is an object that cannot be had.
    """
    header, lines = _read(file)
    names = _match_columns(columns or {}, header, file)
    grouping = next((name for name in ("speaker", "group") if name in names), None)
    collector = Collector("table", file, corpus=name_of(file).stem, language=None, engine=engine)
    unusable: Counter[str] = Counter()
    for number, line in lines:
        cell = {name: line[index].strip() for name, index in names.items() if index < len(line)}
        source = cell.get("id") or f"{name_of(file).name}, row {number}"
        if len(line) != len(header):
            detail = f"{len(line)} cells, {len(header)} expected"
            collector.leave_out(source, "malformed row", detail)
            continue
        missing = [name for name in ("path", "label", grouping) if name and not cell[name]]
        if missing:
            collector.leave_out(source, f"no {missing[0]}")
            continue
        numbers = {name: _number(name, cell[name]) for name in NUMBERS if cell.get(name)}
        lost = [name for name, value in numbers.items() if value is None]
        if places := [name for name in lost if name in ("start", "end", "channel")]:
            detail = ", ".join(f"{name} is '{cell[name]}'" for name in places)
            what = "channel" if places == ["channel"] else "time"
            collector.leave_out(source, f"unusable {what}", detail)
            continue
        unusable.update(lost)
        path = _find_audio(cell["path"], folder_of(file) if audio_root is None else audio_root)
        if path is None:
            collector.leave_out(source, "no audio file", cell["path"])
            continue
        fields = {name: cell[name] for name in TEXTS if cell.get(name)} | numbers
        fields |= {"path": path, "label": canonical_label(cell["label"])}
        collector.add(**{"id": _identifier(cell), **fields})
    _note_columns(collector, header, names, unusable)
    return collector.manifest(
        label_policy=f"column '{header[names['label']]}'",
        grouping=grouping,
        is_synthetic=is_synthetic,
    )


def _read(file: Place) -> tuple[list[str], Iterator[tuple[int, Sequence[str]]]]:
    """Header, and each row with its number from 1; every cell as text, null as ``""``."""
    suffix = name_of(file).suffix.lower()
    if suffix not in (*_DELIMITERS, ".parquet"):
        raise CorpusError(f"'{file}' is no table koser reads. Save it as .csv, .tsv or .parquet.")
    try:
        with local_file(file) as local:
            if suffix == ".parquet":
                table = pl.read_parquet(local, hive_partitioning=False, glob=False)
            else:
                text = decode(local.read_bytes(), str(file))
        if suffix == ".parquet":
            # a list or struct has no text and can be no column of ours
            flat = table.select(pl.col(table.columns).exclude(pl.List, pl.Struct, pl.Array))
            cells = flat.select(pl.all().cast(pl.String).fill_null(""))
            headings = [unicodedata.normalize("NFC", heading) for heading in cells.columns]
            return headings, enumerate(cells.iter_rows(), start=1)
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=_DELIMITERS[suffix], strict=True
        )
        lines = [line for line in reader if line]
    except StorageError:
        raise
    except OSError as error:
        raise CorpusError(f"Cannot read '{file}': {error}.") from error
    except (csv.Error, pl.exceptions.PolarsError) as error:
        raise CorpusError(f"'{file}' is not a sound {suffix} file: {error}.") from error
    if not lines:
        raise CorpusError(f"'{file}' is empty. It needs a line of column names.")
    headings = [unicodedata.normalize("NFC", heading.strip()) for heading in lines[0]]
    return headings, enumerate(lines[1:], start=1)


def _match_columns(
    columns: Mapping[str, str], header: Sequence[str], file: Place
) -> dict[str, int]:
    has = f"'{file}' has the columns: {', '.join(header)}"
    unknown = sorted(set(columns) - set(COLUMNS))
    if unknown:
        raise ConfigError(
            f"koser has no column {', '.join(unknown)} to fill. Choose from: {', '.join(COLUMNS)}."
        )
    columns = {ours: unicodedata.normalize("NFC", theirs) for ours, theirs in columns.items()}
    absent = sorted(set(columns.values()) - set(header))
    if absent:
        raise ConfigError(f"No column {', '.join(absent)}. {has}.")
    wanted = {name: columns.get(name, name) for name in COLUMNS}
    repeated = sorted({theirs for theirs in wanted.values() if header.count(theirs) > 1})
    if repeated:
        raise ConfigError(f"Column {', '.join(repeated)} is there more than once. {has}.")
    found = {name: header.index(theirs) for name, theirs in wanted.items() if theirs in header}
    missing = [name for name in ("path", "label") if name not in found]
    if missing:
        raise ConfigError(
            f"No column is given for {' and '.join(missing)}. {has}. "
            f"Name it, such as columns={{'{missing[0]}': '{header[0]}'}}."
        )
    return found


def _find_audio(cell: str, audio_root: Place) -> str | None:
    if is_url(cell):  # the reader says whether it is there
        return cell
    if is_url(audio_root) and not cell.startswith("/"):
        return join(str(audio_root), cell.replace("\\", "/"))
    # Windows writes backslashes; a path that exists with them is left alone
    for spelling in (cell, cell.replace("\\", "/")):
        path = path_on_disk(Path(audio_root) / spelling)
        if path is not None:
            return str(path)
    return None


def _identifier(cell: Mapping[str, str]) -> str:
    path = PurePosixPath(re.sub(r"[\\/]+", "/", cell["path"]))
    name = str(path.with_suffix("")).removeprefix("./")
    if cell.get("start") or cell.get("end"):
        name = f"{name}@{cell.get('start', '')}-{cell.get('end', '')}"
    return f"{name}#{cell['channel']}" if cell.get("channel") else name


def _number(name: str, text: str) -> float | int | None:
    number = finite_number(text)
    if number is None or name not in ("age", "channel"):
        return number
    if name == "age":
        return round(number) if 0 <= number <= OLDEST else None
    return int(number) if number >= 0 and number == int(number) else None


def _note_columns(
    collector: Collector, header: Sequence[str], names: Mapping[str, int], unusable: Counter[str]
) -> None:
    unused = [heading for index, heading in enumerate(header) if index not in names.values()]
    if unused:
        collector.note(f"Columns not used: {', '.join(unused)}.")
    for name, count in unusable.items():
        collector.note(f"{count} cells of '{header[names[name]]}' are no numbers and read as null.")
