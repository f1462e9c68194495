"""Several systems, stacked: each counts as far as it recognised what it was not trained on.

Within each training every member is trained on inner folds of the train part, which keep apart
what the outer split keeps apart, and tested on what they leave out. On these answers the
pool is fitted: a weight a system and one temperature (`koser.evaluation.pooling`). Then the
members are trained on the whole train part [1]_.

A free classifier of all members' probabilities would have a number for each member, label and
label: dozens, fitted on utterances of few speakers, that are anything but independent.

References
----------
.. [1] Wolpert, "Stacked generalization", Neural Networks 5, 1992; Breiman, "Stacked
   regressions", Machine Learning 24, 1996, on why weights should not be negative.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from koser.config import Config, build_config
from koser.data.manifest import Manifest
from koser.data.nesting import inner_protocol
from koser.data.splits import Split
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import ConfigError
from koser.evaluation.pooling import Pool
from koser.features.extraction import Progress
from koser.models.checkpoint import Checkpoint
from koser.systems import system_class
from koser.systems.ensemble_config import EnsembleConfig
from koser.systems.held_out import (
    AVERAGE,
    HeldOut,
    answer_held_out,
    beside,
    score_answers,
    threads_of,
)
from koser.systems.inner_folds import check_inner_folds, inner_folds
from koser.systems.system import (
    Inside,
    ParameterCount,
    Part,
    ReadingSystem,
    System,
    target_distributions,
)
from koser.training.progress import Epoch, Fit, OnEpoch
from koser.training.ranks import ALONE, Ranks
from koser.training.scoring import Scores


@dataclass(frozen=True)
class EnsembleData:
    """What the members train on.

    Attributes
    ----------
    members : dict[str, object]
        By member: what its `extract` returned.
    manifest : Manifest
        The utterances, to be split again.
    targets : np.ndarray [shape=(n_utterances, n_labels)]
        float32 target distributions.
    """

    members: dict[str, Any]
    manifest: Manifest
    targets: np.ndarray


class EnsembleSystem(System):
    """A weighted pool of other systems."""

    name = "ensemble"
    is_shareable = False
    config_class = EnsembleConfig
    config: EnsembleConfig

    def __init__(self, labels: Sequence[str], config: Config) -> None:
        super().__init__(labels, config)
        self._systems: dict[str, System] = {}
        self._pool: Pool | None = None
        self._facts: dict[str, Any] = {}

    @property
    def n_threads(self) -> int:
        """Threads of torch that the hungriest member trains with."""
        wanted = [self._make(name).n_threads for name in self.config.members]
        return 0 if 0 in wanted else max(wanted)

    def count_parameters(self) -> ParameterCount:
        """The sum over members; an encoder that two of them have counts for each."""
        counts = [system.count_parameters() for system in self._systems.values()]
        beside = dict.fromkeys(each.beside for each in counts if each.beside)
        return ParameterCount(
            sum(each.trained for each in counts),
            sum(each.total for each in counts),
            ", ".join(beside),
        )

    @classmethod
    def settle(cls, config: EnsembleConfig, manifest: Manifest, split: Split) -> EnsembleConfig:
        """Let inner folds keep apart what `split` does; refuse a split that allows none."""
        inner = config.inner.model_copy(update={"protocol": inner_protocol(split.protocol)})
        check_inner_folds(manifest, split, inner)
        return config.model_copy(update={"inner": inner})

    @classmethod
    def extract(
        cls,
        manifest: Manifest,
        config: EnsembleConfig,
        *,
        train_rows: np.ndarray,
        store_root: Path,
        engine: Engine = SERIAL,
        progress: Progress | None = None,
        ranks: Ranks = ALONE,
    ) -> EnsembleData:
        """Make the features of one member after the other."""
        members = {
            name: system_class(name).extract(
                manifest,
                config.of_member(name),
                train_rows=train_rows,
                store_root=store_root,
                engine=engine,
                progress=progress,
            )
            for name in config.members
        }
        targets = target_distributions(manifest, config.train.target)
        return EnsembleData(members, manifest, targets)

    @classmethod
    def describe_data(cls, data: EnsembleData) -> dict[str, Any]:
        """What each member says of its features."""
        return {name: system_class(name).describe_data(each) for name, each in data.members.items()}

    @classmethod
    def write_extras(cls, manifest: Manifest, data: EnsembleData, folder: Path) -> None:
        """What each member leaves."""
        for name, each in data.members.items():
            system_class(name).write_extras(manifest, each, folder)

    def fit(
        self, data: EnsembleData, part: Part, *, resume_file: Path, on_epoch: OnEpoch | None = None
    ) -> Fit:
        """Fit the pool on inner folds, then the members on the whole train part.

        Returns
        -------
        Fit
            One record in place of epochs: how the pool does on what its members were not
            trained on, and the ensemble on the val part.
        """
        started = time.perf_counter()
        folds = inner_folds(data.manifest, part.train, len(part.val), self.config.inner)
        inner = [Part(*fold, part.seed) for fold in folds]
        held_out = HeldOut(
            {
                name: answer_held_out(
                    partial(self._make, name),
                    data.members[name],
                    inner,
                    data.targets,
                    resume_file=beside(resume_file, name),
                )
                for name in self.config.members
            },
            data.targets[np.concatenate([fold.test for fold in folds])].astype(np.float64),
        )
        self._pool = held_out.fit_pool()
        self._facts = {
            "inner_protocol": self.config.inner.protocol,
            "inner_folds": [
                {f"n_{what}": len(rows) for what, rows in fold._asdict().items()} for fold in folds
            ],
            **held_out.describe(self._pool, self.name),
        }
        self._systems = {}
        for name in self.config.members:
            system = self._systems[name] = self._make(name)
            with threads_of(system):
                system.fit(
                    data.members[name],
                    part,
                    resume_file=beside(resume_file, name),
                    on_epoch=on_epoch,
                )
        return self._record(data, part, held_out.score(self._pool), started)

    def _record(self, data: EnsembleData, part: Part, train: Scores, started: float) -> Fit:
        val = None
        if len(part.val):
            probabilities = self.predict_rows(data, part.val)
            val = score_answers(data.targets[part.val].astype(np.float64), probabilities)
        record = Epoch(
            epoch=1,
            learning_rate=0.0,
            train_loss=train.loss,
            train_accuracy=train.accuracy,
            val_loss=None if val is None else val.loss,
            val_accuracy=None if val is None else val.accuracy,
            val_uar=None if val is None else val.uar,
            seconds=time.perf_counter() - started,
        )
        return Fit((record,), 1)

    def predict_rows(self, data: EnsembleData, rows: np.ndarray) -> np.ndarray:
        """Probabilities from stored features [shape=(n_rows, n_labels)]."""
        return self._fitted().combine(self._members_of_rows(data, rows))

    def inspect_rows(self, data: EnsembleData, rows: np.ndarray) -> Inside:
        """What each member says by itself, and their plain average; how they were pooled."""
        answers = self._members_of_rows(data, rows)
        parts = {
            f"{name} only": each for name, each in zip(self.config.members, answers, strict=True)
        }
        return Inside({**parts, AVERAGE: answers.mean(axis=0)}, self._facts)

    def predict_waveforms(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities of waveforms (16 kHz mono) [shape=(n_waveforms, n_labels)]."""
        pool = self._fitted()
        answers = [system.predict_waveforms(waveforms) for system in self._systems.values()]
        return pool.combine(np.stack(answers))

    def keep_transcripts(self, store_root: Path) -> None:
        """Keep what any member's Whisper hears; see `System.keep_transcripts`."""
        for system in self._systems.values():
            system.keep_transcripts(store_root)

    def to_graph(self) -> torch.nn.Module:
        """An ensemble is no one graph.

        Raises
        ------
        ConfigError
            Always.
        """
        raise ConfigError(
            f"An ensemble ({', '.join(self.config.members)}) cannot be exported to one ONNX file. "
            f"Export a run of one of its members."
        )

    def to_checkpoint(self, origin: dict[str, Any]) -> Checkpoint:
        """The pool, and what every member's checkpoint holds."""
        pool = self._fitted()
        made = {name: system.to_checkpoint({}) for name, system in self._systems.items()}
        state = {
            f"{name}/{key}": tensor
            for name, checkpoint in made.items()
            for key, tensor in checkpoint.state.items()
        }
        state["weights"] = torch.tensor(pool.weights, dtype=torch.float64)
        state["temperature"] = torch.tensor(pool.temperature, dtype=torch.float64)
        config = self.config.trained({name: each.config for name, each in made.items()})
        return Checkpoint(self.name, self.labels, config, origin, state)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> EnsembleSystem:
        """The trained system that `to_checkpoint` made."""
        config = build_config(EnsembleConfig, checkpoint.config)
        if config.train.device == "cuda":  # what training wanted; the model predicts anywhere
            anywhere = config.train.model_copy(update={"device": "auto"})
            config = config.model_copy(update={"train": anywhere})
        systems = {}
        for name in config.members:
            prefix = f"{name}/"
            state = {
                key.removeprefix(prefix): tensor
                for key, tensor in checkpoint.state.items()
                if key.startswith(prefix)
            }
            values = config.of_member(name).model_dump(mode="json")
            own = Checkpoint(name, checkpoint.labels, values, {}, state)
            systems[name] = system_class(name).from_checkpoint(own)
        system = (_ReadingEnsemble if _read_alike(systems) else EnsembleSystem)(
            checkpoint.labels, config
        )
        weights = tuple(checkpoint.state["weights"].tolist())
        system._pool = Pool(weights, float(checkpoint.state["temperature"]))
        system._systems = systems
        return system

    def _make(self, name: str) -> System:
        system = system_class(name)(self.labels, self.config.of_member(name))
        system.memory_share = self.memory_share
        return system

    def _members_of_rows(self, data: EnsembleData, rows: np.ndarray) -> np.ndarray:
        """Each member's probabilities [shape=(n_members, n_rows, n_labels)]."""
        self._fitted()
        answers = []
        for name, system in self._systems.items():
            with threads_of(system):
                answers.append(system.predict_rows(data.members[name], rows))
        return np.stack(answers)

    def _fitted(self) -> Pool:
        if self._pool is None:
            raise RuntimeError("The system is neither trained nor loaded.")
        return self._pool


