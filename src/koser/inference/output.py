"""Which sounds to recognise, and how results are written down."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from koser.audio.listing import audio_files
from koser.audio.reading import Clip
from koser.data.manifest import Manifest
from koser.errors import ConfigError
from koser.features.extraction import clips_of
from koser.files import replacing
from koser.inference.prediction import Failure, Prediction


def find_clips(paths: Sequence[Path], manifest: Path | None) -> list[Clip]:
    """Everything that `paths` (files, folders) and `manifest` name, in order.

    Raises
    ------
    ConfigError
        If nothing is named. What is named but missing shows when it is its turn.
    CorpusError
        If a folder cannot be searched.
    """
    clips: list[Clip] = []
    for path in paths:
        if path.is_dir():
            # A folder without audio stands for itself: its turn to fail comes, the rest goes on.
            clips += [Clip(str(file)) for file in audio_files(path) or [path]]
        else:
            clips.append(Clip(str(path)))
    if manifest is not None:
        clips += clips_of(Manifest.read(manifest).table)
    if not clips:
        raise ConfigError("Nothing to recognise. Give files, folders or --manifest M.parquet.")
    return clips


def iter_lines(
    results: Iterable[Prediction | Failure], format: str, labels: Sequence[str]
) -> Iterator[str]:
    """Yield results as lines of a table, of JSON or of CSV, each as soon as it is there.

    Parameters
    ----------
    results : Iterable[Prediction | Failure]
        What `Recognizer.iter_clips` yields.
    format : str
        ``table`` for people (failures are left to standard error), ``json`` for one
        array of objects, ``csv`` with one column per label; the latter two name
        failures in place.
    labels : Sequence[str]
        The recognizer's labels.
    """
    formats = {"table": _table_lines, "json": _json_lines, "csv": _csv_lines}
    if format not in formats:
        raise ConfigError(f"No format '{format}'. Formats: {', '.join(formats)}.")
    yield from formats[format](results, labels)


@contextmanager
def text_file(path: Path) -> Iterator[TextIO]:
    """A text file that takes its place under `path` only when it is complete."""
    try:
        with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise ConfigError(f"Cannot write '{path}': {error.strerror}.") from error


def _table_lines(results: Iterable[Prediction | Failure], labels: Sequence[str]) -> Iterator[str]:
    width = max(len(label) for label in labels)
    yield "  ".join([f"{'label':<{width}}", *(f"{label:>9.9}" for label in labels), "file"])
    for result in results:
        if isinstance(result, Prediction):
            shares = (f"{result.probabilities[label]:9.3f}" for label in labels)
            where = "" if result.start is None else f" from {result.start:.2f} s"
            yield "  ".join([f"{result.label:<{width}}", *shares, f"{result.path}{where}"])


def _json_lines(results: Iterable[Prediction | Failure], _labels: Sequence[str]) -> Iterator[str]:
    yield "["
    # A comma follows every object but the last, which is known only when the next one comes.
    before: str | None = None
    for result in results:
        if before is not None:
            yield f"  {before},"
        before = json.dumps(_as_json(result), ensure_ascii=False)
    if before is not None:
        yield f"  {before}"
    yield "]"


def _as_json(result: Prediction | Failure) -> dict[str, object]:
    if isinstance(result, Failure):
        return {"path": result.path, "error": result.error}
    return {
        "path": result.path,
        "start": result.start,
        "duration": result.duration,
        "label": result.label,
        "confidence": result.confidence,
        "probabilities": dict(result.probabilities),
    }


def _csv_lines(results: Iterable[Prediction | Failure], labels: Sequence[str]) -> Iterator[str]:
    yield _csv_line(["path", "start", "duration", "label", "confidence", *labels, "error"])
    for result in results:
        if isinstance(result, Failure):
            yield _csv_line([result.path, *[""] * (len(labels) + 4), result.error])
        else:
            shares = [result.probabilities[label] for label in labels]
            start = "" if result.start is None else result.start
            cells = [result.path, start, result.duration, result.label, result.confidence]
            yield _csv_line([*cells, *shares, ""])


def _csv_line(cells: Sequence[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(cells)
    return buffer.getvalue()
