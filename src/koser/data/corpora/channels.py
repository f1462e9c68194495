"""Which channel of a stereo dialogue holds whose voice: measured, because labels do not say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from koser.audio.reading import Clip, load_clip, probe
from koser.errors import AudioError

# Sound measured of each speaker, in seconds: enough for a stable power, little of an hour.
MEASURED = 30.0
# By how many dB the speakers must differ between the channels; below, both hear the same.
MIN_SEPARATION = 1.0

_FLOOR = 1e-12  # power of digital silence


@dataclass(frozen=True)
class Turn:
    """One utterance of a dialogue, in seconds."""

    speaker: str
    start: float
    end: float


@dataclass(frozen=True)
class Dialogue:
    """A recording and the turns in it.

    Attributes
    ----------
    path : str
        The audio file.
    turns : tuple[Turn, ...]
        In any order; they may overlap and reach beyond the file.
    """

    path: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class ChannelMap:
    """Whose voice is in which channel.

    Attributes
    ----------
    channel_of : Mapping[str, int]
        Speaker to channel, from 0; empty where that is unknown.
    separation : float or None
        How much louder, in dB, each speaker is in the own channel than in the other's, after
        the channels' own levels are taken out; None where it was not measured.
    why_not : str
        Why `channel_of` is empty; blank where it is not.
    """

    channel_of: Mapping[str, int] = field(default_factory=dict)
    separation: float | None = None
    why_not: str = ""


class ChannelFinder:
    """Find the channels of dialogues; a class, so that worker processes can make their own."""

    def __call__(self, dialogue: Dialogue) -> ChannelMap:
        """The channels of one dialogue; see `find_channels`."""
        return find_channels(dialogue)


def find_channels(dialogue: Dialogue) -> ChannelMap:
    """Measure which of two speakers is in which of two channels.

    The power of both channels is taken over the longest turns during which the other speaker
    is silent, `MEASURED` seconds of each speaker. With powers ``P[speaker, channel]`` the first
    speaker has channel 0 if ``P[0, 0] P[1, 1] > P[0, 1] P[1, 0]``. A gain that differs between
    the channels cancels out, and crosstalk only lowers the separation
    ``5 log10(P[0, 0] P[1, 1] / (P[0, 1] P[1, 0]))``.

    Parameters
    ----------
    dialogue : Dialogue
        Turns of two speakers.

    Returns
    -------
    ChannelMap
        Empty for a file that is not stereo or unreadable, where a speaker is never alone, and
        where the channels differ by less than `MIN_SEPARATION`.
    """
    try:
        info = probe(dialogue.path)
        if info.n_channels != 2:
            return ChannelMap(why_not="not stereo")
        turns = [
            Turn(turn.speaker, turn.start, min(turn.end, info.duration))
            for turn in dialogue.turns
            if 0 <= turn.start < min(turn.end, info.duration)
        ]
        speakers = sorted({turn.speaker for turn in turns})
        alone = turns_alone(turns)
        if len(speakers) != 2 or len({turn.speaker for turn in alone}) != 2:
            return ChannelMap(why_not="no turns of both speakers alone")
        power = np.array([_power(dialogue.path, alone, speaker) for speaker in speakers])
    except AudioError:  # reported with the rows of the recording
        return ChannelMap(why_not="unreadable audio")
    separation = 5 * math.log10(power[0, 0] * power[1, 1] / (power[0, 1] * power[1, 0]))
    if abs(separation) < MIN_SEPARATION:
        return ChannelMap(separation=abs(separation), why_not="both channels hear both speakers")
    first = 0 if separation > 0 else 1
    return ChannelMap({speakers[0]: first, speakers[1]: 1 - first}, abs(separation))


def turns_alone(turns: Sequence[Turn]) -> list[Turn]:
    """Those of `turns` that no turn of another speaker overlaps, by start.

    Examples
    --------
    >>> turns = [Turn("A", 0, 2), Turn("B", 1, 3), Turn("A", 4, 5)]
    >>> [turn.start for turn in turns_alone(turns)]
    [4]
    """
    ordered = sorted(turns, key=lambda turn: (turn.start, turn.end))
    is_alone = [True] * len(ordered)
    ends: dict[str, float] = {}  # of each speaker, the latest end so far
    for index, turn in enumerate(ordered):
        others = (end for speaker, end in ends.items() if speaker != turn.speaker)
        is_alone[index] = max(others, default=-math.inf) <= turn.start
        ends[turn.speaker] = max(ends.get(turn.speaker, -math.inf), turn.end)
    starts: dict[str, float] = {}  # of each speaker, the next start
    for index in range(len(ordered) - 1, -1, -1):
        turn = ordered[index]
        others = (start for speaker, start in starts.items() if speaker != turn.speaker)
        is_alone[index] &= min(others, default=math.inf) >= turn.end
        starts[turn.speaker] = turn.start
    return [turn for turn, alone in zip(ordered, is_alone, strict=True) if alone]


def _power(path: str, turns: Sequence[Turn], speaker: str) -> list[float]:
    """Mean power of each channel over the speaker's longest turns."""
    own = [turn for turn in turns if turn.speaker == speaker]
    own.sort(key=lambda turn: turn.end - turn.start, reverse=True)
    energy, n_samples, left = [0.0, 0.0], 0, MEASURED
    for turn in own:
        if left <= 0:
            break
        end = min(turn.end, turn.start + left)
        left -= end - turn.start
        for channel in (0, 1):
            waveform = load_clip(Clip(path, turn.start, end, channel))
            energy[channel] += float(np.square(waveform, dtype=np.float64).sum())
        n_samples += len(waveform)
    return [each / n_samples + _FLOOR for each in energy]