class _ReadingEnsemble(EnsembleSystem):
    """An ensemble whose members that read hear the same words; see `ReadingSystem`."""

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[str | None]:
        """What is said in waveforms (16 kHz mono), as the first member that reads hears it."""
        first = next(each for each in self._systems.values() if isinstance(each, ReadingSystem))
        return first.transcribe(waveforms)

    def predict_waveforms(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities of waveforms, transcribed once for all members."""
        return self.predict_spoken(waveforms, self.transcribe(waveforms))

    def predict_spoken(
        self, waveforms: Sequence[np.ndarray], texts: Sequence[str | None]
    ) -> np.ndarray:
        """Probabilities of waveforms, as if `texts` were said [shape=(n_waveforms, n_labels)]."""
        answers = [
            system.predict_spoken(waveforms, texts)
            if isinstance(system, ReadingSystem)
            else system.predict_waveforms(waveforms)
            for system in self._systems.values()
        ]
        return self._fitted().combine(np.stack(answers))


def _read_alike(systems: dict[str, System]) -> bool:
    """Whether some members read, all of them what one Whisper hears."""
    heard = [
        system.config.model_dump(include={"whisper", "modalities"})
        for system in systems.values()
        if isinstance(system, ReadingSystem)
    ]
    return bool(heard) and all(each == heard[0] for each in heard)
