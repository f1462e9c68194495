"""The ``koser`` command. Each handler parses, calls one public function, prints."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import typer

from koser.cli import (
    audit,
    corpora,
    dimensions,
    doctor,
    explaining,
    inference,
    results,
    robustness,
    serving,
    text,
    training,
    tuning,
)
from koser.errors import ConfigError, one_line_errors
from koser.storage.places import squeezed_url

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


def refusing_urls(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, which refuses a URL where it takes a path of this machine only.

    What may be a URL is annotated as a str. A Path has lost a slash of it, and would be looked
    for, or made, on the disk.

    Raises
    ------
    ConfigError
        If a URL was given for a path.
    """

    @functools.wraps(command)
    def checked(**values: object) -> None:
        for name, value in values.items():
            for each in value if isinstance(value, list) else [value]:
                url = squeezed_url(each) if isinstance(each, Path) else None
                if url is not None:
                    raise ConfigError(
                        f"'{url}' is a URL, and {name.strip('_').replace('_', '-')} has to be on "
                        f"this machine. Copy it here first, or give a local path."
                    )
        command(**values)

    return checked


# In the order of `koser --help`, which is that of the work.
for command in (
    *(corpora.get, corpora.prepare),
    *(corpora.map_, corpora.info, corpora.split, audit.audit),
    *(training.train, tuning.tune, dimensions.regress, training.extract, text.transcribe),
    *(results.report, results.compare, results.evaluate, robustness.robustness, results.reproduce),
    *(inference.predict, explaining.explain, inference.export),
    *(serving.serve, serving.push, serving.pull),
    *(training.demo, doctor.doctor),
):
    app.command(command.__name__.rstrip("_"))(refusing_urls(command))


_INTERRUPTED = 130


def run_app(command: Callable[..., None] | typer.Typer) -> None:
    """Run a typer app or a function as a program, refusing in one line.

    ``--debug`` anywhere on the command line shows the traceback instead.
    """
    debug = "--debug" in sys.argv
    sys.argv[:] = [argument for argument in sys.argv if argument != "--debug"]
    if not isinstance(command, typer.Typer):
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command()(refusing_urls(command))
        command = single
    with one_line_errors(debug=debug):
        try:
            command()
        except SystemExit as ended:
            if ended.code == _INTERRUPTED:  # what typer makes of Ctrl-C, in silence
                raise KeyboardInterrupt from ended
            raise


def main() -> None:
    """Entry point of ``koser``."""
    run_app(app)
