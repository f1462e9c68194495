"""What the commands print: progress, tables, scores. Everything else is silent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from koser.data.manifest import Manifest
from koser.data.splits import Split
from koser.data.summary import summarise
from koser.reporting.ablations import ablation_notes, ablation_rows
from koser.reporting.language import load_phrases
from koser.reporting.wording import (
    SYNTHETIC,
    corpus_line,
    gap_line,
    human_rows,
    protocol_line,
    score_with_interval,
    stacking_line,
    tuning_line,
    vote_line,
    vote_rows,
    without_voice_line,
)
from koser.storage.places import Place

if TYPE_CHECKING:
    from koser.experiment.extraction import Extraction
    from koser.experiment.members import Member
    from koser.experiment.run import Listeners
    from koser.features.text.transcription import Transcription
    from koser.training.progress import Epoch

# Of a cross-validation; the others are alike.
_SHOWN_FOLDS = 3

console = Console(highlight=False)
# Progress goes to standard error, so that standard output can be piped.
_progress_console = Console(stderr=True, highlight=False)


@contextmanager
def progress_bars(*, quiet: bool = False) -> Iterator[Listeners]:
    """Listeners that draw a bar for the extraction, and one for the training.

    Nothing is drawn where standard error is no terminal.
    """
    # Here and not above: what prints a manifest must not load torch.
    from koser.experiment.run import Listeners

    if quiet or not _progress_console.is_terminal:
        yield Listeners()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=_progress_console, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int | None, note: str = "") -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total, note=note)
            progress.update(tasks[name], completed=done, total=total, note=note)

        def on_epoch(member: Member, record: Epoch) -> None:
            note = f"fold {member.fold}: loss {record.train_loss:.2f}"
            if record.val_uar is not None:
                note += f", val UAR {record.val_uar:.2f}"
            show("epochs", record.epoch, None, note)

        yield Listeners(
            on_clip=lambda done, total: show("features", done, total),
            on_epoch=on_epoch,
            on_member=lambda done, total: show("trainings", done, total),
        )


@contextmanager
def bar(name: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """A single progress bar to call with what is done and its total; None where none is drawn."""
    if quiet or not _progress_console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=_progress_console, transient=True
    ) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def notes_shown() -> Iterator[None]:
    """Show what koser warns of within the block as ``Note: …`` on standard error.

    Each message once, above the progress bars where there are any.
    """
    handler = _Notes(logging.WARNING)
    package = logging.getLogger("koser")
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)


class _Notes(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._shown:
            self._shown.add(message)
            # Text is no markup: a path may hold "[/…]".
            _progress_console.print(f"Note: {message}", markup=False, soft_wrap=True)


def print_manifest(manifest: Manifest, path: Place) -> None:
    """Print what was prepared: rows in, kept and left out by reason, labels, notes."""
    provenance = manifest.provenance
    rows = [("rows read", provenance.n_rows_in), ("kept", len(manifest))]
    rows += [(f"left out: {why}", n) for why, n in provenance.left_out_by_reason().items()]
    rows.append(("audio files without a row", len(provenance.unlisted)))
    counts = summarise(manifest).per_label
    rows += [(f"label {label}", n) for label, n in counts.items()]
    print_rows(f"{provenance.adapter}, labels: {provenance.label_policy}", rows)
    for note in provenance.notes:
        console.print(f"Note: {note}", markup=False)
    if provenance.left_out:
        console.print(f"Every row left out: koser info {path} --left-out", markup=False)
    console.print(f"Manifest: {path}", markup=False)


def print_summary(manifest: Manifest) -> None:
    """Print counts, durations, agreement and notes of a manifest."""
    summary = summarise(manifest)
    for section, rows in groupby(summary.rows(), key=lambda row: row[0]):
        if section != "notes":
            print_rows(section, [(name, value) for _, name, value in rows])
    for note in summary.notes:
        console.print(f"Note: {note}", markup=False)


def print_left_out(manifest: Manifest) -> None:
    """Print every row that is not in the manifest, and every audio file without a row."""
    for row in manifest.provenance.left_out:
        detail = f" ({row.detail})" if row.detail else ""
        console.print(f"{row.source}: {row.reason}{detail}", markup=False)
    for path in manifest.provenance.unlisted:
        console.print(f"{path}: audio file without a row", markup=False)


def print_split(split: Split, manifest: Manifest, path: Place) -> None:
    """Print the sizes of a split's parts and what they share."""
    n_shown = 0
    for section, rows in groupby(split.summary_rows(manifest), key=lambda row: row[0]):
        n_shown += section.startswith("fold")
        if n_shown <= _SHOWN_FOLDS or not section.startswith("fold"):
            print_rows(section, [(name, value) for _, name, value in rows])
    if n_shown > _SHOWN_FOLDS:
        console.print(f"… and {n_shown - _SHOWN_FOLDS} more folds.")
    for note in split.notes:
        console.print(f"Note: {note}", markup=False)
    console.print(f"Split: {path} (hash {split.hash})", markup=False)


