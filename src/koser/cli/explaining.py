"""``koser explain``: what a prediction rests on."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from koser.cli.enrolling import enrolled
from koser.cli.inference import Encoder, MovedTextModel, MovedWhisper

_N_SHOWN = 5


class Format(StrEnum):
    """How an explanation is printed."""

    table = "table"
    json = "json"


def explain(
    model: Annotated[Path, typer.Argument(help="Run folder, a .pth from one, or a .onnx.")],
    path: Annotated[Path, typer.Argument(help="Audio file; at most 30 s of it.")],
    start: Annotated[float | None, typer.Option(help="Where to begin, in seconds.")] = None,
    end: Annotated[float | None, typer.Option(help="Where to end, in seconds.")] = None,
    encoder: Encoder = None,
    whisper: MovedWhisper = None,
    text_model: MovedTextModel = None,
    enrol: Annotated[
        list[str] | None,
        typer.Option(
            help="Speech of the one person that is heard, a file or a folder, to adapt to; given "
            "several times, all of it. For models of koser train --enrol."
        ),
    ] = None,
    format: Annotated[Format, typer.Option(help="table or json.")] = Format.table,
    picture: Annotated[
        Path | None, typer.Option(help="A PNG of waveform, evidence and words.")
    ] = None,
    set: Annotated[
        list[str] | None, typer.Option(help="window=0.3, hop=0.1, ramp=0.01: seconds.")
    ] = None,
) -> None:
    """Show which moments, and which words, a prediction rests on."""
    from koser.audio.reading import Clip
    from koser.config import resolve_config
    from koser.inference.enrolment import EnrolSource
    from koser.inference.explanation import ExplainOptions
    from koser.inference.explanation import explain as find_reasons
    from koser.inference.recognizer import load_recognizer

    options = resolve_config(ExplainOptions, overrides=set or ())
    voice = EnrolSource.parse(enrol or [], is_timeline=False)
    recognizer = load_recognizer(model, encoder=encoder, whisper=whisper, text_model=text_model)
    recognizer = enrolled(recognizer, voice, [str(path)])
    clip = Clip(str(path), start, end)
    found = find_reasons(recognizer, clip, options)
    if format is Format.json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False, allow_nan=False))
    else:
        best = found.prediction
        typer.echo(f"{path}: {best.best} {best.confidence:.3f}, evidence in nats of its log-odds")
        for cell in sorted(found.cells, key=lambda cell: -abs(cell.evidence))[:_N_SHOWN]:
            since, until = cell.start + (start or 0.0), cell.end + (start or 0.0)  # of the file
            typer.echo(f"{since:8.2f} - {until:.2f} s  {cell.evidence:+.3f}")
        for word in found.words:
            typer.echo(f"  {word.text}  {word.evidence:+.3f}")
    if picture is not None:
        from koser.reporting.explanation import plot_explanation

        plot_explanation(found, clip, picture)
