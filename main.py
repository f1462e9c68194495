#!/usr/bin/env python3
"""Train and test one of the document's systems on data/emotions.

The run is kept whole in runs/<model>_<split>_<time>/; the files that the document names
are also left in the current folder.
"""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from koser.cli import Quiet, Workers, run_app, train_request


def main(
    model: Annotated[str, typer.Option(help="System: mfcc.")] = "mfcc",
    split: Annotated[
        str, typer.Option(help="speaker, random, or any of `koser split`.")
    ] = "speaker",
    data: Annotated[Path, typer.Option(help="Folder that preprocess.py made.")] = Path(
        "data/emotions"
    ),
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Setting, as in train.epochs=20.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds to train with, for mean ± sd.")] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest interrupted run.")
    ] = False,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Train and test one of the document's systems on data/emotions."""
    from koser.experiment.request import TrainRequest

    request = TrainRequest(
        model=model, split=split, data=data, overrides=tuple(set_ or ()), n_seeds=seeds
    )
    folder = train_request(request, None, resume=resume, workers=workers, quiet=quiet)
    for pattern in ("best_model_*", "training_history_*", "confusion_matrix_*", "results_*"):
        for file in folder.glob(pattern):
            shutil.copy(file, file.name)
            typer.echo(f"Here: {file.name}")
    typer.echo(f"Report: {folder / 'report.html'}")


if __name__ == "__main__":
    run_app(main)
