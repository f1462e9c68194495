"""Valence and arousal from the features of a system: the same network, with two values for labels.

For `mfcc` and `wav2vec2`. The values that are learnt are standardised by the train part alone, and
what is predicted is in the raters' units again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from koser.config import Config
from koser.errors import CheckpointError, ConfigError
from koser.evaluation.dimensions import DIMENSIONS
from koser.models.checkpoint import Checkpoint, find_checkpoint
from koser.systems import DIMENSIONAL, system_class
from koser.systems.mfcc import MfccSystem
from koser.systems.system import Part
from koser.systems.wav2vec2 import Wav2Vec2System
from koser.training.batches import TrainingBatches, iter_plain_batches
from koser.training.corpora import balance_cells
from koser.training.regression import ValueFit, ValueLoss, ValueScaler, fit_values, predict_values

DIMENSIONAL_SYSTEMS = ("mfcc", "wav2vec2")


class DimensionalSystem:
    """A system whose network gives valence and arousal.

    Parameters
    ----------
    model : str
        Name of the system whose features and network it has.
    config : Config
        Of that system.

    Raises
    ------
    ConfigError
        If the system has no such head, or a setting is asked for that values do not have.
    """

    def __init__(self, model: str, config: Config) -> None:
        if model not in DIMENSIONAL_SYSTEMS:
            raise ConfigError(
                f"'{model}' has no head for valence and arousal. Systems that do: "
                f"{', '.join(DIMENSIONAL_SYSTEMS)}."
            )
        self.model = model
        self.system = cast(MfccSystem | Wav2Vec2System, system_class(model)(DIMENSIONS, config))
        self._refuse_settings()
        self.scaler: ValueScaler | None = None
        self._network: torch.nn.Module | None = None

    def fit(self, data: Any, values: np.ndarray, part: Part, *, loss: ValueLoss) -> ValueFit:
        """Train on one part.

        Parameters
        ----------
        data : object
            What the system's `extract` returned.
        values : np.ndarray [shape=(n_utterances, 2)]
            Valence and arousal of every row, in the raters' units.
        part : Part
            Who plays which part.
        loss : {'ccc', 'mse', 'ccc+mse'}
            See `koser.training.regression.value_loss`.
        """
        options = self.system.config.train
        self.scaler = ValueScaler.fit(values[part.train])
        scaled = replace(data, targets=self.scaler.scaled(values))
        network, table = self.system.begin(scaled, part)
        plain = partial(iter_plain_batches, table, batch_size=options.batch_size)
        self._network = network
        return fit_values(
            network,
            TrainingBatches(
                table,
                part.train,
                batch_size=options.batch_size,
                seed=part.seed,
                cells=balance_cells(options.balance, data.origins, scaled.targets),
            ),
            (lambda: plain(part.val)) if len(part.val) else None,
            options,
            loss=loss,
            seed=part.seed,
        )

    def _refuse_settings(self) -> None:
        config = self.system.config
        if config.train.balance == "corpus+label":
            raise ConfigError("train.balance = corpus+label: values have no labels. Give 'corpus'.")
        if config.corpora.adversary:
            raise ConfigError(
                "corpora.adversary is for labels. Leave it out; corpora.normalise=corpus is there."
            )
        if config.enrolment.k is not None:
            raise ConfigError("enrolment.k is for labels. Leave it out.")
        if config.train.accumulate > 1:
            raise ConfigError(
                "train.accumulate: CCC compares the moments of a batch, and several small batches "
                "are not one large one. Raise train.batch_size instead."
            )

    def predict_rows(self, data: Any, rows: np.ndarray) -> np.ndarray:
        """Valence and arousal from stored features [shape=(n_rows, 2)], in the raters' units."""
        options = self.system.config.train
        table = self.system.open_table(data)
        batches = iter_plain_batches(table, rows, batch_size=options.batch_size)
        network, scaler = self._trained()
        found, outputs = predict_values(network, batches, precision=options.precision)
        values: np.ndarray = scaler.restored(outputs)[np.argsort(found)]
        return values[np.argsort(np.argsort(rows))]

    def predict_waveforms(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Valence and arousal of waveforms (16 kHz mono) [shape=(n_waveforms, 2)]."""
        _, scaler = self._trained()
        return scaler.restored(self.system.compute_outputs(waveforms).numpy())

    def _trained(self) -> tuple[torch.nn.Module, ValueScaler]:
        if self._network is None or self.scaler is None:
            raise RuntimeError("The system is neither trained nor loaded.")
        return self._network, self.scaler

    def to_checkpoint(self, origin: dict[str, Any]) -> Checkpoint:
        """The trained system as a checkpoint that no recognizer takes for one of labels."""
        _, scaler = self._trained()
        made = self.system.to_checkpoint(origin)
        scale = {"scaler.mean": scaler.mean, "scaler.scale": scaler.scale}
        state = {**made.state, **{name: torch.from_numpy(each) for name, each in scale.items()}}
        return replace(made, system=f"{self.model}{DIMENSIONAL}", state=state)

    @classmethod
    def read(cls, path: str | Path, *, encoder: str | None = None) -> DimensionalSystem:
        """The trained system in a run folder of ``koser regress``, or in a ``.pth`` from one.

        Parameters
        ----------
        path : str or Path
            The folder or the file.
        encoder : str, optional
            Where its pretrained encoder is now, if not where it was in training: a folder or a
            hub id. It must be the same one.

        Raises
        ------
        CheckpointError
            If it is none, or one of labels, or has no encoder and one is given.
        EncoderError
            If its encoder cannot be loaded, or is another one.
        """
        checkpoint = Checkpoint.read(find_checkpoint(Path(path)))
        if not checkpoint.system.endswith(DIMENSIONAL):
            raise CheckpointError(
                f"'{path}' is a model of labels ({', '.join(checkpoint.labels)}), not of valence "
                f"and arousal. Use koser.load_recognizer."
            )
        model = checkpoint.system.removesuffix(DIMENSIONAL)
        state = dict(checkpoint.state)
        mean, scale = state.pop("scaler.mean"), state.pop("scaler.scale")
        plain = replace(checkpoint, system=model, state=state)
        if encoder is not None:
            plain = plain.with_encoder(encoder)
        loaded = cast(MfccSystem | Wav2Vec2System, system_class(model).from_checkpoint(plain))
        made = cls(model, loaded.config)
        made.system, made._network = loaded, loaded.network
        made.scaler = ValueScaler(mean.numpy(), scale.numpy())
        return made
