"""``koser doctor``: what lies on the disk, and what is installed, looked at."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

# As in koser.cli: nothing that loads polars or torch is imported before a handler runs.


class Format(StrEnum):
    """How findings are printed."""

    table = "table"
    json = "json"


def doctor(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A feature store or a folder of them, transcripts.sqlite, a folder that train, "
            "tune, evaluate, regress or predict --out left, a .pth, a manifest or a split; without "
            "a path: the installation."
        ),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Of stores and transcripts: drop what is damaged. It is made anew by the next "
            "command that needs it.",
        ),
    ] = False,
    format: Annotated[Format, typer.Option(help="table or json.")] = Format.table,
) -> None:
    """Check a store, a run, a manifest or the installation; exit status 1 if something fails."""
    from koser.doctor import examine
    from koser.terminal.doctor import print_diagnosis, print_diagnosis_json

    diagnosis = examine(path, repair=repair)
    print_diagnosis_json(diagnosis) if format is Format.json else print_diagnosis(diagnosis)
    if diagnosis.verdict.value == "fail":
        raise typer.Exit(1)
