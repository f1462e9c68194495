"""The command on values instead of labels: ``koser regress``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from koser.cli.options import (
    ConfigFile,
    Encoder,
    Folds,
    Overrides,
    Quiet,
    ScriptFolds,
    Seed,
    Store,
    TestFraction,
    ValFraction,
    Workers,
    split_options,
)
from koser.errors import ConfigError

# As in koser.cli: nothing that loads polars or torch is imported before a handler runs.

LOSSES = ("ccc", "mse", "ccc+mse")


def regress(
    model: Annotated[str, typer.Option(help="mfcc or wav2vec2.")],
    split: Annotated[str, typer.Option(help="Protocol (see `koser split --help`), or a kept one.")],
    manifest: Annotated[
        list[Path], typer.Option(help="Manifest with valence and arousal; may be several.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the result; by default runs/regress_<model>_<time>."),
    ] = None,
    loss: Annotated[str, typer.Option(help="ccc, mse, or ccc+mse.")] = "ccc",
    encoder: Encoder = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    seed: Annotated[int, typer.Option(help="First training seed.")] = 42,
    seeds: Annotated[int, typer.Option(help="Seeds to train with.")] = 1,
    split_seed: Seed = 42,
    test_fraction: TestFraction = 0.2,
    val_fraction: ValFraction = 0.1,
    folds: Folds = None,
    script_folds: ScriptFolds = None,
    workers: Workers = None,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """Train and test valence and arousal; a killed command, run again, goes on."""
    from koser.engines.local import available_cores
    from koser.experiment.dimensions import Listeners, RegressRequest, run_regression
    from koser.experiment.request import TrainRequest, new_folder
    from koser.features.store import default_store_root
    from koser.terminal import notes_shown, progress_bars
    from koser.terminal.results import print_dimensions

    if loss not in LOSSES:
        raise ConfigError(f"--loss {loss}: choose one of {', '.join(LOSSES)}.")
    request = RegressRequest(
        TrainRequest(
            model=model,
            split=split,
            manifest=manifest[0],
            more_manifests=tuple(manifest[1:]),
            split_options=split_options(
                split_seed, test_fraction, val_fraction, folds, script_folds
            ),
            config_file=config,
            overrides=tuple(set_ or ()),
            encoder=encoder,
            seed=seed,
            n_seeds=seeds,
        ),
        loss=loss,  # type: ignore[arg-type]  # checked above
        command=tuple(sys.argv),
    )
    folder = out or new_folder(f"regress_{model}")
    with notes_shown(), progress_bars(quiet=quiet) as bars:
        results = run_regression(
            request,
            folder,
            store_root=store or default_store_root(),
            n_workers=workers or available_cores(),
            listeners=Listeners(bars.on_clip, bars.on_member),
        )
    print_dimensions(results, folder)