def print_rows(title: str, rows: Sequence[tuple[str, object]]) -> None:
    """Print names and values below a title; numbers stand right."""
    is_number = all(isinstance(value, int) for _, value in rows)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right" if is_number else "left")
    for name, value in rows:
        table.add_row(name, f"{value:,}" if is_number else str(value))
    console.print(title, style="bold")
    console.print(table)


def print_run(name: str, metrics: Mapping[str, Any]) -> None:
    """Print a finished run: scores beside their reference levels, and what they rest on.

    Parameters
    ----------
    name : str
        What the run is called.
    metrics : Mapping
        The content of its ``metrics.json``.
    """
    if metrics["is_synthetic"]:
        console.print(f"[bold yellow]{SYNTHETIC}[/]: these numbers say nothing about real speech.")
    chance, majority = metrics["chance_uar"], metrics["majority_accuracy"]
    rows = [
        ("UAR", score_with_interval(metrics, "uar"), f"chance {chance:.3f}"),
        ("accuracy", score_with_interval(metrics, "accuracy"), f"majority {majority:.3f}"),
        *human_rows(metrics),
        ("macro-F1", score_with_interval(metrics, "macro_f1"), ""),
        ("NLL (nats)", score_with_interval(metrics, "nll"), ""),
        ("ECE", score_with_interval(metrics, "ece"), ""),
        *vote_rows(metrics),
    ]
    for label, value in metrics["recall"].items():
        bounds = metrics["ci95"]["recall"][label]
        interval = "" if bounds is None else f" [{bounds[0]:.3f}, {bounds[1]:.3f}]"
        rows.append(
            (f"recall {label}", "absent" if value is None else f"{value:.3f}{interval}", "")
        )
    mark = " (synthetic)" if metrics["is_synthetic"] else ""
    title = f"{name}{mark}: {protocol_line(metrics)}"
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in ("score", "test [95 % interval]", "reference"):
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if len(metrics["seeds"]) > 1:
        over = metrics["over_seeds"]["uar"]
        console.print(
            f"UAR over {len(metrics['seeds'])} seeds: {over['mean']:.3f} ± {over['sd']:.3f}"
        )
    lines = (tuning_line, stacking_line, without_voice_line, corpus_line, vote_line)
    for line in (each(metrics) for each in lines):
        if line:
            console.print(f"{line}.", markup=False)
    print_ablations(metrics)
    shared = ", ".join(f"{kind} {what}" for kind, what in metrics["shared"].items())
    console.print(f"Test shares with train and val: {shared}.")
    for note in (*metrics["notes"], *metrics["protocol"]["notes"]):
        console.print(f"Note: {note}", markup=False)


