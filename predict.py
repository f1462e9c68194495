#!/usr/bin/env python3
"""Recognise emotions in files or folders with the newest best_model_*.pth here."""

from pathlib import Path
from typing import Annotated

import typer

from koser.cli import run_app
from koser.cli.inference import Format, MovedTextModel, MovedWhisper, predict


def main(
    paths: Annotated[
        list[str], typer.Argument(help="Audio files, and folders to search; URLs too.")
    ],
    model: Annotated[
        Path, typer.Option(help="Model; by default the newest best_model_*.pth here.")
    ] = Path(),
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.table,
    out: Annotated[str | None, typer.Option(help="File or URL to write to.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Where the model's pretrained encoder is now, if it was moved."),
    ] = None,
    whisper: MovedWhisper = None,
    text_model: MovedTextModel = None,
) -> None:
    """Recognise emotions in files or folders, with all probabilities."""
    moved = {"encoder": encoder, "whisper": whisper, "text_model": text_model}
    predict(model, paths, manifest=None, format=format, out=out, **moved)


if __name__ == "__main__":
    run_app(main)
