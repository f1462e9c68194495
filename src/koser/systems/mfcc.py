"""System 1 of the document: a 40-dimensional MFCC matrix, a convolutional network, softmax.

The reference implementation averaged the MFCCs over time and sent them through a new
random projection for every batch; this is what its description says instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from koser.config import Config, build_config
from koser.data.manifest import Manifest
from koser.features.extraction import Progress, clips_of, extract
from koser.features.mfcc import MfccExtractor, MfccOptions
from koser.features.store import KEY_SIZE, FeatureStore
from koser.features.threads import torch_threads
from koser.models.checkpoint import Checkpoint
from koser.models.cnn import CnnOptions, MfccCnn
from koser.systems.system import Part, System, target_distributions
from koser.training.batches import (
    FeatureTable,
    TrainingBatches,
    iter_plain_batches,
    pad_features,
)
from koser.training.loop import Fit, OnEpoch, TrainOptions, fit, predict


class MfccConfig(Config):
    """All settings of the system."""

    mfcc: MfccOptions = MfccOptions()
    cnn: CnnOptions = CnnOptions()
    train: TrainOptions = TrainOptions()
    # Speeds at which the train part is heard beside 1.0 (Ko et al., Interspeech 2015).
    speeds: tuple[float, ...] = (0.9, 1.1)
    # Longest stretch that is heard at once in training; whole utterances are tested.
    crop_seconds: float = Field(2.0, ge=0)  # 0 for whole utterances


@dataclass(frozen=True)
class MfccData:
    """Where a manifest's features lie, and what they should be recognised as."""

    store_root: Path
    descriptions: tuple[dict[str, object], ...]  # one per speed, 1.0 first
    keys: np.ndarray  # (n_speeds, n_utterances)
    targets: np.ndarray  # (n_utterances, n_labels)

    def table(self) -> FeatureTable:
        """Open the stores."""
        stores = tuple(FeatureStore(self.store_root, each) for each in self.descriptions)
        return FeatureTable(stores, self.keys, self.targets)


class MfccSystem(System):
    """MFCC + CNN."""

    name = "mfcc"
    config_class = MfccConfig
    config: MfccConfig

    def __init__(self, labels: Sequence[str], config: Config) -> None:
        super().__init__(labels, config)
        self._network = MfccCnn(self.config.cnn, self.config.mfcc.n_mfcc, len(self.labels))
        self._extractor = MfccExtractor(self.config.mfcc)

    @property
    def n_threads(self) -> int:
        """Threads of torch that it trains with."""
        return self.config.train.n_threads

    @classmethod
    def extract(
        cls,
        manifest: Manifest,
        config: MfccConfig,
        *,
        train_rows: np.ndarray,
        store_root: Path,
        n_workers: int = 1,
        progress: Progress | None = None,
    ) -> MfccData:
        """Extract the MFCCs of every utterance, and of the train part at other speeds."""
        clips = clips_of(manifest.table)
        speeds = (1.0, *(speed for speed in config.speeds if speed != 1.0))
        keys = np.zeros((len(speeds), len(clips)), f"S{KEY_SIZE}")
        descriptions = []
        total = len(clips) + (len(speeds) - 1) * len(train_rows)
        done = 0
        for variant, speed in enumerate(speeds):
            rows = np.arange(len(clips)) if variant == 0 else train_rows
            extractor = MfccExtractor(config.mfcc, speed=speed)
            descriptions.append(extractor.describe())
            keys[variant, rows] = extract(
                [clips[row] for row in rows],
                extractor,
                store_root,
                n_workers=n_workers,
                progress=None if progress is None else _shifted(progress, done, total),
            )
            done += len(rows)
        return MfccData(store_root, tuple(descriptions), keys, target_distributions(manifest))

    def fit(
        self, data: MfccData, part: Part, *, resume_file: Path, on_epoch: OnEpoch | None = None
    ) -> Fit:
        """Train the network; its standardisation is fitted on the train part alone."""
        table, options = data.table(), self.config.train
        with torch.random.fork_rng():
            torch.manual_seed(part.seed)
            self._network = MfccCnn(self.config.cnn, self.config.mfcc.n_mfcc, len(self.labels))
        self._network.standardizer.fit(table.read(row) for row in part.train.tolist())
        source = TrainingBatches(
            table,
            part.train,
            batch_size=options.batch_size,
            crop_frames=self._crop_frames(),
            seed=part.seed,
        )
        return fit(
            self._network,
            source,
            (lambda: iter_plain_batches(table, part.val, batch_size=options.batch_size))
            if len(part.val)
            else None,
            options,
            seed=part.seed,
            resume_file=resume_file,
            on_epoch=on_epoch,
        )

    def _crop_frames(self) -> int:
        mfcc = self.config.mfcc
        return round(self.config.crop_seconds * mfcc.sampling_rate / mfcc.hop_length)

    def predict_rows(self, data: MfccData, rows: np.ndarray) -> np.ndarray:
        """Probabilities from stored features [shape=(n_rows, n_labels)]."""
        batches = iter_plain_batches(data.table(), rows, batch_size=self.config.train.batch_size)
        probabilities: np.ndarray = predict(self._network, batches, data.keys.shape[1])[rows]
        return probabilities

    def predict_waveforms(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities of waveforms (16 kHz mono) [shape=(n_waveforms, n_labels)]."""
        device = next(self._network.parameters()).device
        self._network.eval()
        with torch_threads(self.n_threads), torch.inference_mode():
            features, n_frames = pad_features([self._extractor(each) for each in waveforms])
            logits = self._network(features.to(device), n_frames.to(device))
        result: np.ndarray = logits.double().softmax(1).cpu().numpy()
        return result

    def to_checkpoint(self, origin: dict[str, Any]) -> Checkpoint:
        """The trained system as a checkpoint."""
        state = {name: tensor.cpu() for name, tensor in self._network.state_dict().items()}
        return Checkpoint(
            self.name, self.labels, self.config.model_dump(mode="json"), origin, state
        )

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> MfccSystem:
        """The trained system that `to_checkpoint` made."""
        system = cls(checkpoint.labels, build_config(MfccConfig, checkpoint.config))
        system._network.load_state_dict(checkpoint.state)
        system._network.eval()
        return system


def _shifted(progress: Progress, offset: int, total: int) -> Progress:
    return lambda done, _: progress(offset + done, total)
