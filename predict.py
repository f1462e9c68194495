#!/usr/bin/env python3
"""Recognise emotions in files or folders with the newest best_model_*.pth here."""

from pathlib import Path
from typing import Annotated

import typer

from koser.cli import run_app
from koser.cli_inference import Format, predict


def main(
    paths: Annotated[list[Path], typer.Argument(help="Audio files, and folders to search.")],
    model: Annotated[
        Path, typer.Option(help="Model; by default the newest best_model_*.pth here.")
    ] = Path(),
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.table,
    out: Annotated[Path | None, typer.Option(help="File to write to.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Where the model's pretrained encoder is now, if it was moved."),
    ] = None,
) -> None:
    """Recognise emotions in files or folders, with all probabilities."""
    predict(model, paths, manifest=None, encoder=encoder, format=format, out=out)


if __name__ == "__main__":
    run_app(main)
