"""Waveforms to transcripts: Whisper on the clip and some silence instead of 30 s.

Whisper was trained on windows of 30 s, and as published hears every clip padded to that.
Its encoder takes less: a 5-second clip then costs a quarter. Without any silence after
the clip it falls into loops, with some seconds it does not (docs/text.md has figures).

How much sound the encoder is given is a function of the clip alone, rounded up to whole
seconds; only clips with the same amount are batched. So a clip's transcript does not
depend on what else is transcribed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from koser.audio.reading import SAMPLING_RATE
from koser.errors import EncoderError
from koser.features.text.guards import (
    Hypothesis,
    Status,
    Transcript,
    is_doubtful,
    judge,
    speech_seconds,
    speech_stretches,
)
from koser.features.text.whisper import LoadedWhisper, WhisperOptions

logger = logging.getLogger(__name__)

FULL_SECONDS = 30
_HOP_LENGTH = 160
_CPU_BATCH_SECONDS = 240.0
_GPU_BATCH_SECONDS = 480.0
# Tokens that a text may have however short the clip is; and half of the decoder's
# positions, the most that CTranslate2 decodes (it takes a limit for twice the text's length).
_SPARE_TOKENS = 10
_MAX_TOKENS = 224


@dataclass(frozen=True)
class _Piece:
    """A stretch of sound that is decoded at once, and whose it is."""

    owner: int
    waveform: np.ndarray
    context_seconds: int  # of what the encoder hears

    @property
    def seconds(self) -> float:
        return len(self.waveform) / SAMPLING_RATE


class Transcriber:
    """A Whisper that transcribes.

    Parameters
    ----------
    loaded : LoadedWhisper
        The model.
    language : str
        ISO 639-1 code of what is spoken.

    Raises
    ------
    EncoderError
        If the model does not know the language.
    """

    def __init__(self, loaded: LoadedWhisper, language: str) -> None:
        from faster_whisper.feature_extractor import FeatureExtractor

        self._loaded = loaded
        self._options = loaded.options
        self._front_end = FeatureExtractor(feature_size=loaded.n_mels)
        self._prompt = _prompt(loaded, language)

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[Transcript]:
        """Transcribe clips, each as if it were alone.

        Parameters
        ----------
        waveforms : Sequence[np.ndarray] [each shape=(n_samples,)]
            16 kHz mono.

        Returns
        -------
        list[Transcript]
            One per waveform, in order.
        """
        pieces = [
            piece
            for owner, waveform in enumerate(waveforms)
            for piece in self._pieces(owner, waveform)
        ]
        contexts = ["full" if each.context_seconds == FULL_SECONDS else "short" for each in pieces]
        found = self._decode(pieces)
        again = [
            place
            for place, hypothesis in enumerate(found)
            if contexts[place] == "short" and is_doubtful(hypothesis, self._options)
        ]
        if again:
            whole = [
                _Piece(p.owner, p.waveform, FULL_SECONDS) for p in map(pieces.__getitem__, again)
            ]
            for place, hypothesis in zip(again, self._decode(whole), strict=True):
                found[place], contexts[place] = hypothesis, "full"
        return [
            self._join([(found[place], contexts[place]) for place in places])
            for places in _places_by_owner(pieces, len(waveforms))
        ]

    def _pieces(self, owner: int, waveform: np.ndarray) -> list[_Piece]:
        """A clip as what is decoded at once; nothing where nobody speaks."""
        options = self._options
        if speech_seconds(waveform, SAMPLING_RATE) < options.min_speech_seconds:
            return []
        stretches = [waveform]
        if len(waveform) > FULL_SECONDS * SAMPLING_RATE:
            stretches = speech_stretches(
                waveform, SAMPLING_RATE, FULL_SECONDS - options.silence_seconds
            )
        return [
            _Piece(owner, each, context_seconds(options, len(each) / SAMPLING_RATE))
            for each in stretches
        ]

    def _decode(self, pieces: Sequence[_Piece]) -> list[Hypothesis]:
        """What is heard in each piece, those of one length together."""
        batches = self._batches(pieces)
        # One batch's decoding is too small for several threads; several batches are not.
        with ThreadPoolExecutor(self._loaded.n_workers) as pool:
            decoded = pool.map(
                lambda places: self._decode_batch([pieces[place] for place in places]), batches
            )
            found = dict(zip(chain(*batches), chain.from_iterable(decoded), strict=True))
        return [found[place] for place in range(len(pieces))]

    def _batches(self, pieces: Sequence[_Piece]) -> list[list[int]]:
        """Places of pieces with the same context, cut so that no worker is idle."""
        by_context: dict[int, list[int]] = {}
        for place, piece in enumerate(pieces):
            by_context.setdefault(piece.context_seconds, []).append(place)
        batches = []
        for seconds, places in sorted(by_context.items()):
            most = _pieces_per_batch(self._options, seconds)
            wanted = math.ceil(len(places) / self._loaded.n_workers)
            size = min(most, wanted)
            batches += [places[first : first + size] for first in range(0, len(places), size)]
        return batches

    def _decode_batch(self, pieces: Sequence[_Piece]) -> list[Hypothesis]:
        import ctranslate2

        context_seconds = pieces[0].context_seconds
        mel = np.stack([self._mel(piece) for piece in pieces])
        # By the longest clip that this context allows, so that it depends on no neighbour.
        longest = context_seconds - (
            0 if context_seconds == FULL_SECONDS else self._options.silence_seconds
        )
        n_tokens = min(
            _MAX_TOKENS, _SPARE_TOKENS + math.ceil(longest * self._options.max_tokens_per_second)
        )
        results = self._loaded.model.generate(
            ctranslate2.StorageView.from_array(mel),
            [self._prompt] * len(pieces),
            beam_size=self._options.beam_size,
            max_length=max(2 * n_tokens, len(self._prompt) + n_tokens),
            return_scores=True,
            return_no_speech_prob=True,
        )
        return [
            self._hypothesis(result, piece) for result, piece in zip(results, pieces, strict=True)
        ]

    def _mel(self, piece: _Piece) -> np.ndarray:
        """Log-Mel spectrogram with silence [shape=(n_mels, 100 × context_seconds)]."""
        n_samples = piece.context_seconds * SAMPLING_RATE
        padded = np.zeros(n_samples, np.float32)
        padded[: len(piece.waveform)] = piece.waveform[:n_samples]
        mel: np.ndarray = self._front_end(padded, padding=0)
        return np.ascontiguousarray(mel[:, : n_samples // _HOP_LENGTH], dtype=np.float32)

    def _hypothesis(self, result: Any, piece: _Piece) -> Hypothesis:
        tokens = result.sequences_ids[0]
        limit = _SPARE_TOKENS + piece.seconds * self._options.max_tokens_per_second
        return Hypothesis(
            text=self._loaded.tokenizer.decode(tokens).strip(),
            n_tokens=len(tokens),
            # The score is a mean over the text's tokens; the one that ends it counts too.
            avg_logprob=result.scores[0] * len(tokens) / (len(tokens) + 1),
            no_speech_prob=result.no_speech_prob,
            is_cut=len(tokens) >= min(limit, _MAX_TOKENS),
        )

    def _join(self, pieces: Sequence[tuple[Hypothesis, str]]) -> Transcript:
        """The transcript of a clip from what was heard in its pieces."""
        if not pieces:
            return Transcript("", Status.no_speech)
        believed = [
            (hypothesis, context)
            for hypothesis, context in pieces
            if judge(hypothesis, self._options) is Status.ok
        ]
        # Of a long recording, what can be believed counts; one bad piece does not spoil it.
        kept = believed or list(pieces)
        n_tokens = sum(hypothesis.n_tokens + 1 for hypothesis, _ in kept)
        logprob = sum(each.avg_logprob * (each.n_tokens + 1) for each, _ in kept) / n_tokens
        return Transcript(
            text=" ".join(hypothesis.text for hypothesis, _ in kept),
            status=judge(kept[0][0], self._options),
            avg_logprob=logprob,
            no_speech_prob=min(hypothesis.no_speech_prob for hypothesis, _ in kept),
            context="full" if any(context == "full" for _, context in kept) else "short",
        )


def context_seconds(options: WhisperOptions, seconds: float) -> int:
    """What the encoder hears of a clip that lasts `seconds`."""
    if options.context == "full":
        return FULL_SECONDS
    return min(FULL_SECONDS, math.ceil(seconds + options.silence_seconds))


def clips_per_batch(options: WhisperOptions, seconds: float) -> int:
    """How many clips of a length fit into one batch; `options` say on which device."""
    return _pieces_per_batch(options, context_seconds(options, seconds))


def _pieces_per_batch(options: WhisperOptions, seconds: int) -> int:
    usual = _GPU_BATCH_SECONDS if options.device == "cuda" else _CPU_BATCH_SECONDS
    return max(1, int((options.batch_seconds or usual) // seconds))


def _prompt(loaded: LoadedWhisper, language: str) -> list[int]:
    """Start of transcript, language, task, no time stamps."""
    names = ["<|startoftranscript|>"]
    if loaded.model.is_multilingual:
        names += [f"<|{language}|>", "<|transcribe|>"]
    elif language != "en":
        raise EncoderError(
            f"Whisper '{loaded.options.name}' knows English only, and '{language}' is wanted. Give "
            f"one without '.en'."
        )
    names.append("<|notimestamps|>")
    tokens = [loaded.tokenizer.token_to_id(name) for name in names]
    if None in tokens:
        unknown = names[tokens.index(None)]
        raise EncoderError(
            f"Whisper '{loaded.options.name}' has no token {unknown}: it does not know the "
            f"language '{language}', or its tokenizer.json is of another model."
        )
    return tokens


def _places_by_owner(pieces: Sequence[_Piece], n_owners: int) -> list[list[int]]:
    places: list[list[int]] = [[] for _ in range(n_owners)]
    for place, piece in enumerate(pieces):
        places[piece.owner].append(place)
    return places
