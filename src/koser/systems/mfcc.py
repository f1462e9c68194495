"""System 1 of the document: a 40-dimensional MFCC matrix, a convolutional network, softmax.

The reference implementation averaged the MFCCs over time and sent them through a new
random projection for every batch; this is what its description says instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from koser.config import Config, build_config
from koser.data.enrolment import Enrolment, EnrolmentOptions
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.features.extraction import Progress
from koser.features.mfcc import MfccExtractor, MfccOptions
from koser.features.threads import torch_threads
from koser.features.voices import Voice, adapt, summarise
from koser.models.checkpoint import Checkpoint, load_trained_state, trained_state
from koser.models.cnn import CnnOptions, MfccCnn
from koser.systems.corpora import CorporaOptions, align, fit_alignment, in_training
from koser.systems.enrolment import (
    Enroller,
    Enrolling,
    draw_enrolment,
    enrolled_table,
    refuse_graph,
    state_with,
)
from koser.systems.graphs import MfccGraph
from koser.systems.system import ParameterCount, Part, System, target_distributions
from koser.systems.variants import StoredVariants, all_speeds, extract_variants
from koser.training.batches import Table, TrainingBatches, iter_plain_batches, pad_features
from koser.training.corpora import Alignment, Origins, balance_cells
from koser.training.devices import compute_logits
from koser.training.loop import fit
from koser.training.options import Precision, TrainOptions
from koser.training.progress import Fit, OnEpoch
from koser.training.ranks import ALONE, Ranks
from koser.training.scoring import predict
from koser.training.tables import FeatureTable


class MfccTrain(TrainOptions):
    """How the network learns."""

    batch_size: int = Field(32, gt=0)  # utterances
    # The network is too small to gain from bf16, and logarithms of energies would lose.
    precision: Precision = "float32"


class MfccConfig(Config):
    """All settings of the system."""

    mfcc: MfccOptions = MfccOptions()
    cnn: CnnOptions = CnnOptions()
    train: MfccTrain = MfccTrain()
    corpora: CorporaOptions = CorporaOptions()
    enrolment: EnrolmentOptions = EnrolmentOptions()
    # Speeds at which the train part is heard beside 1.0 (Ko et al., Interspeech 2015).
    speeds: tuple[float, ...] = (0.9, 1.1)
    # Longest stretch that is heard at once in training; whole utterances are tested.
    crop_seconds: float = Field(2.0, ge=0)  # 0 for whole utterances


@dataclass(frozen=True)
class MfccData:
    """Where a manifest's features lie, and what they should be recognised as."""

    variants: StoredVariants  # one per speed, 1.0 first
    targets: np.ndarray  # (n_utterances, n_labels)
    origins: Origins
    enrolment: Enrolment | None = None

    def table(self, *, crop_frames: int = 0) -> FeatureTable:
        """Open the stores; `crop_frames` is the longest stretch heard at once in training."""
        return FeatureTable(self.variants.open(), self.variants.keys, self.targets, crop_frames)


