"""What systems say of utterances that they were not trained on, and how they are pooled by it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from koser.errors import RunError
from koser.evaluation.metrics import recalls_from_confusion
from koser.evaluation.pooling import Pool, fit_pool
from koser.evaluation.temperature import choose_temperature
from koser.features.threads import torch_threads
from koser.models.checkpoint import load_tensors, save_tensors
from koser.systems.system import Part, System
from koser.training.scoring import Scores

logger = logging.getLogger(__name__)

AVERAGE = "simple average"


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Answers of several systems to the same utterances, none of which they were trained on.

    Attributes
    ----------
    answers : Mapping[str, np.ndarray]
        By system: probabilities [shape=(n_rows, n_labels)].
    targets : np.ndarray [shape=(n_rows, n_labels)]
        float64 target distributions.
    """

    answers: Mapping[str, np.ndarray]
    targets: np.ndarray

    def fit_pool(self) -> Pool:
        """The pool that makes the targets likeliest.

        Its temperature is 1 where there is too little to fit one on: with hardly an error among
        the answers, the likeliest pool is one that is sure of everything.
        """
        pool = replace(fit_pool(self.targets, self._stacked()), temperature=1.0)
        fitted = choose_temperature(
            self.targets.argmax(axis=1), pool.combine(self._stacked()), shares=self.targets
        )
        weights = ", ".join(
            f"{name} {weight:.3f}" for name, weight in zip(self.answers, pool.weights, strict=True)
        )
        reason = " (there is too little to fit one on)" if fitted.reason else ""
        logger.info("weights %s; temperature %.3f%s", weights, fitted.value, reason)
        return replace(pool, temperature=fitted.value)

    def score(self, pool: Pool) -> Scores:
        """How a pool does on them; one that was fitted on them does a little too well."""
        return score_answers(self.targets, pool.combine(self._stacked()))

    def describe(self, pool: Pool, name: str) -> dict[str, Any]:
        """JSON values: weights, temperature, and scores of every system and of both pools.

        Parameters
        ----------
        pool : Pool
            The weighted pool.
        name : str
            What to call it; the other one is the plain average of probabilities.
        """
        scores = {key: score_answers(self.targets, each) for key, each in self.answers.items()}
        scores[AVERAGE] = score_answers(self.targets, self._stacked().mean(axis=0))
        scores[name] = self.score(pool)
        return {
            "weights": dict(zip(self.answers, pool.weights, strict=True)),
            "temperature": pool.temperature,
            "held_out": {
                key: {"nll": each.loss, "accuracy": each.accuracy, "uar": each.uar}
                for key, each in scores.items()
            },
        }

    def _stacked(self) -> np.ndarray:
        return np.stack(list(self.answers.values()))


def answer_held_out(
    make: Callable[[], System],
    data: Any,  # of the system's `extract`
    parts: Sequence[Part],
    targets: np.ndarray,
    *,
    resume_file: Path,
) -> np.ndarray:
    """A system's answers to the test rows of each part, one part after the other.

    What a finished training said stays beside `resume_file`; one that was killed goes on like
    any other.

    Parameters
    ----------
    make : Callable
        Makes the system, untrained.
    data : object
        What its `extract` returned.
    parts : Sequence[Part]
        The trainings.
    targets : np.ndarray [shape=(n_utterances, n_labels)]
        Of all utterances.
    resume_file : Path
        Of the training that these belong to.

    Raises
    ------
    RunError
        If what lies there was said by another training.
    """
    found = []
    for number, part in enumerate(parts):
        system = make()
        done = beside(resume_file, f"held-out{number:02d}")
        unfinished = beside(resume_file, f"inner{number:02d}")
        identity = _identity(system, system.describe_data(data), part, targets)
        if done.exists():
            found.append(_read(done, identity))
            continue
        logger.info("%s, inner fold %d of %d", system.name, number + 1, len(parts))
        with threads_of(system):
            system.fit(data, part, resume_file=unfinished)
            probabilities = system.predict_rows(data, part.test)
        save_tensors({"identity": identity, "probabilities": torch.from_numpy(probabilities)}, done)
        for left in unfinished.parent.glob(f"{unfinished.stem}*"):
            left.unlink()
        found.append(probabilities)
    return np.concatenate(found)


def beside(resume_file: Path, name: str) -> Path:
    """A file of a part of the training that `resume_file` belongs to."""
    return resume_file.with_name(f"{resume_file.stem}-{name}.pth")


def threads_of(system: System) -> AbstractContextManager[None]:
    """As many threads of torch as a system wants; those there are, if it takes what is free."""
    return torch_threads(system.n_threads or torch.get_num_threads())


def score_answers(targets: np.ndarray, probabilities: np.ndarray) -> Scores:
    """Log-loss, accuracy, and UAR over the labels there are.

    Parameters
    ----------
    targets, probabilities : np.ndarray [shape=(n_rows, n_labels)]
        What should be recognised, and what was.
    """
    y_true, y_pred = targets.argmax(axis=1), probabilities.argmax(axis=1)
    confusion = np.zeros((targets.shape[1],) * 2)
    np.add.at(confusion, (y_true, y_pred), 1)
    logs = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    return Scores(
        loss=float(-(targets * logs).sum(axis=1).mean()),
        accuracy=float((y_true == y_pred).mean()),
        uar=float(np.nanmean(recalls_from_confusion(confusion))),
    )


def _identity(system: System, facts: dict[str, Any], part: Part, targets: np.ndarray) -> str:
    """A hash of all that the answers of a training depend on."""
    settings = system.config.model_dump(mode="json")
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([system.name, system.labels, settings, facts, part.seed]).encode())
    for rows in (part.train, part.val, part.test):
        digest.update(np.ascontiguousarray(rows).tobytes())
        digest.update(np.ascontiguousarray(targets[rows]).tobytes())
    return digest.hexdigest()


def _read(path: Path, identity: str) -> np.ndarray:
    values = load_tensors(path)
    if values.get("identity") != identity:
        raise RunError(
            f"'{path}' belongs to a training with other settings or data. Resume with the original "
            f"ones, or train into another folder."
        )
    probabilities: np.ndarray = values["probabilities"].numpy()
    return probabilities
