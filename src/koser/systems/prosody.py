"""A system of koser's own: some 70 numbers with names, and a linear classifier.

What it knows of an utterance can be read: pitch, loudness, voice quality, spectral balance,
formants and rhythm (docs/prosody.md). It is small, it needs no pretrained encoder, and it
says what such an encoder adds.
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
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import CheckpointError, ConfigError
from koser.features.extraction import Progress
from koser.features.prosody.extractor import DEFINITION, ProsodyExtractor
from koser.features.prosody.functionals import FUNCTIONALS
from koser.features.prosody.pitch import PitchOptions
from koser.features.threads import torch_threads
from koser.models.checkpoint import Checkpoint, load_trained_state, trained_state
from koser.models.imputing import ImputingHead, ImputingHeadOptions
from koser.systems.speech import HeadTrain, on_this_machine
from koser.systems.system import ParameterCount, Part, System, target_distributions
from koser.systems.variants import StoredVariants, all_speeds, extract_variants
from koser.training.batches import TrainingBatches, iter_plain_batches
from koser.training.corpora import Origins, balance_cells
from koser.training.devices import compute_logits
from koser.training.loop import fit
from koser.training.options import Precision, TrainedConfig
from koser.training.progress import Fit, OnEpoch
from koser.training.ranks import ALONE, Ranks
from koser.training.scoring import predict
from koser.training.tables import StatisticsTable


class ProsodyTrain(HeadTrain):
    """How the classifier learns."""

    # A convex problem of few numbers: what matters is that its minimum is reached, and it is.
    epochs: int = Field(60, gt=0)
    patience: int = Field(60, gt=0)
    learning_rate: float = Field(5e-3, gt=0)
    # Too small to gain from bf16.
    precision: Precision = "float32"


class ProsodyConfig(TrainedConfig):
    """All settings of the system."""

    pitch: PitchOptions = PitchOptions()
    head: ImputingHeadOptions = ImputingHeadOptions()
    train: ProsodyTrain = ProsodyTrain()
    # Speeds at which the train part is heard beside 1.0 (Ko et al., Interspeech 2015): other
    # voices, higher and lower, with other formants.
    speeds: tuple[float, ...] = (0.9, 1.1)


@dataclass(frozen=True)
class ProsodyData:
    """Where a manifest's functionals lie, and what they should be recognised as."""

    variants: StoredVariants  # one per speed, 1.0 first
    targets: np.ndarray  # (n_utterances, n_labels)
    origins: Origins
    pitch: PitchOptions  # with the detector that was used

    def table(self) -> StatisticsTable:
        """Open the stores."""
        return StatisticsTable(self.variants.open(), self.variants.keys, self.targets)


