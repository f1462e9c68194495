"""``koser robustness``: what worse sound costs a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from koser.cli.inference import Encoder, MovedTextModel, MovedWhisper
from koser.cli.options import Language, Quiet, Store, Workers, report_options
from koser.cli.results import RunPath, places_of

# As in koser.cli: nothing that loads polars or torch is imported before a handler runs.


def robustness(
    run: RunPath,
    manifest: Annotated[
        list[str],
        typer.Option(help="Manifest that the run was trained on, or its URL; of several, each."),
    ],
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="A kind of degradation; may be given several times. By default all: noise, "
            "babble, g711a, g711u, opus, clipping, speed, reverberation."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the result; by default the run, whose report then shows it."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of noise, voices and rooms.")] = 0,
    encoder: Encoder = None,
    whisper: MovedWhisper = None,
    text_model: MovedTextModel = None,
    store: Store = None,
    workers: Workers = None,
    report_language: Language = "ko",
    quiet: Quiet = False,
) -> None:
    """Test a run on its own test utterances with noise, over telephones, in rooms.

    Killed and run again, it goes on where it was.
    """
    from koser.engines.local import available_cores
    from koser.experiment.robustness import FILE, RobustnessRequest, measure_robustness
    from koser.features.store import default_store_root
    from koser.reporting.report import write_report
    from koser.terminal import bar, notes_shown
    from koser.terminal.results import print_robustness

    report = report_options(report_language, 0)
    request = RobustnessRequest(
        run,
        tuple(manifest),
        tuple(only or ()),
        seed,
        places_of(encoder, whisper, text_model),
    )
    folder = out or run
    with notes_shown(), bar("trainings", quiet=quiet) as show:
        values = measure_robustness(
            request,
            folder,
            store_root=store or default_store_root(),
            n_workers=workers or available_cores(),
            on_training=show,
        )
    print_robustness(values)
    typer.echo(f"Robustness: {folder / FILE}, {folder / 'robustness.png'}")
    if folder == run:
        typer.echo(f"Report: {write_report(run, report)}")
