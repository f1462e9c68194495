"""The commands that compute: ``koser train``, ``koser extract``, ``koser demo``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from koser.cli.engines import (
    Address,
    BatchRows,
    EngineChoice,
    EngineKind,
    WorkerCpus,
    WorkerGpus,
    engine_options,
)
from koser.cli.options import (
    SYSTEMS,
    AudioClips,
    ConfigFile,
    Encoder,
    Folds,
    Language,
    Members,
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
    report_options,
    split_options,
)

# As in koser.cli: nothing that loads polars or torch is imported before a handler runs.

_DEMO_CLIPS = 4


def train(
    model: Annotated[str, typer.Option(help=f"System to train: {SYSTEMS}.")],
    split: Annotated[
        list[str],
        typer.Option(
            help="Protocol (see `koser split --help`), or a kept split. Given several times: a run "
            "for each, and the gaps between their scores."
        ),
    ],
    manifest: Annotated[
        list[str] | None,
        typer.Option(help="Manifest to train on, or its URL; several: several corpora, together."),
    ] = None,
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
    init: Annotated[
        Path | None,
        typer.Option(
            help="Start from a trained model of the same system, such as one of another corpus: a "
            "run folder, a .pth from one, or a pulled folder."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Settings of wav2vec2ft for a GPU: 8gb, 24gb or 80gb. --config and --set go "
            "before them."
        ),
    ] = None,
    members: Members = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    seed: Annotated[int, typer.Option(help="First training seed.")] = 42,
    seeds: Annotated[int, typer.Option(help="Seeds to train with, for mean ± sd.")] = 1,
    split_seed: Seed = 42,
    test_fraction: TestFraction = 0.2,
    val_fraction: ValFraction = 0.1,
    folds: Folds = None,
    script_folds: ScriptFolds = None,
    enrol: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Adapt to each person by so many unlabelled utterances; 10 of each tested one are "
            "then not scored, whatever their number. A protocol of its own.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run (newest, or --out).")
    ] = False,
    workers: Workers = None,
    store: Store = None,
    report_language: Language = "ko",
    audio_clips: AudioClips = 0,
    canaries: Annotated[
        bool,
        typer.Option(
            "--canaries",
            help="Then train where nothing can be recognised; exit status 1 if something is.",
        ),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Train and test a system, end to end, and leave a run folder for each split."""
    from koser.experiment.request import TrainRequest

    manifests = tuple(manifest or ())
    request = TrainRequest(
        model=model,
        split=split[0],
        manifest=manifests[0] if manifests else None,
        more_manifests=manifests[1:],
        data=data,
        split_options=split_options(split_seed, test_fraction, val_fraction, folds, script_folds),
        config_file=config,
        overrides=tuple(set_ or ()),
        encoder=encoder,
        whisper=whisper,
        text_model=text_model,
        members=members,
        seed=seed,
        n_seeds=seeds,
        init=init,
        preset=preset,
        enrol=enrol,
    )
    how = RunOptions(
        resume=resume,
        workers=workers,
        store=store,
        report_language=report_language,
        audio_clips=audio_clips,
        quiet=quiet,
    )
    folders, _ = train_request(request, split, out, how)
    for folder in folders:
        typer.echo(f"Report: {folder / 'report.html'}")
    if canaries and not pass_canaries(request, split, folders, how):
        raise typer.Exit(1)


def extract(
    manifest: Annotated[
        str, typer.Argument(help="Manifest made by `koser prepare`, a folder of them, or its URL.")
    ],
    features: Annotated[str, typer.Option(help=f"Those that a system trains on: {SYSTEMS}.")],
    encoder: Encoder = None,
    whisper: Whisper = None,
    text_model: TextModel = None,
    members: Members = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    workers: Workers = None,
    store: Store = None,
    engine: EngineChoice = EngineKind.local,
    address: Address = None,
    worker_cpus: WorkerCpus = None,
    worker_gpus: WorkerGpus = None,
    batch_rows: BatchRows = None,
    quiet: Quiet = False,
) -> None:
    """Fill the feature store ahead of `koser train`; interrupted and run again, it goes on."""
    from koser.data.stored import StoredManifest
    from koser.engines.choosing import opened_engine
    from koser.experiment.extraction import extract_features
    from koser.experiment.request import resolve_settings, with_members
    from koser.features.store import default_store_root
    from koser.terminal import notes_shown, print_extraction, progress_bars

    settings = resolve_settings(
        features,
        file=config,
        overrides=with_members(features, members, set_ or ()),
        encoder=encoder,
        whisper=whisper,
        text_model=text_model,
    )
    options = engine_options(engine, workers, address, worker_cpus, worker_gpus, batch_rows)
    with (
        notes_shown(),
        StoredManifest.opened(manifest) as stored,
        opened_engine(options) as where,
        progress_bars(quiet=quiet) as listeners,
    ):
        done = extract_features(
            features,
            stored,
            settings,
            store_root=store or default_store_root(),
            engine=where,
            on_failure=lambda name, reason: typer.echo(f"Error: {name}: {reason}", err=True),
            progress=listeners.on_clip,
        )
    print_extraction(done)
    if done.n_failed:
        typer.echo(f"{done.n_failed} of {done.n_clips} could not be read.", err=True)
        raise typer.Exit(1)


