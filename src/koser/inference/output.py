"""Which sounds to recognise, and how results are written down."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeAlias

from koser.audio.listing import audio_in, names_audio
from koser.audio.reading import Clip
from koser.errors import ConfigError, StorageError
from koser.evaluation.dimensions import DIMENSIONS
from koser.inference.prediction import Failure, Prediction, Values
from koser.inference.writers import UNSURE
from koser.storage.objects import is_folder
from koser.storage.places import Place, is_url
from koser.storage.writing import writing

if TYPE_CHECKING:
    import polars as pl

# Utterances that are read, and results that become a table, together.
_PART = 8192
# Of lines of text, and those that only a file can hold.
LINE_FORMATS = ("table", "json", "csv")
FORMATS = (*LINE_FORMATS, "parquet")
# Columns of text; the others are numbers.
_TEXTS = ("path", "label", "error")

Result: TypeAlias = Prediction | Values | Failure
# What the columns of results are named after: a recognizer's labels, or None for values.
Labels: TypeAlias = Sequence[str] | None


def find_clips(paths: Sequence[Place], manifest: Place | None) -> list[Clip]:
    """Everything that `paths` (files, folders, URLs of both) and `manifest` name, in order.

    Raises
    ------
    ConfigError
        If nothing is named. What is named but missing shows when it is its turn.
    CorpusError
        If a folder cannot be searched.
    StorageError
        If object storage cannot be used.
    """
    clips: list[Clip] = []
    for path in paths:
        if _is_folder(path):
            # A folder without audio stands for itself: its turn to fail comes, the rest goes on.
            clips += [Clip(file) for file in audio_in(path) or [str(path)]]
        else:
            clips.append(Clip(str(path)))
    if manifest is not None:
        # Here and not above: whoever gives a file does not wait for polars.
        from koser.data.stored import StoredManifest
        from koser.features.extraction import clips_of

        with StoredManifest.opened(manifest) as stored:
            for table in stored.iter_tables(_PART):
                clips += clips_of(table)
    if not clips:
        raise ConfigError("Nothing to recognise. Give files, folders or --manifest M.parquet.")
    return clips


def _is_folder(path: Place) -> bool:
    if not is_url(path):
        return Path(path).is_dir()
    url = str(path)
    return url.endswith("/") or (not names_audio(url) and is_folder(url))


def iter_lines(results: Iterable[Result], format: str, labels: Labels) -> Iterator[str]:
    """Yield results as lines of a table, of JSON or of CSV, each as soon as it is there.

    Parameters
    ----------
    results : Iterable[Prediction | Values | Failure]
        What `iter_clips` of a `Recognizer` or a `Regressor` yields.
    format : str
        ``table`` for people (failures are left to standard error), ``json`` for one
        array of objects, ``csv`` with one column per label or dimension; the latter two
        name failures in place.
    labels : Sequence[str] or None
        The recognizer's labels; None for values.
    """
    if format not in LINE_FORMATS:
        raise ConfigError(f"No format '{format}'. Formats: {', '.join(LINE_FORMATS)}.")
    lines = {"table": _table_lines, "json": _json_lines, "csv": _csv_lines}
    yield from lines[format](results, labels)


def write_parquet(results: Iterable[Result], labels: Labels, path: Place) -> None:
    """Write results as a table with the columns of ``csv``, failures included.

    Raises
    ------
    ConfigError
        If `path` cannot be written.
    StorageError
        If it is a URL that cannot be.
    """
    import polars as pl

    from koser.data.sealing import write_table

    try:
        with writing(path) as partial:  # refused, if it has to be, before the work
            # As tables, which take a tenth of the results' memory.
            parts = [results_table(part, labels) for part in _parts(results)]
            write_table(pl.concat(parts), partial)
    except StorageError:
        raise
    except OSError as error:
        raise ConfigError(f"Cannot write '{path}': {error.strerror}.") from error


def results_table(
    results: Sequence[Result],
    labels: Labels,
    *,
    ids: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Results as a table with the columns of ``csv``, after the ids where they are given."""
    import polars as pl

    schema = {name: pl.String if name in _TEXTS else pl.Float64 for name in _column_names(labels)}
    rows = [_cells(result, list(schema)) for result in results]
    table = pl.DataFrame(rows, schema=schema, orient="row")
    if ids is None:
        return table
    return table.select(pl.Series("id", ids, pl.String), pl.all())


def _parts(results: Iterable[Result]) -> Iterator[list[Result]]:
    iterator = iter(results)
    part = list(islice(iterator, _PART))
    while True:  # one at least: no results are a table, too
        yield part
        if not (part := list(islice(iterator, _PART))):
            return


@contextmanager
def text_file(path: Place) -> Iterator[TextIO]:
    """A text file that takes its place under `path` only when it is complete."""
    try:
        with writing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            yield file
    except StorageError:
        raise
    except OSError as error:
        raise ConfigError(f"Cannot write '{path}': {error.strerror}.") from error


def _table_lines(results: Iterable[Result], labels: Labels) -> Iterator[str]:
    width = max(len(label) for label in (*(labels or ()), UNSURE))
    numbers = DIMENSIONS if labels is None else labels
    head = [] if labels is None else [f"{'label':<{width}}"]
    yield "  ".join([*head, *(f"{name:>9.9}" for name in numbers), "file"])
    for result in results:
        if isinstance(result, Failure):
            continue
        cells = result.cells()
        if isinstance(result, Prediction):
            head = [f"{UNSURE if result.label is None else result.label:<{width}}"]
        where = "" if result.start is None else f" from {result.start:.2f} s"
        given = (f"{cells[name]:9.3f}" for name in numbers)
        yield "  ".join([*head, *given, f"{result.path}{where}"])


def _json_lines(results: Iterable[Result], _labels: Labels) -> Iterator[str]:
    yield "["
    # A comma follows every object but the last, which is known only when the next one comes.
    before: str | None = None
    for result in results:
        if before is not None:
            yield f"  {before},"
        before = json.dumps(result.to_dict(), ensure_ascii=False)
    if before is not None:
        yield f"  {before}"
    yield "]"


def _csv_lines(results: Iterable[Result], labels: Labels) -> Iterator[str]:
    names = _column_names(labels)
    yield _csv_line(names)
    for result in results:
        yield _csv_line(["" if cell is None else cell for cell in _cells(result, names)])


def _column_names(labels: Labels) -> list[str]:
    own = DIMENSIONS if labels is None else ("label", "confidence", *labels)
    return ["path", "start", "duration", *own, "error"]


def _cells(result: Result, names: Sequence[str]) -> list[object]:
    """One result in the order of the columns; None for what it does not have."""
    cells = result.cells()
    return [cells.get(name) for name in names]


def _csv_line(cells: Sequence[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(cells)
    return buffer.getvalue()
