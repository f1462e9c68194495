"""The ``koser`` command. Each handler parses, calls one public function, prints."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from koser.cli import (
    audit,
    corpora,
    dimensions,
    doctor,
    explaining,
    inference,
    results,
    serving,
    text,
    training,
    tuning,
)
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


# In the order of `koser --help`, which is that of the work.
for command in (
    *(corpora.get, corpora.prepare),
    *(corpora.map_, corpora.info, corpora.split, audit.audit),
    *(training.train, tuning.tune, dimensions.regress, training.extract, text.transcribe),
    *(results.report, results.compare, results.evaluate, results.reproduce),
    *(inference.predict, explaining.explain, inference.export),
    *(serving.serve, serving.push, serving.pull),
    *(training.demo, doctor.doctor),
):
    app.command(command.__name__.rstrip("_"))(command)


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
