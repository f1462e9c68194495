"""``--enrol`` of the commands that use a trained model: whose voice is heard first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from koser.inference.enrolment import EnrolSource
    from koser.inference.recognizer import Recognizer

_N_NAMED = 5


def enrolled(recognizer: Recognizer, source: EnrolSource) -> Recognizer:
    """The recognizer that has heard the files of `source`; what was left out is told."""
    recognizer, left_out = source.enrol(recognizer)
    if left_out:
        named = ", ".join(left_out[:_N_NAMED]) + (", …" if len(left_out) > _N_NAMED else "")
        typer.echo(
            f"Note: without speech and left out: {len(left_out)} of {len(source.paths)} files to "
            f"enrol by ({named})",
            err=True,
        )
    return recognizer