def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder to work in; by default runs/demo_<time>.")
    ] = None,
    workers: Workers = None,
    report_language: Language = "ko",
    quiet: Quiet = False,
) -> None:
    """Run the whole main job on the embedded SYNTHETIC corpus, offline."""
    from koser.experiment.demo import prepare_demo
    from koser.experiment.request import new_folder
    from koser.terminal import print_demo_prediction, print_manifest

    folder = out or new_folder("demo")
    manifest, request = prepare_demo(folder)
    print_manifest(manifest, folder / "manifest.parquet")
    # The corpus that ships with koser may be passed on, so the report can be listened to.
    how = RunOptions(
        workers=workers, report_language=report_language, audio_clips=_DEMO_CLIPS, quiet=quiet
    )
    (run,), _ = train_request(request, [request.split], folder / "run", how)
    print_demo_prediction(run, manifest)
    typer.echo(f"Report: {(run / 'report.html').resolve()}")


@dataclass(frozen=True)
class RunOptions:
    """How trainings are run and reported, whatever they are.

    Attributes
    ----------
    resume : bool
        Go on with an interrupted run.
    workers : int, optional
        Processes; one per core if not given.
    store : Path, optional
        Folder of the feature stores.
    report_language : str
        ``"ko"`` or ``"en"``.
    audio_clips : int
        Clips in the report.
    quiet : bool
        No progress bars.
    """

    resume: bool = False
    workers: int | None = None
    store: Path | None = None
    report_language: str = "ko"
    audio_clips: int = 0
    quiet: bool = False


def train_request(
    request: Any,  # a TrainRequest, which is not imported at the top: see there
    splits: Sequence[str],
    out: Path | None,
    how: RunOptions | None = None,
) -> tuple[list[Path], Path | None]:
    """Run a `TrainRequest` under every split, with progress bars, and print the results.

    Returns
    -------
    folders : list[Path]
        One run folder per split.
    gap : Path or None
        ``gap.json``, where there are several.

    Raises
    ------
    typer.Exit
        In a process that `torchrun` started beside the first one, when the work is done.
    """
    from koser.experiment.following import check_shareable, follow
    from koser.experiment.series import gap_file, resolve_series, write_gaps
    from koser.features.store import default_store_root
    from koser.terminal import print_gaps
    from koser.training.joining import joined_ranks

    how = how or RunOptions()
    with joined_ranks() as ranks:
        # Refused before the work.
        report = report_options(how.report_language, how.audio_clips)
        check_shareable(request, ranks)
        experiments = resolve_series(request, splits)
        if ranks.is_first and request.preset is not None:
            from koser.systems.presets import describe_preset

            typer.echo(describe_preset(request.preset, experiments[0].config))
        if ranks.is_first:
            folders, runs = run_series(experiments, out, how, ranks)
        else:
            store_root = how.store or default_store_root()
            follow(experiments, store_root=store_root, ranks=ranks)
    if not ranks.is_first:
        raise typer.Exit
    if len(runs) == 1:
        return folders, None
    gap = gap_file(runs, out)
    print_gaps(write_gaps(runs, gap, report=report), gap)
    return folders, gap


def run_series(
    experiments: Sequence[Any],  # of Experiment
    out: Path | None,
    how: RunOptions,
    ranks: Any,  # Ranks
) -> tuple[list[Path], list[Any]]:
    """Run what is not finished of `experiments`, and print; their folders and finished runs."""
    from koser.experiment.folder import check_folder, is_finished
    from koser.experiment.following import announce
    from koser.experiment.series import choose_folders
    from koser.terminal import notes_shown, print_run

    folders = choose_folders(experiments, out, resume=how.resume)
    # All of them now: the second should not be refused when the first has been trained.
    for experiment, folder in zip(experiments, folders, strict=True):
        check_folder(experiment, folder, resume=how.resume)
    announce(experiments, [not is_finished(folder) for folder in folders], ranks)
    runs = []
    with notes_shown():
        for experiment, folder in zip(experiments, folders, strict=True):
            runs.append(finish_run(experiment, folder, how, ranks))
            print_run(experiment.name, runs[-1].metrics)
    return folders, runs


def pass_canaries(
    request: Any,  # a TrainRequest, see above
    splits: Sequence[str],
    folders: Sequence[Path],
    how: RunOptions,
) -> bool:
    """Send the pipeline of every finished run through the canaries; whether all passed."""
    from koser.engines.local import available_cores
    from koser.experiment.canaries import watch_run
    from koser.experiment.series import resolve_series
    from koser.features.store import default_store_root
    from koser.reporting.report import write_report
    from koser.terminal import notes_shown
    from koser.terminal.audit import print_canaries

    has_passed = True
    with notes_shown():
        for experiment, folder in zip(resolve_series(request, splits), folders, strict=True):
            values = watch_run(
                experiment,
                folder,
                store_root=how.store or default_store_root(),
                n_workers=how.workers or available_cores(),
            )
            # The report was there before the canaries were.
            write_report(folder, report_options(how.report_language, how.audio_clips))
            print_canaries(experiment.name, values, folder / "canaries.json")
            has_passed = has_passed and values["verdict"] != "fail"
    return has_passed


# Experiment, Ranks; FinishedRun
def finish_run(experiment: Any, folder: Path, how: RunOptions, ranks: Any = None) -> Any:
    """Run an experiment, or go on with it, unless it is finished; return the finished run."""
    from koser.engines.local import available_cores
    from koser.experiment.folder import is_finished, unlock_finished
    from koser.experiment.run import Record, run_experiment
    from koser.experiment.series import FinishedRun
    from koser.features.store import default_store_root
    from koser.terminal import progress_bars

    if not is_finished(folder):
        report = report_options(how.report_language, how.audio_clips)
        with progress_bars(quiet=how.quiet) as listeners:
            run_experiment(
                experiment,
                folder,
                store_root=how.store or default_store_root(),
                n_workers=how.workers or available_cores(),
                resume=how.resume,
                listeners=listeners if ranks is None else replace(listeners, ranks=ranks),
                record=Record(tuple(sys.argv), report),
            )
    else:
        unlock_finished(folder)
    return FinishedRun.read(experiment, folder)
