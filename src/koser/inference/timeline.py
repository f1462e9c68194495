"""Emotions over time of recordings of any length, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from koser.audio.reading import SAMPLING_RATE, iter_blocks
from koser.inference.recognizer import Recognizer
from koser.inference.segments import Segment, TimelineOptions
from koser.inference.tracking import EmotionTracker, Found

# Read at a time: its windows are recognised together.
_BLOCK_SECONDS = 10.0


@dataclass(frozen=True)
class Timeline:
    """What is heard in a recording, and when.

    Attributes
    ----------
    segments : tuple[Segment, ...]
        Stretches of one emotion, ascending and without overlap; between them is no speech.
    cells : tuple[Segment, ...]
        The curve that they were made from: one for each hop of speech.
    speech : tuple[tuple[float, float], ...]
        Start and end of each region of speech, in seconds.
    duration : float
        Of the recording, in seconds.
    labels : tuple[str, ...]
        The recognizer's labels, in the order of all probabilities.
    path : str or None
        The file, where it was one.
    enrolled_from : float or None
        Seconds from which the speaker's voice was known; None where it never was.
    """

    segments: tuple[Segment, ...]
    cells: tuple[Segment, ...]
    speech: tuple[tuple[float, float], ...]
    duration: float
    labels: tuple[str, ...]
    path: str | None = None
    enrolled_from: float | None = None

    def to_dict(self) -> dict[str, object]:
        """JSON values, as the command line and the server write them."""
        values: dict[str, object] = {
            "path": self.path,
            "duration": self.duration,
            "labels": list(self.labels),
            "speech": [list(region) for region in self.speech],
            "segments": [segment.to_dict() for segment in self.segments],
            "cells": [cell.to_dict() for cell in self.cells],
        }
        if self.enrolled_from is not None:
            values["enrolled_from"] = self.enrolled_from
        return values


def make_timeline(
    recognizer: Recognizer,
    source: str | Path | Iterable[np.ndarray],
    options: TimelineOptions | None = None,
    *,
    progress: Callable[[float], None] | None = None,
) -> Timeline:
    """Recognise a recording stretch by stretch.

    Parameters
    ----------
    recognizer : Recognizer
        The model.
    source : str, Path or Iterable[np.ndarray]
        An audio file of any length; or its samples, 16 kHz mono float32, in pieces of any size.
    options : TimelineOptions, optional
        How it is cut up.
    progress : Callable, optional
        Called with the seconds done so far, after each block.

    Raises
    ------
    AudioError
        If the file cannot be read to its end.
    """
    tracker = EmotionTracker(recognizer, options or TimelineOptions())
    is_file = isinstance(source, (str, Path))
    blocks = (
        iter_blocks(source, seconds=_BLOCK_SECONDS) if isinstance(source, (str, Path)) else source
    )
    cells: list[Segment] = []
    segments: list[Segment] = []
    speech: list[tuple[float, float]] = []

    def keep(found: Found) -> None:
        cells.extend(found.cells)
        segments.extend(found.segments)
        speech.extend(found.speech)

    for block in blocks:
        keep(tracker.feed(block))
        if progress is not None:
            progress(tracker.n_samples / SAMPLING_RATE)
    keep(tracker.finish())
    return Timeline(
        segments=tuple(segments),
        cells=tuple(cells),
        speech=tuple(speech),
        duration=tracker.n_samples / SAMPLING_RATE,
        labels=recognizer.labels,
        path=str(source) if is_file else None,
        enrolled_from=tracker.enrolled_from,
    )
