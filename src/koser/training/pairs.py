"""Tables of two modalities: what is heard of an utterance, and what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from koser.config import Config
from koser.features.store import FeatureStore
from koser.training.batches import pad_features

Modalities = Literal["both", "audio", "text"]


class WithheldOptions(Config):
    """How often training withholds a modality, so that the network can do without it.

    Never both of one utterance.
    """

    text: float = Field(0.2, ge=0, lt=1)  # share of utterances
    audio: float = Field(0.1, ge=0, lt=1)


@dataclass(frozen=True)
class Pair:
    """An utterance: its sound and its text, each of which may be missing.

    Attributes
    ----------
    audio : np.ndarray or None
        A vector [shape=(n_audio,)] or frames [shape=(n_audio, n_frames)].
    text : np.ndarray or None
        A vector [shape=(n_text,)] or tokens [shape=(n_text, n_tokens)].
    """

    audio: np.ndarray | None
    text: np.ndarray | None


@dataclass(frozen=True)
class PairTable:
    """Stored sound and stored text of utterances.

    Attributes
    ----------
    audio_stores : tuple[FeatureStore, ...]
        One store per speed, of vectors or of frames; the first is the plain one.
    audio_keys : np.ndarray [shape=(n_speeds, n_utterances), dtype=S16]
        Blank where a speed was not made.
    text_store : FeatureStore
        Vectors or tokens of texts.
    text_keys : np.ndarray [shape=(n_texts, n_utterances), dtype=S16]
        The text as it is first, then as it might have been heard; blank where there is none.
    targets : np.ndarray [shape=(n_utterances, n_classes)]
        float32 target distributions.
    sizes : tuple[int, int]
        n_audio and n_text.
    has_sequences : bool
        Whether the stores hold frames and tokens, instead of one vector of each.
    modalities : {'both', 'audio', 'text'}
        What is not withheld.
    withheld : WithheldOptions
        What training withholds beside that.
    audio_states : tuple[int, ...]
        Where the stores of sound hold an encoder's states: those that are taken.
    """

    in_windows: ClassVar[bool] = False
    audio_stores: tuple[FeatureStore, ...]
    audio_keys: np.ndarray
    text_store: FeatureStore
    text_keys: np.ndarray
    targets: np.ndarray
    sizes: tuple[int, int]
    has_sequences: bool
    modalities: Modalities
    withheld: WithheldOptions
    audio_states: tuple[int, ...] = ()

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Frames of utterances in the plain variant; 1 for every one where there are none."""
        if not self.has_sequences:
            return np.ones(len(rows), np.int64)
        frames: np.ndarray = self.audio_stores[0].shapes(self.audio_keys[0, rows])[:, -1]
        return frames

    def n_windows(self, rows: np.ndarray) -> np.ndarray:
        """1 for every utterance: it is whole."""
        return np.ones(len(rows), np.int64)

    def read(self, row: int, rng: np.random.Generator | None = None) -> Pair:
        """One utterance; with `rng` at some speed, with some errors, and perhaps with a part."""
        is_withheld = {"audio": self.modalities == "text", "text": self.modalities == "audio"}
        speed = variant = 0
        if rng is not None:
            speed = int(rng.integers(len(self.audio_stores)))
            variant = int(rng.integers(len(self.text_keys)))
            drawn = float(rng.random())
            if self.modalities == "both":
                is_withheld["text"] = drawn < self.withheld.text
                is_withheld["audio"] = drawn > 1 - self.withheld.audio
        audio = None if is_withheld["audio"] else self._read_audio(speed, row)
        text = None if is_withheld["text"] else self._read_text(variant, row)
        if rng is not None and audio is None and text is None and self.modalities == "both":
            audio = self._read_audio(speed, row)  # its text is missing of itself
        return Pair(audio, text)

    def collate(self, pairs: Sequence[Pair]) -> tuple[torch.Tensor, ...]:
        """What a fusion takes: ``(audio, text, is_present)``, or with lengths; see there."""
        return collate_pairs(pairs, self.sizes, has_sequences=self.has_sequences)

    def describe(self, rows: np.ndarray) -> str:
        """A hash of stores, keys, targets and of what is withheld."""
        digest = hashlib.blake2b(digest_size=16)
        stores = (*self.audio_stores, self.text_store)
        digest.update(" ".join(store.folder.name for store in stores).encode())
        for array in (self.audio_keys[:, rows], self.text_keys[:, rows], self.targets[rows]):
            digest.update(np.ascontiguousarray(array).tobytes())
        settings = f"{self.has_sequences} {self.modalities} {self.withheld.model_dump_json()}"
        if self.audio_states:
            settings += f" {self.audio_states}"
        return f"{digest.hexdigest()} {settings}"

    def _read_audio(self, speed: int, row: int) -> np.ndarray:
        stored = self.audio_stores[speed].read(bytes(self.audio_keys[speed, row]))
        return take_states(stored, self.audio_states, has_sequences=self.has_sequences)

    def _read_text(self, variant: int, row: int) -> np.ndarray | None:
        key = bytes(self.text_keys[variant, row])
        return self.text_store.read(key) if key else None


def take_states(stored: np.ndarray, states: Sequence[int], *, has_sequences: bool) -> np.ndarray:
    """What a fusion takes of an encoder's stored states, one state after the other.

    Parameters
    ----------
    stored : np.ndarray [shape=(n_states, 2, width) or (n_states, width, n_frames)]
        Means and deviations of all states, or frames of the states that are taken.
    states : Sequence[int]
        Which states are taken; none where `stored` is no encoder's: it stays as it is.
    has_sequences : bool
        Whether frames are stored.

    Returns
    -------
    np.ndarray [shape=(n_values,) or (n_values, n_frames)]
        Means, or frames; n_values is the number of states times the width.
    """
    if not states:
        return stored
    if has_sequences:
        return stored.reshape(-1, stored.shape[-1])
    means: np.ndarray = stored[list(states), 0].reshape(-1)
    return means


def collate_pairs(
    pairs: Sequence[Pair], sizes: tuple[int, int], *, has_sequences: bool
) -> tuple[torch.Tensor, ...]:
    """Put utterances side by side; zeros stand where a modality is missing.

    Returns
    -------
    tuple[torch.Tensor, ...]
        ``(audio, text, is_present)``, the first two [shape=(batch, n_values)]; with
        sequences ``(frames, n_frames, tokens, n_tokens, is_present)``, the first and third
        [shape=(batch, n_values, longest)]. ``is_present`` [shape=(batch, 2), dtype=bool] says
        whether there is sound, and text.
    """
    is_present = torch.tensor([[p.audio is not None, p.text is not None] for p in pairs])
    sides: list[torch.Tensor] = []
    for values, size in zip(
        ([p.audio for p in pairs], [p.text for p in pairs]), sizes, strict=True
    ):
        nothing = np.zeros((size, 1) if has_sequences else size, np.float32)
        filled = [nothing if value is None else value for value in values]
        if has_sequences:
            sides += pad_features(filled)
        else:
            sides.append(torch.from_numpy(np.stack(filled).astype(np.float32)))
    return (*sides, is_present)
