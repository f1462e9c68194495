"""The commands on finished runs: ``report``, ``compare``, ``evaluate``; and ``reproduce``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from koser.cli.inference import Encoder as MovedEncoder
from koser.cli.inference import MovedTextModel, MovedWhisper
from koser.cli.options import (
    AudioClips,
    Encoder,
    Language,
    Overrides,
    Quiet,
    Seed,
    Store,
    Workers,
    report_options,
)
from koser.cli.training import RunOptions, finish_run
from koser.errors import ConfigError

# As in koser.cli: nothing that loads polars or torch is imported before a handler runs.

RunPath = Annotated[Path, typer.Argument(help="Folder of a finished run.")]


def report(
    run: RunPath,
    out: Annotated[
        Path | None, typer.Option(help="File to write; by default report.html in the run folder.")
    ] = None,
    report_language: Language = "ko",
    audio_clips: AudioClips = 0,
    explain: Annotated[
        int,
        typer.Option(
            min=0,
            help="How many of the worst mistakes to explain: by which moments and words.",
        ),
    ] = 0,
    encoder: MovedEncoder = None,
    whisper: MovedWhisper = None,
    text_model: MovedTextModel = None,
    quiet: Quiet = False,
) -> None:
    """Write a finished run's report again: in another language, with sound, with reasons."""
    from koser.reporting.report import write_report

    if explain:
        from koser.experiment.explaining import explain_mistakes
        from koser.inference.recognizer import load_recognizer
        from koser.terminal import bar

        load = partial(load_recognizer, encoder=encoder, whisper=whisper, text_model=text_model)
        with bar("explanations", quiet=quiet) as on_clip:
            explain_mistakes(run, explain, load=load, on_clip=on_clip)
    path = write_report(run, report_options(report_language, audio_clips), path=out)
    typer.echo(f"Report: {path}")


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of two finished runs or more.")],
    out: Annotated[
        list[Path] | None,
        typer.Option(help="File to write: .html, .md or .csv; may be given several times."),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="The run the others are held against; else the first.")
    ] = None,
    allow_mixed: Annotated[
        bool,
        typer.Option(
            "--allow-mixed",
            help="Take runs on other splits or data too: shown without differences and tests.",
        ),
    ] = False,
    report_language: Language = "ko",
) -> None:
    """Put finished runs into one table, with intervals, paired tests and cost."""
    from koser.reporting.comparison import compare_runs
    from koser.reporting.comparison_page import check_suffix, write_comparison
    from koser.terminal.results import print_comparison

    language = report_options(report_language, 0).language
    for path in out or ():
        check_suffix(path)
    comparison = compare_runs(runs, baseline=baseline, allow_mixed=allow_mixed)
    print_comparison(comparison)
    for path in out or ():
        write_comparison(comparison, path, language=language)
        typer.echo(f"Comparison: {path}")


def evaluate(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    manifest: Annotated[
        list[str],
        typer.Option(help="Manifest of the data to test on, or its URL; with --matrix, several."),
    ],
    matrix: Annotated[
        bool,
        typer.Option(
            "--matrix",
            help="Every run on every corpus, over the labels that all of them have; a run's own "
            "corpus under its own protocol.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the result; by default runs/<run>_on_<manifest>_<time> or "
            "runs/matrix_<time>."
        ),
    ] = None,
    encoder: MovedEncoder = None,
    whisper: MovedWhisper = None,
    text_model: MovedTextModel = None,
    store: Store = None,
    restrict_labels: Annotated[
        bool,
        typer.Option("--restrict-labels", help="Let the model answer only labels the data has."),
    ] = False,
    report_language: Language = "ko",
    audio_clips: AudioClips = 0,
    quiet: Quiet = False,
) -> None:
    """Test a finished run on other data; labels that one side lacks are reported."""
    from koser.experiment.matrix import evaluate_matrix
    from koser.experiment.other_data import EvaluateRequest, evaluate_run
    from koser.experiment.request import new_folder
    from koser.features.store import default_store_root
    from koser.terminal import notes_shown, print_run, progress_bars

    report = report_options(report_language, audio_clips)
    places = places_of(encoder, whisper, text_model)
    store_root = store or default_store_root()
    if matrix:
        if restrict_labels:
            raise ConfigError(
                "--matrix answers shared labels only, with or without --restrict-labels. "
                "Leave it out."
            )
        evaluated = partial(evaluate_matrix, runs, manifest, places=places, store_root=store_root)
        _write_matrix(evaluated, out, report.language, quiet=quiet)
        return
    if len(runs) > 1 or len(manifest) > 1:
        raise ConfigError(
            f"{len(runs)} runs and {len(manifest)} manifests: one of each is tested. For a table "
            f"of several, add --matrix."
        )
    request = EvaluateRequest(
        run=runs[0],
        manifest=manifest[0],
        places=places,
        restrict=restrict_labels,
        command=tuple(sys.argv),
        report=report,
    )
    folder = out or new_folder(request.name)
    with notes_shown(), progress_bars(quiet=quiet) as listeners:
        metrics = evaluate_run(request, folder, store_root=store_root, on_clip=listeners.on_clip)
    print_run(request.name, metrics)
    typer.echo(f"Report: {folder / 'report.html'}")


