"""Emotions of sound that is still being spoken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from koser.audio.reading import LOUDEST, SAMPLING_RATE
from koser.audio.resampling import StreamResampler
from koser.errors import AudioError
from koser.inference.recognizer import Recognizer
from koser.inference.segments import Segment, TimelineOptions
from koser.inference.tracking import EmotionTracker


@dataclass(frozen=True)
class StreamResult:
    """What a stream says of a stretch of sound.

    Attributes
    ----------
    segment : Segment
        The stretch. Of a partial result, the newest speech, up to one window of it.
    is_final : bool
        Whether it stands. The final results are the segments of the recording's timeline;
        a partial result only tells what is being heard.
    """

    segment: Segment
    is_final: bool

    def to_dict(self) -> dict[str, object]:
        """JSON values, as the server writes them."""
        return {**self.segment.to_dict(), "is_final": self.is_final}


class EmotionStream:
    """Recognise a stream: feed it what was recorded, get what was heard.

    Its final results are the segments that `make_timeline` finds in the same sound, however
    it was cut into pieces. A segment becomes final when another emotion, or silence, follows
    it, at most ``max_segment + window + hop`` seconds after it began. Memory is bounded by
    the window.

    Parameters
    ----------
    recognizer : Recognizer
        The model; several streams may share it.
    options : TimelineOptions, optional
        How the sound is cut up, and how often partial results come.
    sampling_rate : int
        Hz, of what is fed; resampled to 16 kHz if it is another.

    Examples
    --------
    A stream of one second in pieces of 100 ms::

        stream = EmotionStream(recognizer)
        for piece in np.split(waveform, 10):
            for result in stream.feed(piece):
                print(result.segment.label, result.is_final)
        results = stream.finish()
    """

    def __init__(
        self,
        recognizer: Recognizer,
        options: TimelineOptions | None = None,
        *,
        sampling_rate: int = SAMPLING_RATE,
    ) -> None:
        options = options or TimelineOptions()
        self._tracker = EmotionTracker(recognizer, options)
        self._resampler = StreamResampler(sampling_rate, SAMPLING_RATE)
        self._partial_every = round(options.partial_every * SAMPLING_RATE)
        self._next_partial = self._partial_every
        self._n_fed = 0
        self._is_finished = False

    @property
    def sampling_rate(self) -> int:
        """Hz, of what is fed."""
        return self._resampler.from_rate

    @property
    def duration(self) -> float:
        """Seconds fed so far."""
        return self._n_fed / self._resampler.from_rate

    @property
    def enrolled_from(self) -> float | None:
        """Seconds from which the speaker's voice was known; None if it is not yet."""
        return self._tracker.enrolled_from

    def feed(self, samples: np.ndarray) -> list[StreamResult]:
        """Take the next samples; return what is new.

        Parameters
        ----------
        samples : np.ndarray [shape=(n_samples,)]
            Mono floats in [-1, 1], of any length, 0 too.

        Returns
        -------
        list[StreamResult]
            Final results in order of time; then at most one partial result, if as much sound
            as `partial_every` came since the last one and somebody speaks.

        Raises
        ------
        AudioError
            If `samples` are not mono floats, hold NaN, infinity or absurdly large values, or
            come after `finish`.
        """
        if self._is_finished:
            raise AudioError("This stream was finished. Begin another one.")
        _check(samples, self._n_fed / self._resampler.from_rate)
        self._n_fed += len(samples)
        heard = self._resampler.feed(samples)
        results = [StreamResult(each, is_final=True) for each in self._tracker.feed(heard).segments]
        if self._partial_every and self._tracker.n_samples >= self._next_partial:
            self._next_partial = self._tracker.n_samples + self._partial_every
            newest = self._tracker.hear_now()
            results += [] if newest is None else [StreamResult(newest, is_final=False)]
        return results

    def finish(self) -> list[StreamResult]:
        """End the sound; return the final results still owed. Nothing can be fed after it."""
        if self._is_finished:
            return []
        self._is_finished = True
        segments = self._tracker.feed(self._resampler.flush()).segments
        segments += self._tracker.finish().segments
        return [StreamResult(segment, is_final=True) for segment in segments]


def _check(samples: np.ndarray, position: float) -> None:
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"A stream takes mono floats in [-1, 1] of shape (n_samples,), not {samples.dtype} of "
            f"shape {samples.shape}. Divide 16-bit integers by 32768."
        )
    if not (np.abs(samples) < LOUDEST).all():  # false for NaN too
        raise AudioError(
            f"The stream holds NaN or infinite samples, or absurdly large ones, after "
            f"{position:.3f} s."
        )