class ProsodySystem(System):
    """Functionals and a linear classifier."""

    name = "prosody"
    config_class = ProsodyConfig
    config: ProsodyConfig

    def __init__(self, labels: Sequence[str], config: Config) -> None:
        super().__init__(labels, config)
        self._network = self._make_network()

    def _make_network(self) -> ImputingHead:
        return ImputingHead(len(FUNCTIONALS), len(self.labels), self.config.head)

    def count_parameters(self) -> ParameterCount:
        """How large the classifier is; the pitch detector's model comes compiled, uncounted."""
        return ParameterCount.of(self._network, beside="SwiftF0")

    @classmethod
    def extract(
        cls,
        manifest: Manifest,
        config: ProsodyConfig,
        *,
        train_rows: np.ndarray,
        store_root: Path,
        engine: Engine = SERIAL,
        progress: Progress | None = None,
        ranks: Ranks = ALONE,
    ) -> ProsodyData:
        """Extract the functionals of every utterance, and of the train part at other speeds."""
        pitch = config.pitch.pinned()
        variants = extract_variants(
            manifest,
            [ProsodyExtractor(pitch, speed=speed) for speed in all_speeds(config.speeds)],
            train_rows=train_rows,
            store_root=store_root,
            engine=engine,
            progress=progress,
            ranks=ranks,
        )
        targets = target_distributions(manifest, config.train.target)
        return ProsodyData(variants, targets, Origins.of(manifest), pitch)

    @classmethod
    def describe_data(cls, data: ProsodyData) -> dict[str, Any]:
        """The set, its definition and the pitch detector, for metrics and report."""
        return {
            "functionals": len(FUNCTIONALS),
            "definition": DEFINITION,
            "pitch": data.pitch.detector,
        }

    def fit(
        self, data: ProsodyData, part: Part, *, resume_file: Path, on_epoch: OnEpoch | None = None
    ) -> Fit:
        """Train the classifier; scale and imputation are fitted on the train part alone."""
        options, table = self.config.train, data.table()
        with torch.random.fork_rng():
            torch.manual_seed(part.seed)
            self._network = self._make_network()
        self._network.fit_scale(table.read(row) for row in part.train.tolist())
        self.config = self.config.model_copy(update={"pitch": data.pitch})
        plain = partial(iter_plain_batches, table, batch_size=options.batch_size, ranks=self.ranks)
        return fit(
            self._network,
            TrainingBatches(
                table,
                part.train,
                batch_size=options.batch_size,
                seed=part.seed,
                cells=balance_cells(options.balance, data.origins, data.targets),
                ranks=self.ranks,
            ),
            (lambda: plain(part.val)) if len(part.val) else None,
            options,
            seed=part.seed,
            resume_file=resume_file,
            on_epoch=on_epoch,
        )

    def predict_rows(self, data: ProsodyData, rows: np.ndarray) -> np.ndarray:
        """Probabilities from stored functionals [shape=(n_rows, n_labels)]."""
        options, table = self.config.train, data.table()
        batches = iter_plain_batches(table, rows, batch_size=options.batch_size, ranks=self.ranks)
        n_rows = len(data.targets)
        found = predict(
            self._network, batches, n_rows, precision=options.precision, ranks=self.ranks
        )
        probabilities: np.ndarray = found[rows]
        return probabilities

    def predict_waveforms(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities of waveforms (16 kHz mono) [shape=(n_waveforms, n_labels)]."""
        self._network.eval()
        extractor = ProsodyExtractor(self.config.pitch)
        with torch_threads(self.n_threads), torch.inference_mode():
            inputs = StatisticsTable.collate([extractor(each) for each in waveforms])
            logits = compute_logits(self._network, inputs, self.config.train.precision)
        probabilities: np.ndarray = logits.double().softmax(1).cpu().numpy()
        return probabilities

    def to_graph(self) -> torch.nn.Module:
        """Refused.

        Raises
        ------
        ConfigError
            Always.
        """
        raise ConfigError(
            "A model of 'prosody' cannot be exported to one ONNX file: pitch periods and formants "
            "are found by searches that are no graph. Use its .pth, or export another system."
        )

    def to_checkpoint(self, origin: dict[str, Any]) -> Checkpoint:
        """The trained system as a checkpoint."""
        state = {name: tensor.cpu() for name, tensor in trained_state(self._network).items()}
        state["definition"] = torch.tensor(DEFINITION)
        return Checkpoint(
            self.name, self.labels, self.config.model_dump(mode="json"), origin, state
        )

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> ProsodySystem:
        """The trained system that `to_checkpoint` made.

        Raises
        ------
        CheckpointError
            If it was trained on another definition of the functionals, or another pitch detector
            is installed than it was trained with.
        """
        state = dict(checkpoint.state)
        definition = int(state.pop("definition", 1))  # models of the first one do not name it
        if definition != DEFINITION:
            raise CheckpointError(
                f"This model was trained on definition {definition} of the prosodic functionals, "
                f"and this koser computes definition {DEFINITION}: its features would differ. "
                f"Train it again."
            )
        config = on_this_machine(build_config(ProsodyConfig, checkpoint.config))
        config.pitch.pinned()
        system = cls(checkpoint.labels, config)
        load_trained_state(system._network, state)
        system._network.eval()
        return system
