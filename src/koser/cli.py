"""The ``koser`` command. Each handler parses, calls one public function, prints."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from koser import cli_corpora, cli_inference, cli_training
from koser.cli_training import Folds, ScriptFolds, Seed, TestFraction, ValFraction, split_options
from koser.errors import one_line_errors

# Nothing that loads polars or torch is imported before a handler runs: `koser --help`
# must not wait for them.

app = typer.Typer(
    name="koser",
    help="Korean speech emotion recognition that can be believed and deployed.",
    epilog="Add --debug to any command to see where an error comes from.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


ManifestPath = Annotated[Path, typer.Argument(help="Manifest made by `koser prepare`.")]


app.command()(cli_corpora.get)
app.command()(cli_corpora.prepare)


@app.command()
def info(
    manifest: ManifestPath,
    left_out: Annotated[
        bool, typer.Option("--left-out", help="List every row that was left out, and why.")
    ] = False,
) -> None:
    """Show what a manifest holds: counts, durations, agreement, rows left out."""
    from koser.data.manifest import Manifest
    from koser.terminal import print_left_out, print_summary

    loaded = Manifest.read(manifest)
    print_left_out(loaded) if left_out else print_summary(loaded)


@app.command()
def split(
    manifest: ManifestPath,
    by: Annotated[
        str,
        typer.Option(
            help="random, speaker, speaker+script, session, leave_one_speaker_out, kfold "
            "or fixed:LIST (fixed:ravdess is shipped)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The split to write (Parquet).")],
    seed: Seed = 42,
    test_fraction: TestFraction = 0.2,
    val_fraction: ValFraction = 0.1,
    folds: Folds = None,
    script_folds: ScriptFolds = None,
) -> None:
    """Make a split and keep it, to be used with `koser train --split FILE`."""
    from koser.data.manifest import Manifest
    from koser.data.splits import make_split
    from koser.terminal import print_split

    loaded = Manifest.read(manifest)
    options = split_options(seed, test_fraction, val_fraction, folds, script_folds)
    made = make_split(loaded, by, options)
    made.write(out)
    print_split(made, loaded, out)


app.command()(cli_training.train)
app.command()(cli_training.extract)


app.command()(cli_inference.predict)
app.command()(cli_inference.export)
app.command()(cli_training.demo)


def run_app(command: Callable[..., None] | typer.Typer) -> None:
    """Run a typer app or a function as a program, refusing in one line.

    ``--debug`` anywhere on the command line shows the traceback instead.
    """
    debug = "--debug" in sys.argv
    sys.argv[:] = [argument for argument in sys.argv if argument != "--debug"]
    with one_line_errors(debug=debug):
        if isinstance(command, typer.Typer):
            command()
        else:
            single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            single.command()(command)
            single()


def main() -> None:
    """Entry point of ``koser``."""
    run_app(app)
