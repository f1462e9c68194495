"""From sound that arrives in pieces to stretches of emotion: the one way there is.

A timeline and a stream both go through here, so they agree, however the sound was cut.

How a region of speech is recognised
------------------------------------
Windows of `window` seconds begin every `hop` seconds, as long as they fit; where they leave
a rest, one more window ends with the region. A region shorter than a window is one window.
Each window is recognised like an utterance of its own, as the model was trained: its
front-end sees nothing of what is around it.

The region is then cut into cells of `hop` seconds. A cell's probabilities are the mean over
the windows that cover it, weighted by the time they share; the last window speaks only for
cells in which no other begins. Neighbouring cells with the same label become a segment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from koser.audio.activity import Extent, SpeechRegions
from koser.audio.reading import SAMPLING_RATE
from koser.inference.enrolment import FirstSpeech
from koser.inference.recognizer import Recognizer
from koser.inference.segments import Segment, TimelineOptions


@dataclass(frozen=True)
class Found:
    """What became final.

    Attributes
    ----------
    cells : list[Segment]
        The curve: one for each hop.
    segments : list[Segment]
        Cells of one label, put together.
    speech : list[tuple[float, float]]
        Regions of speech that ended, in seconds.
    """

    cells: list[Segment] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    speech: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class _Window:
    start: int  # samples
    end: int
    place: int | None  # how many hops into the region; None for the last one, if it has a rest


class EmotionTracker:
    """Recognise a waveform piece by piece, in bounded memory.

    Parameters
    ----------
    recognizer : Recognizer
        The model.
    options : TimelineOptions
        How the sound is cut up.

    Raises
    ------
    ConfigError
        If the first speech is to be enrolled by, and the model does not adapt to voices or knows
        one already.
    """

    def __init__(self, recognizer: Recognizer, options: TimelineOptions) -> None:
        self._recognizer = recognizer
        self._first = FirstSpeech(recognizer, options.enrol_first) if options.enrol_first else None
        self._sizes = _Sizes.of(options)
        self._speech = SpeechRegions(options.activity)
        self._regions: deque[_Region] = deque()  # all but the last are closed
        self._sound = _SoundBuffer()
        self._merger = _Merger(recognizer, self._sizes.max_segment)

    @property
    def n_samples(self) -> int:
        """Samples fed so far."""
        return self._sound.end

    @property
    def enrolled_from(self) -> float | None:
        """Seconds from which the voice was known: 0 if before the start, None if it is not yet."""
        if self._first is not None:
            return self._first.enrolled_from
        return None if self._recognizer.voice is None else 0.0

    def feed(self, samples: np.ndarray) -> Found:
        """Take the next samples (float32, 16 kHz mono); return what they make final."""
        heard = np.ascontiguousarray(samples, np.float32)
        self._sound.append(heard)
        return self._follow(self._speech.feed(heard))

    def finish(self) -> Found:
        """End the sound; return all that is left."""
        return self._follow(self._speech.finish())

    def hear_now(self) -> Segment | None:
        """What the newest speech sounds like, up to one window of it; None in silence.

        Not final: it changes nothing of what will be.
        """
        if not self._regions:
            return None
        region = self._regions[-1]
        start, end = max(region.start, region.end - self._sizes.window), region.end
        recognizer = self._recognizer if self._first is None else self._first.recognizer
        probabilities = recognizer.predict_waveforms([self._sound.cut(start, end)])[0]
        return _segment(self._recognizer, start, end, probabilities)

    def _follow(self, extents: Sequence[Extent]) -> Found:
        for extent in extents:
            if not self._regions or self._regions[-1].start != extent.start:
                self._regions.append(_Region(extent.start, self._sizes))
            self._regions[-1].extend(extent)
        windows = [(region, window) for region in self._regions for window in region.take_windows()]
        if windows:
            rows = self._recognise([window for _, window in windows])
            for (region, window), row in zip(windows, rows, strict=True):
                region.put(window, row)
        found = Found()
        for region in self._regions:
            for start, end, probabilities in region.take_cells():
                cell = _segment(self._recognizer, start, end, probabilities)
                found.cells.append(cell)
                found.segments.extend(self._merger.add(cell))
            if region.is_closed:
                found.segments.extend(self._merger.flush())
                found.speech.append((_seconds(region.start), _seconds(region.end)))
        while self._regions and self._regions[0].is_closed:
            self._regions.popleft()
        needed = [region.earliest for region in self._regions]
        self._sound.forget(min([self._speech.earliest, *needed]))
        return found

    def _recognise(self, windows: Sequence[_Window]) -> np.ndarray:
        extents = [(window.start, window.end) for window in windows]
        waveforms = [self._sound.cut(*extent) for extent in extents]
        if self._first is None:
            return self._recognizer.predict_waveforms(waveforms)
        return self._first.predict(extents, waveforms)


@dataclass(frozen=True)
class _Sizes:
    """The options in samples."""

    window: int
    hop: int
    max_segment: int

    @classmethod
    def of(cls, options: TimelineOptions) -> _Sizes:
        return cls(
            *(
                max(1, round(seconds * SAMPLING_RATE))
                for seconds in (options.window, options.hop, options.max_segment)
            )
        )


class _Region:
    """One region of speech: its windows, as they fit, and its cells, as they are covered."""

    def __init__(self, start: int, sizes: _Sizes) -> None:
        self.start = start
        self.end = start
        self.is_closed = False
        self._sizes = sizes
        self._n_windows = 0  # whole ones that were taken
        self._n_cells = 0  # that were taken
        self._rows: deque[tuple[_Window, np.ndarray]] = deque()

    @property
    def earliest(self) -> int:
        """First sample that a window still to come may begin with."""
        return max(self.start, self.end - self._sizes.window)

    def extend(self, extent: Extent) -> None:
        self.end, self.is_closed = extent.end, extent.is_closed

    def take_windows(self) -> list[_Window]:
        """Windows that fit by now and were not taken before; once closed, the last one too."""
        window, hop = self._sizes.window, self._sizes.hop
        taken = []
        while (start := self.start + self._n_windows * hop) + window <= self.end:
            taken.append(_Window(start, start + window, self._n_windows))
            self._n_windows += 1
        if self.is_closed:
            covered = self.start + (self._n_windows - 1) * hop + window
            if self._n_windows == 0 or covered < self.end:
                taken.append(_Window(max(self.start, self.end - window), self.end, None))
        return taken

    def put(self, window: _Window, probabilities: np.ndarray) -> None:
        """Keep what was recognised in a window; in order."""
        self._rows.append((window, probabilities))

    def take_cells(self) -> list[tuple[int, int, np.ndarray]]:
        """Cells that no window to come will change: start, end, probabilities."""
        hop = self._sizes.hop
        cells: list[tuple[int, int, np.ndarray]] = []
        while True:
            start = self.start + self._n_cells * hop
            end = min(start + hop, self.end)
            is_settled = self._n_cells < self._n_windows or self.is_closed
            if not is_settled or end <= start:
                return cells
            cells.append((start, end, self._mean(start, end)))
            self._n_cells += 1
            while self._rows and self._rows[0][0].end <= start + hop < self.end:
                self._rows.popleft()

    def _mean(self, start: int, end: int) -> np.ndarray:
        place, weights, rows = self._n_cells, [], []
        for window, row in self._rows:
            is_first_said = window.place is not None and window.place <= place
            is_rest = window.place is None and place >= self._n_windows
            shared = min(end, window.end) - max(start, window.start)
            if shared > 0 and (is_first_said or is_rest):
                weights.append(shared)
                rows.append(row)
        mean: np.ndarray = np.average(rows, axis=0, weights=weights)
        return mean


class _Merger:
    """Neighbouring cells of one label into segments."""

    def __init__(self, recognizer: Recognizer, max_samples: int) -> None:
        self._recognizer = recognizer
        self._max_seconds = _seconds(max_samples)
        self._cells: list[Segment] = []

    def add(self, cell: Segment) -> list[Segment]:
        """Take the next cell; return the segment that it ends, if it does."""
        ended: list[Segment] = []
        if self._cells and (
            cell.label != self._cells[-1].label
            # Half a sample: sums of seconds round.
            or cell.end - self._cells[0].start > self._max_seconds + 0.5 / SAMPLING_RATE
        ):
            ended = self.flush()
        self._cells.append(cell)
        return ended

    def flush(self) -> list[Segment]:
        """The segment of the cells since the last one."""
        if not self._cells:
            return []
        first, last = self._cells[0], self._cells[-1]
        rows = [list(cell.probabilities.values()) for cell in self._cells]
        mean = np.average(rows, axis=0, weights=[cell.duration for cell in self._cells])
        probabilities = dict(zip(self._recognizer.labels, mean.tolist(), strict=True))
        self._cells = []
        return [Segment(first.start, last.end, first.label, probabilities)]


class _SoundBuffer:
    """The newest samples of a waveform, addressed by their place in the whole."""

    def __init__(self) -> None:
        self._start = 0
        self._samples = np.zeros(0, np.float32)

    @property
    def end(self) -> int:
        """Samples that were appended in all."""
        return self._start + len(self._samples)

    def append(self, samples: np.ndarray) -> None:
        self._samples = np.concatenate([self._samples, samples])

    def cut(self, start: int, end: int) -> np.ndarray:
        """Samples `start` to `end`; they must not have been forgotten."""
        return self._samples[start - self._start : end - self._start]

    def forget(self, before: int) -> None:
        """Let go of all samples before this one."""
        n_gone = before - self._start
        if n_gone > 0:
            self._samples, self._start = self._samples[n_gone:].copy(), before


def _segment(recognizer: Recognizer, start: int, end: int, probabilities: np.ndarray) -> Segment:
    return Segment(
        _seconds(start),
        _seconds(end),
        recognizer.choose(probabilities),
        dict(zip(recognizer.labels, probabilities.tolist(), strict=True)),
    )


def _seconds(n_samples: int) -> float:
    return n_samples / SAMPLING_RATE