def print_ablations(metrics: Mapping[str, Any]) -> None:
    """Print what a system is worth without its parts; nothing where none were tried.

    Parameters
    ----------
    metrics : Mapping
        The content of its ``metrics.json``.
    """
    rows = ablation_rows(metrics)
    if rows:
        table = Table(title="ablations: the same split and seeds", title_justify="left")
        table.add_column("trained with", no_wrap=True)
        for name in ("UAR [95 %]", "the system's is higher by"):
            table.add_column(name, no_wrap=True)
        for name, uar, _, gap in rows:
            table.add_row(name, uar, gap)
        console.print(table)
        for note, _ in ablation_notes(metrics, load_phrases("en")):
            console.print(f"Note: {note}", markup=False)


def print_transcription(transcription: Transcription, seconds: float, audio_seconds: float) -> None:
    """Print what became of the clips, and how fast."""
    counts = transcription.counts()
    rows = [("clips", f"{len(transcription.transcripts):,}")]
    rows += [(f"  {status}", f"{n:,}") for status, n in counts.items()]
    rows.append(("transcribed now", f"{transcription.n_new:,}"))
    if transcription.n_new:
        # What was in the cache cost nothing, so a rate is given where nothing was.
        rate = f", {seconds / audio_seconds:.3f} of real time"
        is_all = transcription.n_new == len(transcription.transcripts)
        rows.append(("taken", f"{seconds:,.1f} s{rate if is_all else ''}"))
    print_rows("transcribed", rows)


def print_gaps(values: Mapping[str, Any], path: Path) -> None:
    """Print a system under several protocols side by side, and the gaps between these.

    Parameters
    ----------
    values : Mapping
        The content of ``gap.json``.
    path : Path
        Where that is.
    """
    mark = f" ({SYNTHETIC})" if values["is_synthetic"] else ""
    first, *_ = values["runs"]
    seeds = ", ".join(str(seed) for seed in first["seeds"])
    title = f"{values['model']}{mark}, seeds {seeds}: test [95 % interval]"
    table = Table(title=title, title_justify="left", title_style="bold")
    kind = first["cluster_kind"]
    for name in ("split", "n", "speakers" if kind in ("speaker", None) else kind):
        table.add_column(name)
    for name in ("UAR", "accuracy"):
        table.add_column(name, no_wrap=True)
    for run in values["runs"]:
        table.add_row(
            run["protocol"]["protocol"],
            str(run["n"]),
            "unknown" if run["n_speakers"] is None else str(run["n_speakers"]),
            score_with_interval(run, "uar"),
            score_with_interval(run, "accuracy"),
        )
    console.print(table)
    for gap in values["gaps"]:
        console.print(f"{gap_line(gap)}{mark}", soft_wrap=True, markup=False)
        for note in gap["notes"]:
            console.print(f"Note: {note}", markup=False)
    console.print(f"Gap: {path}", markup=False)


def print_extraction(extraction: Extraction) -> None:
    """Print what an extraction made, how fast, and where it lies."""
    done = extraction
    if done.added_bytes:
        speed = f"{done.speed:,.1f} × real time"
        added = f"{_size(done.added_bytes)} new"
    else:
        speed, added = "everything was there", "nothing new"
    print_rows(
        "extracted",
        [
            ("clips", f"{done.n_clips:,}"),
            ("sound", f"{done.audio_seconds:,.1f} s"),
            ("taken", f"{done.seconds:,.1f} s: {speed}"),
            ("store", f"{done.store_root} ({_size(done.store_bytes)}, {added})"),
        ],
    )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"


def print_demo_prediction(folder: Path, manifest: Manifest) -> None:
    """Print what the demo's model makes of one clip per label."""
    from koser.inference.output import iter_lines
    from koser.inference.recognizer import load_recognizer

    recognizer = load_recognizer(folder)
    tested = Split.read(folder / "split.parquet").ids(0, "test")
    clips = manifest.table.filter(pl.col("id").is_in(tested)).unique(
        "label", keep="first", maintain_order=True
    )
    results = recognizer.predict_files(clips["path"])
    console.print(f"\n[bold]koser predict[/], a clip per label, unheard voice ({SYNTHETIC}):")
    for line in iter_lines(results, "table", recognizer.labels):
        console.print(line, soft_wrap=True)
