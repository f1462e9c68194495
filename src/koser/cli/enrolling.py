"""``--enrol`` of the commands that use a trained model: whose voice is heard first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os.path import realpath
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from koser.inference.enrolment import EnrolSource
    from koser.inference.recognizer import Recognizer

_N_NAMED = 5


def enrolled(recognizer: Recognizer, source: EnrolSource, paths: Iterable[str]) -> Recognizer:
    """The recognizer that has heard the files of `source`, before it recognises `paths`.

    Files that are left out are told, and files that are heard and recognised too.
    """
    recognizer, left_out = source.enrol(recognizer)
    if left_out:
        typer.echo(
            f"Note: without speech and left out: {len(left_out)} of {len(source.paths)} files to "
            f"enrol by ({_listed(left_out)})",
            err=True,
        )
    heard = {realpath(path) for path in source.paths if path not in left_out}
    both = [path for path in dict.fromkeys(paths) if realpath(path) in heard] if heard else []
    if both:
        typer.echo(
            f"Note: heard for the voice and recognised too, so adapted to itself: {_listed(both)}",
            err=True,
        )
    return recognizer


def _listed(paths: Sequence[str]) -> str:
    return ", ".join(paths[:_N_NAMED]) + (", …" if len(paths) > _N_NAMED else "")
