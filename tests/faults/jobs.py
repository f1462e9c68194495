"""The long commands, on inputs that take seconds, and what each leaves behind."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.kept import (
    checkpoint_content,
    every_file,
    folder_content,
    html_content,
    manifest_content,
    run_content,
    store_content,
    table_content,
    transcript_content,
)
from koser.demo import TABLE_NAME, corpus_folder

LABELS = ("angry", "neutral", "sadness")
N_SPEAKERS = 6
N_EACH = 2

Content = dict[str, Any]


@dataclass(frozen=True)
class Inputs:
    """What the commands are given; made once, only read.

    Attributes
    ----------
    folder : Path
        ``corpus/``, ``m.parquet``, ``space.toml``, pretrained models, finished runs ``one/`` and
        ``two/``.
    """

    folder: Path

    @property
    def manifest(self) -> str:
        """A manifest of 36 synthetic clips of six voices."""
        return str(self.folder / "m.parquet")


@dataclass(frozen=True)
class Job:
    """A command, how it is called again after it was killed, and what is compared.

    Attributes
    ----------
    name : str
        For reports.
    arguments : Callable
        The command line, given the inputs.
    content : Callable
        All that it leaves that must not depend on how often it was killed, by name; tables
        of rows are compared row by row.
    again : tuple[str, ...]
        What is added when it is called again.
    """

    name: str
    arguments: Callable[[Inputs], tuple[str, ...]]
    content: Callable[[Path], Content]
    again: tuple[str, ...] = field(default=())


def write_corpus(folder: Path) -> Path:
    """A part of the synthetic corpus that ships with koser; returns its table."""
    folder.mkdir(parents=True)
    rows = []
    with (corpus_folder() / TABLE_NAME).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            number = int(row["path"].removesuffix(".flac").rpartition("_")[2])
            if row["label"] in LABELS and number <= N_EACH:
                place = LABELS.index(row["label"])
                rows.append({**row, "valence": 2.0 + place, "arousal": 4.0 - place})
    speakers = sorted({row["speaker"] for row in rows})[:N_SPEAKERS]
    rows = [row for row in rows if row["speaker"] in speakers]
    for row in rows:
        shutil.copyfile(corpus_folder() / row["path"], folder / row["path"])
    with (folder / TABLE_NAME).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / TABLE_NAME


_SMALL = (
    *("--set", "train.epochs=2", "--set", "train.batch_size=8", "--set", "cnn.channels=[4, 6]"),
    *("--set", "cnn.hidden_size=8"),
)
_TUNED = (
    *("--set", "train.epochs=2", "--set", "tune.layers=2", "--set", "probe_epochs=2"),
    *("--set", "speeds=[0.9]"),
)
_SAID = (
    *("--set", "whisper.min_logprob=-1000.0", "--set", "whisper.min_speech_seconds=0.0"),
    *("--set", "whisper.max_compression=100.0", "--set", "whisper.beam_size=2"),
)


def _train(inputs: Inputs, model: str, split: str, *more: str) -> tuple[str, ...]:
    return (
        *("train", "--model", model, "--manifest", inputs.manifest, "--split", split),
        *("--out", "run", "--store", "store", "--workers", "1", *more),
    )


def train_mfcc(inputs: Inputs) -> tuple[str, ...]:
    """Three folds of the smallest system."""
    return _train(inputs, "mfcc", "kfold", "--folds", "3", *_SMALL)


def train_folds_in_processes(inputs: Inputs) -> tuple[str, ...]:
    """The same in two processes."""
    return (*train_mfcc(inputs), "--workers", "2")


def train_wav2vec2ft(inputs: Inputs) -> tuple[str, ...]:
    """The last layers of a tiny random encoder."""
    return _train(
        inputs, "wav2vec2ft", "speaker", "--encoder", str(inputs.folder / "encoder"), *_TUNED
    )


def train_multimodal(inputs: Inputs) -> tuple[str, ...]:
    """Sound and what a tiny random Whisper says."""
    models = ("--whisper", str(inputs.folder / "whisper"))
    models += ("--text-model", str(inputs.folder / "text"))
    few = ("--set", "train.epochs=2", "--set", "speeds=[]", "--set", "errors.variants=1")
    return _train(
        inputs, "multimodal", "speaker", *models, *_SAID, *few, "--set", "fusion.hidden=[8, 8]"
    )


def regress(inputs: Inputs) -> tuple[str, ...]:
    """Valence and arousal, three folds."""
    arguments = _train(inputs, "mfcc", "kfold", "--folds", "3", *_SMALL)
    return ("regress", *arguments[1:])


def tune(inputs: Inputs) -> tuple[str, ...]:
    """Two settings tried in each of three folds."""
    search = ("--space", str(inputs.folder / "space.toml"), "--trials", "2", "--inner-folds", "2")
    return ("tune", *train_mfcc(inputs)[1:], *search)


def _run_and_store(folder: Path) -> Content:
    return {**run_content(folder / "run"), **store_content(folder / "store")}


JOBS = (
    Job(
        "prepare",
        lambda inputs: (
            *("prepare", "table", str(inputs.folder / "corpus" / TABLE_NAME), "--synthetic"),
            *("--out", "m.parquet"),
        ),
        lambda folder: manifest_content(folder / "m.parquet"),
    ),
    Job(
        "split",
        lambda inputs: (
            *("split", inputs.manifest, "--by", "kfold", "--folds", "3", "--out", "s.parquet"),
        ),
        lambda folder: table_content(folder / "s.parquet"),
    ),
    Job(
        "extract mfcc",
        lambda inputs: ("extract", inputs.manifest, "--features", "mfcc", "--store", "store"),
        lambda folder: store_content(folder / "store"),
    ),
    Job(
        "extract wav2vec2",
        lambda inputs: (
            *("extract", inputs.manifest, "--features", "wav2vec2", "--store", "store"),
            *("--encoder", str(inputs.folder / "encoder")),
        ),
        lambda folder: store_content(folder / "store"),
    ),
    Job(
        "transcribe",
        lambda inputs: (
            *("transcribe", inputs.manifest, "--whisper", str(inputs.folder / "whisper")),
            *("--store", "store", "--out", "t.json", *_SAID),
        ),
        lambda folder: {**transcript_content(folder / "store"), **every_file(folder, "t.json")},
    ),
    Job("train mfcc, 3 folds", train_mfcc, _run_and_store, ("--resume",)),
    Job(
        "train mfcc, 3 folds in 2 processes",
        train_folds_in_processes,
        _run_and_store,
        ("--resume",),
    ),
    Job("train wav2vec2ft", train_wav2vec2ft, _run_and_store, ("--resume",)),
    Job("train multimodal", train_multimodal, _run_and_store, ("--resume",)),
    Job(
        "predict",
        lambda inputs: (
            *("predict", str(inputs.folder / "one"), "--manifest", inputs.manifest),
            *("--format", "parquet", "--out", "p.parquet"),
        ),
        lambda folder: table_content(folder / "p.parquet"),
    ),
    Job(
        "predict csv",
        lambda inputs: (
            *("predict", str(inputs.folder / "one"), "--manifest", inputs.manifest),
            *("--format", "csv", "--out", "p.csv"),
        ),
        lambda folder: every_file(folder, "p.csv"),
    ),
    Job(
        "predict into shards",
        lambda inputs: (
            *("predict", str(inputs.folder / "one"), "--manifest", inputs.manifest),
            *("--out", "shards", "--shard-rows", "16", "--workers", "1"),
        ),
        lambda folder: folder_content(folder / "shards"),
    ),
    Job("regress", regress, lambda folder: folder_content(folder / "run")),
    Job("tune", tune, _run_and_store, ("--resume",)),
    Job(
        "report",
        lambda inputs: ("report", str(inputs.folder / "one"), "--out", "report.html"),
        lambda folder: html_content(folder / "report.html"),
    ),
    Job(
        "compare",
        lambda inputs: (
            *("compare", str(inputs.folder / "one"), str(inputs.folder / "two")),
            *("--out", "c.html", "--out", "c.csv", "--out", "c.md"),
        ),
        lambda folder: every_file(folder, "c.html", "c.csv", "c.md"),
    ),
    Job(
        "export",
        lambda inputs: ("export", str(inputs.folder / "one"), "--out", "model.onnx"),
        lambda folder: every_file(folder, "model.onnx"),
    ),
)


def find_job(name: str) -> Job:
    """The job of that name."""
    return next(job for job in JOBS if job.name == name)


def checkpoint_of(folder: Path) -> Content:
    """What a checkpoint holds, for tests of single files."""
    return checkpoint_content(folder)
