"""Whisper's known failures, and how they are recognised.

It fills silence with phrases from its training ("thank you for watching"), and it falls
into loops [1]_. The first shows in voice activity, or in a high probability of "no
speech" together with improbable words; the second in a text that compresses too well, says
the same several times in a row or is longer than the clip can hold. In short context it is
prone to say a short sentence twice, with confidence: that is heard again in full context.

References
----------
.. [1] Radford et al., "Robust speech recognition via large-scale weak supervision",
   ICML 2023, section 4.5: compression 2.4, log-probability -1 and no-speech 0.6 are theirs.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from koser.features.text.whisper import WhisperOptions

# Samples of a window of the voice activity detector, and what it takes for speech.
_VAD_WINDOW = 512
_VAD_THRESHOLD = 0.5
_REPEATED = re.compile(r"(.{8,}?)\1+")
# So often in a row nobody says a phrase.
_LOOP = 3


class Status(StrEnum):
    """What became of a clip."""

    ok = "ok"
    no_speech = "no_speech"  # silence, by voice activity or by Whisper itself
    repetition = "repetition"  # a loop, in short and in full context
    low_confidence = "low_confidence"  # words that Whisper itself holds improbable
    failed = "failed"  # it could not be read, or Whisper raised an error


@dataclass(frozen=True)
class Transcript:
    """What a clip says, and how far that is to be believed.

    Attributes
    ----------
    text : str
        As decoded, without blanks around it; of a transcript that is not `is_usable` too.
    status : Status
        Whether a guard was tripped.
    avg_logprob : float or None
        Mean log-probability of its tokens, in nats; None where nothing was decoded.
    no_speech_prob : float or None
        Whisper's own probability that there is no speech.
    context : str
        What the encoder heard in the decoding that counts: ``short``, ``full``, or
        nothing (``none``).
    error : str
        Of a clip that failed, why.
    """

    text: str
    status: Status
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    context: str = "none"
    error: str = ""

    @property
    def usable_text(self) -> str | None:
        """The text, or None where there is none that can be believed."""
        return self.text if self.status is Status.ok and self.text else None


@dataclass(frozen=True)
class Hypothesis:
    """What one decoding gave.

    Attributes
    ----------
    text : str
        Without blanks around it.
    n_tokens : int
        Of the text.
    avg_logprob, no_speech_prob : float
        As of a `Transcript`.
    is_cut : bool
        Whether it had not ended after as many tokens as the clip can hold.
    """

    text: str
    n_tokens: int
    avg_logprob: float
    no_speech_prob: float
    is_cut: bool


def judge(hypothesis: Hypothesis, options: WhisperOptions) -> Status:
    """Whether a decoding can be believed, by the thresholds of `options`."""
    is_looping = count_repeats(hypothesis.text) >= _LOOP
    if (
        hypothesis.is_cut
        or is_looping
        or compression_ratio(hypothesis.text) > options.max_compression
    ):
        return Status.repetition
    is_improbable = hypothesis.avg_logprob < options.min_logprob
    if not hypothesis.text or (is_improbable and hypothesis.no_speech_prob > options.max_no_speech):
        return Status.no_speech
    return Status.low_confidence if is_improbable else Status.ok


def is_doubtful(hypothesis: Hypothesis, options: WhisperOptions) -> bool:
    """Whether what was decoded in short context should be decoded in full context."""
    return judge(hypothesis, options) is not Status.ok or count_repeats(hypothesis.text) > 1


def count_repeats(text: str) -> int:
    """How often the same phrase of eight letters or more is said in a row, at most; 1 if never.

    Shorter ones people do repeat: "no, no, no".

    Examples
    --------
    >>> count_repeats("By the door. By the door! By the door?")
    3
    >>> count_repeats("no, no, no")
    1
    """
    letters = "".join(letter for letter in text.casefold() if letter.isalnum())
    repeats = (len(found[0]) // len(found[1]) for found in _REPEATED.finditer(letters))
    return max(repeats, default=1)


def compression_ratio(text: str) -> float:
    """Bytes of a text in UTF-8, divided by those of its zlib: a loop compresses well.

    Examples
    --------
    >>> compression_ratio("ha" * 50) > 2.4 > compression_ratio("no loop at all")
    True
    """
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))


def speech_seconds(waveform: np.ndarray, sampling_rate: int) -> float:
    """Seconds in which Silero's detector, which faster-whisper ships, hears a voice.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        The sound.
    sampling_rate : int
        In Hz.
    """
    from faster_whisper.vad import get_vad_model

    if len(waveform) == 0:
        return 0.0
    padded = np.pad(waveform, (0, -len(waveform) % _VAD_WINDOW)).astype(np.float32)
    probabilities = get_vad_model()(padded)
    return float(np.count_nonzero(probabilities > _VAD_THRESHOLD) * _VAD_WINDOW / sampling_rate)


def speech_stretches(
    waveform: np.ndarray, sampling_rate: int, max_seconds: float
) -> list[np.ndarray]:
    """A long recording in pieces that Whisper can take, cut where nobody speaks.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        The sound.
    sampling_rate : int
        In Hz.
    max_seconds : float
        Longest piece.

    Returns
    -------
    list[np.ndarray] [each shape=(n_piece_samples,)]
        In order, without the silence between them.
    """
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    settings = VadOptions(
        threshold=_VAD_THRESHOLD, min_silence_duration_ms=300, max_speech_duration_s=max_seconds
    )
    stretches = get_speech_timestamps(waveform, settings, sampling_rate)
    limit = round(max_seconds * sampling_rate)
    pieces: list[list[int]] = []
    for stretch in stretches:
        start, end = int(stretch["start"]), int(stretch["end"])
        if pieces and end - pieces[-1][0] <= limit:
            pieces[-1][1] = end
        else:
            pieces.append([start, min(end, start + limit)])
    return [waveform[start:end] for start, end in pieces]
