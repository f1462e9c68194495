"""Systems 4 and 5 of the document: MFCCs and a Whisper transcript's BERT vector, fused late.

The two differ in the size of Whisper. The fusion is the document's, or one of two others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.features.extraction import Progress
from koser.features.mfcc import MfccExtractor, MfccMeanExtractor, MfccOptions
from koser.features.threads import torch_threads
from koser.systems.fused import FusedSystem
from koser.systems.fused_data import FusedConfig, StoredSound
from koser.systems.variants import all_speeds, extract_variants


class MultimodalConfig(FusedConfig):
    """All settings of the system."""

    mfcc: MfccOptions = MfccOptions()


class MultimodalSystem(FusedSystem):
    """MFCC + Whisper + BERT."""

    name = "multimodal"
    config_class = MultimodalConfig
    config: MultimodalConfig

    @classmethod
    def _extract_sound(
        cls,
        manifest: Manifest,
        config: MultimodalConfig,
        *,
        train_rows: np.ndarray,
        store_root: Path,
        engine: Engine,
        progress: Progress | None,
    ) -> StoredSound:
        variants = extract_variants(
            manifest,
            [_extractor(config, speed) for speed in all_speeds(config.speeds)],
            train_rows=train_rows,
            store_root=store_root,
            engine=engine,
            progress=progress,
        )
        return StoredSound(variants, (config.mfcc.n_mfcc,))

    def _hear(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        extractor = _extractor(self.config)
        with torch_threads(1):
            return [extractor(waveform) for waveform in waveforms]

    def _sound_shape_of(self, state: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
        return (self.config.mfcc.n_mfcc,)


def _extractor(config: MultimodalConfig, speed: float = 1.0) -> MfccExtractor:
    """The front-end for sound: frames where the fusion takes them, else the document's mean."""
    kind = MfccExtractor if config.fusion.has_sequences else MfccMeanExtractor
    return kind(config.mfcc, speed=speed)
