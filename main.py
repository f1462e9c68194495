#!/usr/bin/env python3
"""Train and test one of the document's systems on data/emotions.

Every run is kept whole in runs/<model>_<split>_<time>/; the files that the document
names are also left in the current folder.
"""

from pathlib import Path
from typing import Annotated

import typer

from koser.cli import run_app
from koser.cli.options import (
    SYSTEMS,
    Encoder,
    Language,
    Overrides,
    Quiet,
    TextModel,
    Whisper,
    Workers,
)
from koser.cli.training import RunOptions, train_request
from koser.files import copy_atomically

# What the document names, of a run's files.
PATTERNS = (
    *("best_model_*", "training_history_*", "confusion_matrix_*", "results_*"),
    "transcriptions.json",
)


def main(
    model: Annotated[str, typer.Option(help=f"System: {SYSTEMS}.")] = "mfcc",
    split: Annotated[
        list[str] | None,
        typer.Option(
            help="speaker (by default), random, or any of `koser split`. Given several times: a "
            "run for each and the gap between them; best_model_<model>.pth is then of the last."
        ),
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder that preprocess.py made.")] = Path(
        "data/emotions"
    ),
    encoder: Encoder = None,
    whisper: Whisper = None,
    text_model: TextModel = None,
    set_: Overrides = None,
    seeds: Annotated[int, typer.Option(help="Seeds to train with, for mean ± sd.")] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest interrupted run.")
    ] = False,
    workers: Workers = None,
    report_language: Language = "ko",
    quiet: Quiet = False,
) -> None:
    """Train and test one of the document's systems on data/emotions."""
    from koser.experiment.request import TrainRequest

    splits = split or ["speaker"]
    request = TrainRequest(
        model=model,
        split=splits[0],
        data=data,
        overrides=tuple(set_ or ()),
        encoder=encoder,
        whisper=whisper,
        text_model=text_model,
        n_seeds=seeds,
    )
    how = RunOptions(resume=resume, workers=workers, report_language=report_language, quiet=quiet)
    folders, gap = train_request(request, splits, None, how)
    here = {}
    for folder in folders:
        for pattern in PATTERNS:
            here.update({file.name: file for file in folder.glob(pattern)})
    if gap is not None:
        here[f"{gap.stem.rpartition('_')[0]}.json"] = gap  # without the time
    for name, file in here.items():
        copy_atomically(file, Path(name))
        typer.echo(f"Here: {name}")
    for folder in folders:
        typer.echo(f"Report: {folder / 'report.html'}")


if __name__ == "__main__":
    run_app(main)
