"""Which moments, and which words, a prediction rests on: by withholding them.

A stretch of the sound is silenced, or a word is taken out of the transcript, and the model is
asked again. What its answer loses is what the stretch was worth. This needs nothing of a
model but its probabilities, so it is the same for every system, checkpoint and ONNX file [1]_.

Evidence is measured in nats of log-odds of the recognised label: log-odds with everything, less
log-odds without. Below zero, a stretch spoke against the label. Evidence of stretches need not
add up: two that say the same are each worth little beside the other.

References
----------
.. [1] Zeiler & Fergus, "Visualizing and understanding convolutional networks", ECCV 2014,
   section 4.2 (occlusion); Li, Monroe & Jurafsky, "Understanding neural networks through
   representation erasure", arXiv:1612.08220, 2016 (words).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from koser.audio.reading import SAMPLING_RATE, Clip, load_clip, probe
from koser.config import Config
from koser.errors import AudioError
from koser.inference.prediction import Prediction
from koser.inference.recognizer import Recognizer

# Every stretch is a recognition of the whole clip, so time grows with the square of its length.
MAX_SECONDS = 30.0
_BATCH = 16  # variants in memory at once
_BATCH_SECONDS = 120.0  # of sound that the model is given at once
_TINY = 1e-12  # a probability that has log-odds


class ExplainOptions(Config):
    """How finely a prediction is explained. All times are seconds."""

    window: float = Field(0.3, gt=0)  # withheld at once, in whole hops: a syllable and a half
    hop: float = Field(0.1, gt=0)  # from one stretch to the next, and the length of a cell
    # Of rise and fall around what is silenced: a click would be evidence of its own.
    ramp: float = Field(0.01, ge=0)

    @model_validator(mode="after")
    def _check(self) -> ExplainOptions:
        if self.hop > self.window:
            raise ValueError(f"hop = {self.hop:g} s exceeds window = {self.window:g} s")
        return self


@dataclass(frozen=True)
class Cell:
    """A moment of the sound, and its evidence for the label in nats."""

    start: float
    end: float
    evidence: float


@dataclass(frozen=True)
class Word:
    """A word of the transcript, and its evidence for the label in nats."""

    text: str
    evidence: float


@dataclass(frozen=True)
class Explanation:
    """What a prediction rests on.

    Attributes
    ----------
    prediction : Prediction
        What is explained; the evidence is for its `best` label.
    cells : tuple[Cell, ...]
        The sound from its start to its end: of each moment, the mean evidence of the
        stretches that hold it.
    words : tuple[Word, ...]
        The transcript; empty for a model that reads none, or where nothing was believed.
    """

    prediction: Prediction
    cells: tuple[Cell, ...]
    words: tuple[Word, ...]

    def to_dict(self) -> dict[str, object]:
        """JSON values."""
        return {
            **self.prediction.to_dict(),
            "cells": [asdict(cell) for cell in self.cells],
            "words": [asdict(word) for word in self.words],
        }


def explain(
    recognizer: Recognizer,
    source: str | Path | Clip | np.ndarray,
    options: ExplainOptions | None = None,
    *,
    batch_seconds: float = _BATCH_SECONDS,
    progress: Callable[[int], None] | None = None,
) -> Explanation:
    """Find what the recognizer's answer to a clip rests on.

    Parameters
    ----------
    recognizer : Recognizer
        The model.
    source : str, Path, Clip or np.ndarray [shape=(n_samples,)]
        An audio file, or a part of one; or samples, 16 kHz mono float32.
    options : ExplainOptions, optional
        How finely.
    batch_seconds : float, optional
        Sound that the model is given at once; a single variant may be longer.
    progress : Callable, optional
        Called with the number of variants recognised so far, after each batch.

    Raises
    ------
    AudioError
        If the file cannot be read, or it lasts longer than `MAX_SECONDS`.
    """
    options = options or ExplainOptions()
    source = Clip(str(source)) if isinstance(source, (str, Path)) else source
    clip = source if isinstance(source, Clip) else None
    waveform = np.asarray(source, np.float32) if clip is None else _load_short(clip)
    seconds = len(waveform) / SAMPLING_RATE
    _refuse_long(seconds, "The waveform")
    (text,) = recognizer.transcribe([waveform])
    whole = recognizer.recognise_spoken(waveform, text, clip=clip)
    words = [] if text is None else text.split()
    # What is said stays what it was, whatever of the sound is silenced.
    variants = chain(
        zip(_silenced(waveform, options), repeat(text)),
        zip(repeat(waveform), _without_each(words)),
    )
    n_together = max(1, min(_BATCH, int(batch_seconds / seconds)))
    left: list[np.ndarray] = []
    while batch := list(islice(variants, n_together)):
        left.extend(recognizer.predict_spoken(*map(list, zip(*batch, strict=True))))
        if progress is not None:
            progress(len(left))
    best = recognizer.labels.index(whole.best)
    evidence = _log_odds(np.array(whole.confidence)) - _log_odds(np.array(left)[:, best])
    n_stretches = len(left) - len(words)
    return Explanation(
        whole,
        _cells(evidence[:n_stretches], seconds, options),
        tuple(Word(*pair) for pair in zip(words, evidence[n_stretches:].tolist(), strict=True)),
    )


def _load_short(clip: Clip) -> np.ndarray:
    start, end = clip.start or 0.0, clip.end
    # Before anything is decoded: the file may last for hours.
    seconds = (probe(clip.path).duration if end is None else end) - start
    if seconds > 0:  # else the bounds are wrong, which reading them says
        _refuse_long(seconds, f"'{clip.path}'")
    return load_clip(clip)


def _refuse_long(seconds: float, name: str) -> None:
    if not 0 < seconds <= MAX_SECONDS:
        raise AudioError(
            f"{name} lasts {seconds:.1f} s; up to {MAX_SECONDS:g} s are explained at once. Give "
            f"start and end of what matters: koser predict --timeline shows where that is."
        )


def _n_cells(seconds: float, options: ExplainOptions) -> int:
    return max(1, math.ceil(seconds / options.hop - 1e-9))


def _n_covering(options: ExplainOptions) -> int:
    """Stretches that hold a cell; the first and the last ones reach beyond the sound."""
    return max(1, round(options.window / options.hop))


def _silenced(waveform: np.ndarray, options: ExplainOptions) -> Iterator[np.ndarray]:
    """The sound without each stretch in turn, from the one that ends with the first cell on."""
    places = np.arange(len(waveform))
    n_cells = _n_cells(len(waveform) / SAMPLING_RATE, options)
    for first in range(1 - _n_covering(options), n_cells):
        start, end = (
            round(cell * options.hop * SAMPLING_RATE)
            for cell in (first, first + _n_covering(options))
        )
        distance = np.maximum(start - places, places - end + 1)  # 1 for the nearest sample outside
        gain = np.clip(distance / (1 + options.ramp * SAMPLING_RATE), 0, 1)
        yield (waveform * gain).astype(np.float32)


def _cells(evidence: np.ndarray, seconds: float, options: ExplainOptions) -> tuple[Cell, ...]:
    means = np.convolve(evidence, np.ones(_n_covering(options)), "valid") / _n_covering(options)
    # Microseconds: a product of hops would be told as 0.30000000000000004.
    bounds = [min(round(place * options.hop, 6), seconds) for place in range(len(means) + 1)]
    return tuple(
        Cell(start, end, value)
        for start, end, value in zip(bounds[:-1], bounds[1:], means.tolist(), strict=True)
    )


def _without_each(words: list[str]) -> list[str | None]:
    """The text without each of its words; None where nothing is left."""
    return [" ".join(words[:place] + words[place + 1 :]) or None for place in range(len(words))]


def _log_odds(probability: np.ndarray) -> np.ndarray:
    bounded = np.clip(probability, _TINY, 1 - _TINY)
    odds: np.ndarray = np.log(bounded) - np.log1p(-bounded)
    return odds
