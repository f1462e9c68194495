"""A pretrained speech encoder and the words of a Whisper transcript, fused late.

Of the encoder all layers are heard, as by the system `wav2vec2`: their means over time, or
for cross-attention their frames. Everything else is as in `multimodal`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from koser.config import Config
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.features.extraction import Progress
from koser.features.residence import use_and_free
from koser.features.speech.extractors import (
    EncoderExtractor,
    FramesExtractor,
    StatisticsExtractor,
)
from koser.features.speech.loading import EncoderOptions, LoadedEncoder, load_encoder
from koser.models.fusion import EncodedModality
from koser.models.heads import HeadOptions
from koser.systems.fused import FusedSystem
from koser.systems.fused_data import FusedConfig, FusedData, FusedTrain, StoredSound
from koser.systems.speech import FRAMES_PER_SECOND, log_layer_weights
from koser.systems.system import Part
from koser.systems.variants import all_speeds, extract_variants
from koser.training.devices import choose_device
from koser.training.pairs import take_states
from koser.training.progress import Fit, OnEpoch


class FusionTrain(FusedTrain):
    """How the fusion learns, and how much sound it learns from at once."""

    # With cross-attention: sound in a batch, padding included, which `batch_size` clips of up
    # to 10 s do not reach. All states of longer ones would take memory without end.
    batch_seconds: float = Field(320.0, gt=0)


class FusionConfig(FusedConfig):
    """All settings of the system."""

    encoder: EncoderOptions = EncoderOptions()
    layers: Literal["weighted", "last"] | int = "weighted"  # as head.layers of wav2vec2
    # What hidden states are kept in: half precision rounds them to 3 decimal digits.
    keep: Literal["float16", "float32"] = "float16"
    train: FusionTrain = FusionTrain()


class FusionSystem(FusedSystem):
    """Speech encoder + Whisper + text model."""

    name = "fusion"
    config_class = FusionConfig
    config: FusionConfig

    def __init__(self, labels: Sequence[str], config: Config) -> None:
        super().__init__(labels, config)
        self._loaded: LoadedEncoder | None = None

    def fit(
        self, data: FusedData, part: Part, *, resume_file: Path, on_epoch: OnEpoch | None = None
    ) -> Fit:
        """Train the fusion, and say what it learned of the encoder's layers."""
        result = super().fit(data, part, resume_file=resume_file, on_epoch=on_epoch)
        audio = self._trained().audio
        if isinstance(audio, EncodedModality):
            log_layer_weights(audio.states)
        return result

    @classmethod
    def _extract_sound(
        cls,
        manifest: Manifest,
        config: FusionConfig,
        *,
        train_rows: np.ndarray,
        store_root: Path,
        engine: Engine,
        progress: Progress | None,
    ) -> StoredSound:
        def listen(loaded: LoadedEncoder) -> StoredSound:
            states = _states(config, loaded)  # a wrong one is refused before the work
            variants = extract_variants(
                manifest,
                [
                    _extractor(loaded, config, speed, engine.device)
                    for speed in all_speeds(config.speeds)
                ],
                train_rows=train_rows,
                store_root=store_root,
                engine=engine,
                progress=progress,
            )
            return StoredSound(
                variants,
                (len(states), loaded.encoder.width),
                states,
                {"encoder": loaded.options},
                {"encoder": config.encoder.name, **loaded.describe(), "layers": config.layers},
            )

        name = f"encoder {config.encoder.name}"
        return use_and_free(name, lambda: load_encoder(config.encoder), listen)

    def _hear(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        loaded, has_sequences = self._load_encoder(), self.config.fusion.has_sequences
        kept = _extractor(loaded, self.config).extract(waveforms)
        states = _states(self.config, loaded)
        return [take_states(each, states, has_sequences=has_sequences) for each in kept]

    @property
    def batch_length(self) -> int | None:
        """Most frames in a batch, padding included; None where the fusion takes none."""
        if not self.config.fusion.has_sequences:
            return None
        return max(1, round(self.config.train.batch_seconds * FRAMES_PER_SECOND))

    def _sound_shape_of(self, state: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
        return tuple(state["audio.states.maps"].shape[:2])

    def _hearing_models(self) -> tuple[torch.nn.Module, ...]:
        return (self._load_encoder().encoder,)

    def _load_encoder(self) -> LoadedEncoder:
        if self._loaded is None:
            self._loaded = load_encoder(self.config.encoder)
        return self._loaded


def _states(config: FusionConfig, loaded: LoadedEncoder) -> tuple[int, ...]:
    """The states that are heard."""
    return HeadOptions(layers=config.layers).states(loaded.encoder.n_layers)


def _extractor(
    loaded: LoadedEncoder, config: FusionConfig, speed: float = 1.0, device: str | None = None
) -> EncoderExtractor:
    """Frames where the fusion takes them, else statistics, which `wav2vec2` has too."""
    device = device or choose_device(config.train.device).type
    if not config.fusion.has_sequences:
        return StatisticsExtractor(loaded, dtype=config.keep, speed=speed, device=device)
    states = _states(config, loaded)
    return FramesExtractor(loaded, states, dtype=config.keep, speed=speed, device=device)