def places_of(encoder: str | None, whisper: str | None, text_model: str | None) -> dict[str, str]:
    """Where pretrained models are now, of those that were said to be moved."""
    places = {"encoder": encoder, "whisper": whisper, "text_model": text_model}
    return {name: place for name, place in places.items() if place is not None}


def _write_matrix(
    evaluated: Callable[..., Any], out: Path | None, language: Any, *, quiet: bool
) -> None:
    """The cross-corpus table, printed and written."""
    from koser.experiment.folder import refuse_full
    from koser.experiment.request import new_folder
    from koser.reporting.matrix import write_matrix
    from koser.terminal import bar, notes_shown
    from koser.terminal.results import print_matrix

    folder = out or new_folder("matrix")
    refuse_full(folder)
    with notes_shown(), bar("clips", quiet=quiet) as show:
        on_cell = None if show is None else (lambda _run, _corpus, n, total: show(n, total))
        found = evaluated(on_cell=on_cell)
    print_matrix(found)
    for path in write_matrix(found, folder, language=language):
        typer.echo(f"Matrix: {path}")


def reproduce(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder that preprocess.py made; by default data/emotions."),
    ] = None,
    manifest: Annotated[str | None, typer.Option(help="Or a manifest, or its URL.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run folders and the table.")] = Path(
        "runs/reproduce"
    ),
    models: Annotated[
        str, typer.Option(help="Which of the document's systems, separated by commas.")
    ] = "mfcc,wav2vec2,wav2vec2ft,multimodal",
    encoder: Encoder = None,
    whisper: Annotated[
        list[str] | None,
        typer.Option(
            help="Whisper of a multimodal system; by default small and medium, a system each."
        ),
    ] = None,
    text_model: Annotated[
        str | None, typer.Option(help="Text model of the multimodal systems: hub id or folder.")
    ] = None,
    set_: Overrides = None,
    seed: Annotated[int, typer.Option(help="First training seed.")] = 42,
    seeds: Annotated[int, typer.Option(help="Seeds to train with, for mean ± sd.")] = 1,
    split_seed: Seed = 42,
    workers: Workers = None,
    store: Store = None,
    report_language: Language = "ko",
    quiet: Quiet = False,
) -> None:
    """Run the document's five systems, and the second one on both splits.

    Killed and run again, it goes on where it was. --set KEY=VALUE goes to every system that
    has the key, --set MODEL:KEY=VALUE to one. A system that cannot be run is reported, the
    others are run, and the exit status is 1.
    """
    from koser.data.splits import SplitOptions
    from koser.experiment.reproduction import WHISPERS, ReproduceRequest

    if data is None and manifest is None:
        data = Path("data/emotions")
    request = ReproduceRequest(
        data=data,
        manifest=manifest,
        models=tuple(name.strip() for name in models.split(",") if name.strip()),
        encoder=encoder,
        text_model=text_model,
        whispers=tuple(whisper or WHISPERS),
        overrides=tuple(set_ or ()),
        split_options=SplitOptions(seed=split_seed),
        seed=seed,
        n_seeds=seeds,
    )
    how = RunOptions(
        resume=True, workers=workers, store=store, report_language=report_language, quiet=quiet
    )
    if _reproduce(request, out, how):
        raise typer.Exit(1)


def _reproduce(request: Any, out: Path, how: RunOptions) -> bool:  # a ReproduceRequest; see above
    """Run what is planned and not finished; returns whether something could not be run."""
    from koser.errors import KoserError, describe_missing_module
    from koser.experiment.reproduction import compare_finished, plan, read_manifest, write_gap
    from koser.reporting.comparison_page import Appendix, write_comparison
    from koser.terminal import notes_shown, print_gaps, print_run
    from koser.terminal.results import print_comparison, print_failures

    language = report_options(how.report_language, 0).language
    planned, loaded = plan(request), read_manifest(request)
    finished, failures = {}, {}
    with notes_shown():
        for each in planned:
            try:
                run = finish_run(each.request.resolve_on(loaded), out / each.name, how)
            except KoserError as error:
                failures[each.name] = str(error)
                continue
            except ModuleNotFoundError as error:
                line = describe_missing_module(error)
                if line is None:
                    raise
                failures[each.name] = line
                continue
            finished[each.name] = run
            print_run(each.name, run.metrics)
    gap = write_gap(out, finished, report=report_options(language, 0))
    if gap is not None:
        print_gaps(gap, out / "gap.json")
    comparison = compare_finished(out, finished)
    if comparison is not None:
        print_comparison(comparison)
        appendix = Appendix(gap["gaps"] if gap else (), failures)
        for suffix in (".html", ".md", ".csv"):
            path = out / f"comparison{suffix}"
            write_comparison(comparison, path, language=language, appendix=appendix)
            typer.echo(f"Comparison: {path}")
    print_failures(failures)
    return bool(failures)
