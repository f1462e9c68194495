"""``koser tune``: settings chosen by nested cross-validation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from koser.cli.options import (
    SYSTEMS,
    AudioClips,
    ConfigFile,
    Encoder,
    Folds,
    Language,
    Overrides,
    Quiet,
    ScriptFolds,
    Seed,
    Store,
    TestFraction,
    TextModel,
    ValFraction,
    Whisper,
    Workers,
    split_options,
)
from koser.cli.training import RunOptions, train_request


def tune(
    model: Annotated[str, typer.Option(help=f"System to tune: {SYSTEMS}.")],
    split: Annotated[
        str,
        typer.Option(help="Protocol or kept split; settings are chosen anew in each of its folds."),
    ],
    space: Annotated[
        Path, typer.Option(help="TOML file with the settings to choose, and what each may be.")
    ],
    manifest: Annotated[Path | None, typer.Option(help="Manifest to train on.")] = None,
    data: Annotated[Path | None, typer.Option(help="Or a folder <label>/*.wav.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Settings tried in each fold.")] = 20,
    inner_folds: Annotated[
        int, typer.Option(min=2, help="Folds that a fold's own utterances are split into.")
    ] = 3,
    inner_script_folds: Annotated[
        int | None, typer.Option(min=2, help="And of scripts, in speaker+script.")
    ] = None,
    objective: Annotated[str, typer.Option(help="What is best: uar, or nll (log-loss).")] = "uar",
    encoder: Encoder = None,
    whisper: Whisper = None,
    text_model: TextModel = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    seed: Annotated[int, typer.Option(help="Seed of trainings and of the search.")] = 42,
    split_seed: Seed = 42,
    test_fraction: TestFraction = 0.2,
    val_fraction: ValFraction = 0.1,
    folds: Folds = None,
    script_folds: ScriptFolds = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted search (newest, or --out).")
    ] = False,
    workers: Workers = None,
    store: Store = None,
    report_language: Language = "ko",
    audio_clips: AudioClips = 0,
    quiet: Quiet = False,
) -> None:
    """Choose settings within each fold's own training data, then train and test with them."""
    from koser.config import build_config
    from koser.experiment.request import TrainRequest
    from koser.experiment.search import SearchSpace
    from koser.experiment.tuning import TuneOptions, Tuning
    from koser.systems import system_class

    options = {
        "n_trials": trials,
        "n_folds": inner_folds,
        "n_script_folds": inner_script_folds,
        "objective": objective,
    }
    request = TrainRequest(
        model=model,
        split=split,
        manifest=manifest,
        data=data,
        split_options=split_options(split_seed, test_fraction, val_fraction, folds, script_folds),
        config_file=config,
        overrides=tuple(set_ or ()),
        encoder=encoder,
        whisper=whisper,
        text_model=text_model,
        seed=seed,
        tuning=Tuning(
            SearchSpace.read(space, system_class(model).config_class),
            build_config(TuneOptions, options),
        ),
    )
    how = RunOptions(resume, workers, store, report_language, audio_clips, quiet)
    (folder,), _ = train_request(request, [split], out, how)
    typer.echo(f"Report: {folder / 'report.html'}")
