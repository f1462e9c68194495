"""Recognise a manifest of any length, on any engine, into a folder of Parquet shards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import polars as pl

from koser import __version__
from koser.audio.reading import Clip
from koser.data.stored import StoredManifest
from koser.engines.engine import Engine
from koser.engines.shards import ShardFolder, open_shards
from koser.errors import ConfigError
from koser.features.extraction import Progress, clips_of, describe_lost
from koser.inference.batches import MICRO_BATCH
from koser.inference.output import results_table
from koser.inference.prediction import Failure, Prediction
from koser.inference.recognizer import Recognizer, load_recognizer

SHARD_ROWS = 1024


@dataclass(frozen=True)
class ModelSource:
    """What `load_recognizer` takes, so that every worker can load the same model.

    Attributes
    ----------
    model : Path
        Run folder, ``.pth`` or ``.onnx``; where the workers are, too.
    encoder, whisper, text_model : str or None
        Where a pretrained model is now.
    threshold : float
        Probability that a label needs.
    labels : tuple[str, ...] or None
        The labels to choose from.
    """

    model: Path
    encoder: str | None = None
    whisper: str | None = None
    text_model: str | None = None
    threshold: float = 0.0
    labels: tuple[str, ...] | None = None

    def load(self) -> Recognizer:
        """Load the model."""
        return load_recognizer(
            self.model,
            encoder=self.encoder,
            whisper=self.whisper,
            text_model=self.text_model,
            threshold=self.threshold,
            labels=self.labels,
        )

    def digest(self) -> str:
        """A hash of the model's file."""
        file = self.model
        if file.suffix != ".onnx":
            from koser.models.checkpoint import find_checkpoint

            file = find_checkpoint(file)
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()[:16]


@dataclass(frozen=True)
class _Utterance:
    id: str
    clip: Clip


# The utterance's id and what was made of it.
_Answer: TypeAlias = tuple[str, Prediction | Failure]


# Called with an utterance's id and why it has no result.
OnFailure = Callable[[str, str], None]


def predict_manifest(
    source: ModelSource,
    manifest: StoredManifest,
    out: Path,
    engine: Engine,
    *,
    shard_rows: int = SHARD_ROWS,
    on_failure: OnFailure | None = None,
    progress: Progress | None = None,
) -> ShardFolder:
    """Recognise every utterance; interrupted and called again, it goes on.

    Called again, it also tries again those whose files could not be fetched or found. The
    others of their shards are computed with them, so that these get the digits that they would
    have had at first; results that were there stay.

    Each worker computes with one thread, so that neither how many there are nor where they
    are changes a digit.

    Parameters
    ----------
    source : ModelSource
        The model.
    manifest : StoredManifest
        The utterances.
    out : Path
        The folder: a row per utterance, in order, with its id and the columns of ``csv``.
    engine : Engine
        Where it is done.
    shard_rows : int
        Utterances that are done, kept and repeated together.
    on_failure : OnFailure, optional
        Called for each utterance without a result.
    progress : Progress, optional
        Called after each shard.

    Raises
    ------
    ConfigError
        If `shard_rows` is no multiple of what is computed together: results would depend on it.
    ResultsError
        If `out` holds something else, is in use, or cannot be written.
    KoserError
        If the model cannot be loaded, or the manifest contradicts itself.
    """
    if shard_rows < 1 or shard_rows % MICRO_BATCH:
        raise ConfigError(
            f"--shard-rows {shard_rows}: give a multiple of {MICRO_BATCH}, the utterances that "
            f"are computed together."
        )
    recognizer = source.load() if engine.device is None else None
    labels = engine.call(partial(_labels, source)) if recognizer is None else recognizer.labels
    is_on_gpu = recognizer is not None and recognizer.is_on_gpu
    # This process's model serves where there are no others; it cannot be sent to them.
    factory = partial(_Recognition, source, recognizer if is_on_gpu else None)
    del recognizer
    job = {
        "task": "predict",
        "model": source.digest(),
        "labels": list(labels),
        "threshold": source.threshold,
        "manifest": manifest.digest(),
        "koser": __version__,
    }
    with open_shards(out, job, n_rows=len(manifest), shard_rows=shard_rows) as folder:
        todo = folder.todo
        chunks = _iter_chunks(manifest, shard_rows, frozenset(todo))
        made = engine.map_chunks(factory, chunks, lost=_lost, here=is_on_gpu)
        n_done = len(manifest) - sum(map(folder.rows_of, todo))
        for number, answers in zip(todo, made, strict=True):
            failed = _keep(folder, number, answers, labels)
            for identifier, reason in failed.items():
                if on_failure is not None:
                    on_failure(identifier, reason)
            n_done += len(answers)
            if progress is not None:
                progress(n_done, len(manifest))
    return folder


class _Recognition:
    """What a worker does to a shard."""

    def __init__(self, source: ModelSource, recognizer: Recognizer | None = None) -> None:
        self._recognizer = recognizer or source.load()

    def read(self, rows: Sequence[_Utterance]) -> Sequence[_Utterance]:
        return rows  # a shard's sound is not held at once; the recognizer reads ahead

    def finish(self, rows: Sequence[_Utterance]) -> list[_Answer]:
        clips = [row.clip for row in rows]
        if self._recognizer.is_threaded:
            results = list(self._recognizer.iter_clips(clips, n_threads=1))
        else:
            # Here and not above: an exported model needs no torch.
            from koser.features.threads import torch_threads

            with torch_threads(1):
                results = list(self._recognizer.iter_clips(clips))
        return [(row.id, result) for row, result in zip(rows, results, strict=True)]


def _labels(source: ModelSource) -> tuple[str, ...]:
    return source.load().labels


def _lost(row: _Utterance) -> _Answer:
    return row.id, Failure.of_clip(row.clip, describe_lost(row.clip.path))


def _iter_chunks(
    manifest: StoredManifest, shard_rows: int, todo: frozenset[int]
) -> Iterator[list[_Utterance]]:
    for number, table in enumerate(manifest.iter_tables(shard_rows)):
        if number in todo:
            rows = zip(table["id"], clips_of(table), strict=True)
            yield [_Utterance(*row) for row in rows]


def _keep(
    folder: ShardFolder, number: int, answers: Sequence[_Answer], labels: Sequence[str]
) -> dict[str, str]:
    """Write a shard; what an earlier time has a result for stays as it is.

    Returns
    -------
    dict[str, str]
        Why there is no result, by utterance.
    """
    table, old = _table(answers, labels), folder.read(number)
    if old is not None and old.schema == table.schema and old["id"].equals(table["id"]):
        # On some CPUs the number of clips that are computed together changes the last digits.
        stays = old["error"].is_null()
        rows = pl.concat(
            [table.with_row_index().filter(~stays), old.with_row_index().filter(stays)]
        )
        table = rows.sort("index").drop("index")
    lost = [
        (name, result)
        for (name, result), error in zip(answers, table["error"], strict=True)
        if isinstance(result, Failure) and error is not None
    ]
    n_passing = sum(result.may_pass for _, result in lost)
    folder.write(number, table, n_failed=len(lost), n_passing=n_passing)
    return {name: result.error for name, result in lost}


def _table(answers: Sequence[_Answer], labels: Sequence[str]) -> pl.DataFrame:
    ids, results = zip(*answers, strict=True)
    return results_table(results, labels, ids=ids)
