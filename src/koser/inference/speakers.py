"""Who speaks in a timeline: another tool's speaker turns, joined with its emotions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from koser.errors import ConfigError
from koser.inference.segments import Segment
from koser.inference.timeline import Timeline
from koser.inference.writers import recording_name


@dataclass(frozen=True)
class Turn:
    """A stretch in which somebody speaks; times in seconds."""

    start: float
    end: float
    speaker: str


def read_turns(path: Path, recording: str) -> list[Turn]:
    """Read the speaker turns of one recording from an RTTM file.

    Parameters
    ----------
    path : Path
        As pyannote.audio, NeMo and others write it.
    recording : str
        Path of the sound; its name without ending is what the file calls it.

    Raises
    ------
    ConfigError
        If the file is missing, no RTTM, or has no turns of the recording.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the speaker turns in '{path}': {error}.") from error
    turns: dict[str, list[Turn]] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if fields and fields[0] == "SPEAKER":
            turns.setdefault(fields[1] if len(fields) > 1 else "", []).append(
                _turn(fields, f"line {number} of '{path}'")
            )
    name = recording_name(recording)
    if name not in turns:
        known = ", ".join(list(turns)[:5]) or "none"
        raise ConfigError(
            f"'{path}' has no speaker turns of '{name}'; it has those of: {known}. "
            f"Name the recording as the file does."
        )
    return sorted(turns[name], key=lambda turn: (turn.start, turn.end))


def with_speakers(timeline: Timeline, turns: Sequence[Turn]) -> Timeline:
    """The timeline with a speaker to every cell, and segments cut where speakers change.

    A cell belongs to whoever speaks longest in it; to nobody where nobody does. Emotions are
    not recognised anew, so near a change of speakers a window may have heard both.

    Parameters
    ----------
    timeline : Timeline
        Emotions.
    turns : Sequence[Turn]
        Speakers of the same recording; they may overlap.

    Returns
    -------
    Timeline
        With the same cells and borders, and further borders between them.
    """
    ordered = sorted(turns, key=lambda turn: turn.start)
    cells = tuple(_named(timeline.cells, ordered))
    segments: list[Segment] = []
    place = 0
    for segment in timeline.segments:
        first = place
        while place < len(cells) and cells[place].end <= segment.end:
            place += 1
        for _, group in groupby(cells[first:place], key=lambda cell: cell.speaker):
            segments.append(_joined(segment, list(group)))
    return replace(timeline, cells=cells, segments=tuple(segments))


def _turn(fields: Sequence[str], where: str) -> Turn:
    try:
        start, duration = float(fields[3]), float(fields[4])
        speaker = fields[7]
    except (IndexError, ValueError) as error:
        raise ConfigError(
            f"{where} is no RTTM: SPEAKER, file, channel, onset, duration, <NA>, <NA>, name ..."
        ) from error
    if not (0 <= start < math.inf and 0 <= duration < math.inf):
        raise ConfigError(f"{where} has a turn from {start} s that lasts {duration} s.")
    return Turn(start, start + duration, speaker)


def _named(cells: Iterable[Segment], turns: Sequence[Turn]) -> Iterator[Segment]:
    """Cells with their speakers; both ascend, so turns that are over are passed once."""
    active: list[Turn] = []
    place = 0
    for cell in cells:
        while place < len(turns) and turns[place].start < cell.end:
            active.append(turns[place])
            place += 1
        active = [turn for turn in active if turn.end > cell.start]
        seconds: dict[str, float] = {}
        for turn in active:
            shared = min(turn.end, cell.end) - max(turn.start, cell.start)
            if shared > 0:
                seconds[turn.speaker] = seconds.get(turn.speaker, 0.0) + shared
        speaker = max(seconds, key=lambda name: (seconds[name], name), default=None)
        yield replace(cell, speaker=speaker)


def _joined(segment: Segment, cells: Sequence[Segment]) -> Segment:
    rows = [list(cell.probabilities.values()) for cell in cells]
    mean = np.average(rows, axis=0, weights=[cell.duration for cell in cells])
    return Segment(
        cells[0].start,
        cells[-1].end,
        segment.label,
        dict(zip(segment.probabilities, mean.tolist(), strict=True)),
        cells[0].speaker,
    )
