"""The commands that compute: ``koser train``, ``koser extract``, ``koser demo``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from koser.systems import SYSTEM_NAMES

# As in koser.cli: nothing that loads polars or torch is imported before a handler runs.

SYSTEMS = ", ".join(SYSTEM_NAMES)

Seed = Annotated[int, typer.Option(help="Seed of the split.")]
TestFraction = Annotated[float, typer.Option(help="Wanted share of the test part.")]
ValFraction = Annotated[
    float, typer.Option(help="Wanted share of the val part; 0 for none (fixed epochs).")
]
Folds = Annotated[
    int | None, typer.Option("--folds", help="Folds of kfold, or of speakers in speaker+script.")
]
ScriptFolds = Annotated[int | None, typer.Option(help="Folds of scripts in speaker+script.")]
Workers = Annotated[int | None, typer.Option(help="Processes; by default one per core.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Setting, as in train.epochs=20.")
]
Encoder = Annotated[
    str | None,
    typer.Option(help="Pretrained speech encoder: hub id or folder, for a system that has one."),
]
Whisper = Annotated[
    str | None,
    typer.Option(
        help="Whisper, for a system that reads transcripts: a size (tiny … large-v3), a hub id, "
        "or a folder."
    ),
]
TextModel = Annotated[
    str | None,
    typer.Option(help="BERT-like model, for a system that reads transcripts: hub id or folder."),
]
Store = Annotated[
    Path | None, typer.Option(help="Folder of the feature stores; else $KOSER_CACHE.")
]


def train(
    model: Annotated[str, typer.Option(help=f"System to train: {SYSTEMS}.")],
    split: Annotated[
        list[str],
        typer.Option(
            help="Protocol (see `koser split --help`), or a kept split. Given several times: a run "
            "for each, and the gaps between their scores."
        ),
    ],
    manifest: Annotated[Path | None, typer.Option(help="Manifest to train on.")] = None,
    data: Annotated[Path | None, typer.Option(help="Or a folder <label>/*.wav.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder; by default runs/<model>_<split>_<time>. With several splits: the "
            "folder of their run folders and of gap.json (by default runs/gap_<model>_….json)."
        ),
    ] = None,
    encoder: Encoder = None,
    whisper: Whisper = None,
    text_model: TextModel = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    seed: Annotated[int, typer.Option(help="First training seed.")] = 42,
    seeds: Annotated[int, typer.Option(help="Seeds to train with, for mean ± sd.")] = 1,
    split_seed: Seed = 42,
    test_fraction: TestFraction = 0.2,
    val_fraction: ValFraction = 0.1,
    folds: Folds = None,
    script_folds: ScriptFolds = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run (newest, or --out).")
    ] = False,
    workers: Workers = None,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """Train and test a system, end to end, and leave a run folder for each split."""
    from koser.experiment.request import TrainRequest

    request = TrainRequest(
        model=model,
        split=split[0],
        manifest=manifest,
        data=data,
        split_options=split_options(split_seed, test_fraction, val_fraction, folds, script_folds),
        config_file=config,
        overrides=tuple(set_ or ()),
        encoder=encoder,
        whisper=whisper,
        text_model=text_model,
        seed=seed,
        n_seeds=seeds,
    )
    folders, _ = train_request(
        request, split, out, resume=resume, workers=workers, store=store, quiet=quiet
    )
    for folder in folders:
        typer.echo(f"Report: {folder / 'report.html'}")


def extract(
    manifest: Annotated[Path, typer.Argument(help="Manifest made by `koser prepare`.")],
    features: Annotated[str, typer.Option(help=f"Those that a system trains on: {SYSTEMS}.")],
    encoder: Encoder = None,
    whisper: Whisper = None,
    text_model: TextModel = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    workers: Workers = None,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """Fill the feature store ahead of `koser train`; interrupted and run again, it goes on."""
    from koser.data.manifest import Manifest
    from koser.engines.local import available_cores
    from koser.experiment.extraction import extract_features
    from koser.experiment.request import resolve_settings
    from koser.features.store import default_store_root
    from koser.terminal import notes_shown, print_extraction, progress_bars

    settings = resolve_settings(
        features,
        file=config,
        overrides=set_ or (),
        encoder=encoder,
        whisper=whisper,
        text_model=text_model,
    )
    loaded = Manifest.read(manifest)
    with notes_shown(), progress_bars(quiet=quiet) as listeners:
        done = extract_features(
            features,
            loaded,
            settings,
            store_root=store or default_store_root(),
            n_workers=workers or available_cores(),
            progress=listeners.on_clip,
        )
    print_extraction(done)


def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder to work in; by default runs/demo_<time>.")
    ] = None,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Run the whole main job on the embedded SYNTHETIC corpus, offline."""
    from koser.experiment.demo import prepare_demo
    from koser.experiment.request import new_folder
    from koser.terminal import print_demo_prediction, print_manifest

    folder = out or new_folder("demo")
    manifest, request = prepare_demo(folder)
    print_manifest(manifest, folder / "manifest.parquet")
    (run,), _ = train_request(
        request, [request.split], folder / "run", workers=workers, quiet=quiet
    )
    print_demo_prediction(run, manifest)
    typer.echo(f"Report: {(run / 'report.html').resolve()}")


def train_request(
    request: Any,  # a TrainRequest, which is not imported at the top: see there
    splits: Sequence[str],
    out: Path | None,
    *,
    resume: bool = False,
    workers: int | None = None,
    store: Path | None = None,
    quiet: bool = False,
) -> tuple[list[Path], Path | None]:
    """Run a `TrainRequest` under every split, with progress bars, and print the results.

    Returns
    -------
    folders : list[Path]
        One run folder per split.
    gap : Path or None
        ``gap.json``, where there are several.
    """
    from koser.engines.local import available_cores
    from koser.experiment.run import check_folder, is_finished, run_experiment
    from koser.experiment.series import (
        FinishedRun,
        choose_folders,
        gap_file,
        resolve_series,
        write_gaps,
    )
    from koser.features.store import default_store_root
    from koser.terminal import notes_shown, print_gaps, print_run, progress_bars

    experiments = resolve_series(request, splits)
    folders = choose_folders(experiments, out, resume=resume)
    # All of them now: the second should not be refused when the first has been trained.
    for experiment, folder in zip(experiments, folders, strict=True):
        check_folder(experiment, folder, resume=resume)
    runs = []
    with notes_shown():
        for experiment, folder in zip(experiments, folders, strict=True):
            if not is_finished(folder):
                with progress_bars(quiet=quiet) as listeners:
                    run_experiment(
                        experiment,
                        folder,
                        store_root=store or default_store_root(),
                        n_workers=workers or available_cores(),
                        resume=resume,
                        listeners=listeners,
                        command=sys.argv,
                    )
            runs.append(FinishedRun.read(experiment, folder))
            print_run(experiment.name, runs[-1].metrics)
    if len(runs) == 1:
        return folders, None
    gap = gap_file(runs, out)
    print_gaps(write_gaps(runs, gap), gap)
    return folders, gap


def split_options(
    seed: int,
    test_fraction: float,
    val_fraction: float,
    folds: int | None,
    script_folds: int | None,
) -> Any:  # SplitOptions, which is not imported at the top: see there
    """The options of a split as they were given."""
    from koser.config import build_config
    from koser.data.splits import SplitOptions

    return build_config(
        SplitOptions,
        {
            "seed": seed,
            "test_fraction": test_fraction,
            "val_fraction": val_fraction,
            "n_folds": folds,
            "n_script_folds": script_folds,
        },
    )