class MfccSystem(Enrolling, System):
    """MFCC + CNN."""

    name = "mfcc"
    config_class = MfccConfig
    config: MfccConfig

    def __init__(self, labels: Sequence[str], config: Config) -> None:
        super().__init__(labels, config)
        self._network = MfccCnn(self.config.cnn, self.config.mfcc.n_mfcc, len(self.labels))
        self._extractor = MfccExtractor(self.config.mfcc)
        self._alignment: Alignment | None = None

    def count_parameters(self) -> ParameterCount:
        """How large the network is."""
        return ParameterCount.of(self._network)

    @classmethod
    def extract(
        cls,
        manifest: Manifest,
        config: MfccConfig,
        *,
        train_rows: np.ndarray,
        store_root: Path,
        engine: Engine = SERIAL,
        progress: Progress | None = None,
        ranks: Ranks = ALONE,
    ) -> MfccData:
        """Extract the MFCCs of every utterance, and of the train part at other speeds."""
        variants = extract_variants(
            manifest,
            [MfccExtractor(config.mfcc, speed=speed) for speed in all_speeds(config.speeds)],
            train_rows=train_rows,
            store_root=store_root,
            engine=engine,
            progress=progress,
            ranks=ranks,
        )
        targets = target_distributions(manifest, config.train.target)
        enrolment = draw_enrolment(manifest, config.enrolment)
        return MfccData(variants, targets, Origins.of(manifest), enrolment)

    def fit(
        self, data: MfccData, part: Part, *, resume_file: Path, on_epoch: OnEpoch | None = None
    ) -> Fit:
        """Train the network; its standardisation is fitted on the train part alone."""
        options, origins = self.config.train, data.origins
        network, table = self.begin(data, part)
        source = TrainingBatches(
            table,
            part.train,
            batch_size=options.batch_size,
            seed=part.seed,
            cells=balance_cells(options.balance, origins, data.targets),
            ranks=self.ranks,
        )
        batches = partial(
            iter_plain_batches, table, batch_size=options.batch_size, ranks=self.ranks
        )
        last = network.classifier
        with in_training(
            network, lambda: (last, last.in_features), self.config.corpora, origins, seed=part.seed
        ) as fitted:
            return fit(
                fitted,
                source,
                (lambda: batches(part.val)) if len(part.val) else None,
                options,
                seed=part.seed,
                resume_file=resume_file,
                on_epoch=on_epoch,
            )

    def begin(self, data: MfccData, part: Part) -> tuple[MfccCnn, Table]:
        """A new network that is standardised by the train part, and what it is trained on."""
        cropped = data.table(crop_frames=self._crop_frames())
        self._alignment = fit_alignment(
            self.config.corpora, cropped, part.train, data.origins, has_frames=True
        )
        table = align(cropped, data.origins, self._alignment)
        with torch.random.fork_rng():
            torch.manual_seed(part.seed)
            self._network = MfccCnn(self.config.cnn, self.config.mfcc.n_mfcc, len(self.labels))
        if self.start is None:
            self._network.standardizer.fit(table.read(row, None) for row in part.train.tolist())
        else:
            outputs = {"classifier.weight": 0, "classifier.bias": 0}
            self.start.put_into(self._network, self.labels, outputs)
        self._enroller = Enroller.fit(
            self.config.enrolment,
            self.config.corpora,
            table,
            part.train,
            data.enrolment,
            has_frames=True,
        )
        return self._network, enrolled_table(table, self._enroller, data.enrolment)

    def open_table(self, data: MfccData) -> Table:
        """What a trained network is given: whole utterances, unaugmented."""
        table = align(data.table(), data.origins, self._alignment)
        return enrolled_table(table, self._enroller, data.enrolment)

    def _crop_frames(self) -> int:
        mfcc = self.config.mfcc
        return round(self.config.crop_seconds * mfcc.sampling_rate / mfcc.hop_length)

    def predict_rows(self, data: MfccData, rows: np.ndarray) -> np.ndarray:
        """Probabilities from stored features [shape=(n_rows, n_labels)]."""
        options = self.config.train
        batches = iter_plain_batches(
            self.open_table(data), rows, batch_size=options.batch_size, ranks=self.ranks
        )
        probabilities: np.ndarray = predict(
            self._network,
            batches,
            len(data.targets),
            precision=options.precision,
            ranks=self.ranks,
        )[rows]
        return probabilities

    def summarise(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Mean MFCCs of waveforms (16 kHz mono) [each shape=(n_mfcc, 1)]."""
        with torch_threads(self.n_threads), torch.inference_mode():
            return [summarise(self._extractor(each), has_frames=True) for each in waveforms]

    def compute_outputs(
        self, waveforms: Sequence[np.ndarray], voices: Sequence[Voice | None] | None = None
    ) -> torch.Tensor:
        """What the network gives for waveforms [shape=(n_waveforms, n_labels)], float64."""
        self._network.eval()
        voices = [None] * len(waveforms) if voices is None else voices
        with torch_threads(self.n_threads), torch.inference_mode():
            found = [self._extractor(each) for each in waveforms]
            inputs = pad_features([adapt(*pair) for pair in zip(found, voices, strict=True)])
            logits = compute_logits(self._network, inputs, self.config.train.precision)
        return logits.double().cpu()

    @property
    def network(self) -> MfccCnn:
        """The network, trained or not."""
        return self._network

    def to_graph(self) -> torch.nn.Module:
        """From waveform to logits in operations that ONNX has."""
        refuse_graph(self._enroller)
        return MfccGraph(self.config.mfcc, self._network).eval()

    def to_checkpoint(self, origin: dict[str, Any]) -> Checkpoint:
        """The trained system as a checkpoint."""
        state = {name: tensor.cpu() for name, tensor in trained_state(self._network).items()}
        return Checkpoint(
            self.name,
            self.labels,
            self.config.model_dump(mode="json"),
            origin,
            state_with(self._enroller, state),
        )

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> MfccSystem:
        """The trained system that `to_checkpoint` made."""
        system = cls(checkpoint.labels, build_config(MfccConfig, checkpoint.config))
        state = dict(checkpoint.state)
        system._enroller = Enroller.pop(state, system.config.enrolment, has_frames=True)
        load_trained_state(system._network, state)
        system._network.eval()
        return system
