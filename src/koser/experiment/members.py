"""The trainings an experiment consists of: one per fold and seed.

Each leaves its own folder when it is done. Trainings do not know of each other, so they
may run in any order and in several processes, and a killed experiment repeats none that
was finished.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from koser.config import Config
from koser.engines.local import iter_map
from koser.errors import RunError
from koser.features.threads import torch_threads
from koser.models.checkpoint import load_tensors, save_tensors
from koser.systems import system_class
from koser.systems.system import Part
from koser.training.loop import Epoch, Fit

# Called with the number of trainings done so far and their total.
OnMember = Callable[[int, int], None]
OnMemberEpoch = Callable[["Member", Epoch], None]


@dataclass(frozen=True)
class Member:
    """One training of an experiment: a fold under a seed."""

    fold: int
    part: Part

    @property
    def name(self) -> str:
        """What its folder is called."""
        return f"seed{self.part.seed}-fold{self.fold:02d}"


@dataclass(frozen=True)
class Outcome:
    """What a member came to.

    Attributes
    ----------
    member : Member
        Which training.
    fit : Fit
        Its epochs, and the chosen one.
    probabilities : np.ndarray [shape=(n_test, n_labels)]
        Of the member's test rows, in their order.
    train_seconds, predict_seconds : float
        Time taken.
    """

    member: Member
    fit: Fit
    probabilities: np.ndarray
    train_seconds: float
    predict_seconds: float


@dataclass(frozen=True)
class MemberWork:
    """What is done for each member; picklable, so that it can be done in another process.

    Attributes
    ----------
    model : str
        Name of the system.
    labels : tuple[str, ...]
        The classes.
    config : Config
        The system's configuration.
    data : object
        What the system's `extract` returned.
    folder : Path
        Where the members' folders are.
    origin : dict
        Written into every checkpoint.
    on_epoch : Callable, optional
        Told of every epoch; only where members run in this process.
    """

    model: str
    labels: tuple[str, ...]
    config: Config
    data: Any  # each system's own
    folder: Path
    origin: dict[str, Any]
    on_epoch: OnMemberEpoch | None = None

    def __call__(self, member: Member) -> Outcome:
        """Train, predict the test part and keep both; or read what was kept."""
        folder = self.folder / member.name
        done = folder / "outcome.pth"
        if done.exists():
            return _read_outcome(done, member)
        folder.mkdir(parents=True, exist_ok=True)
        system = system_class(self.model)(self.labels, self.config)
        with log_to(folder / "train.log"), torch_threads(system.n_threads):
            started = time.perf_counter()
            fit = system.fit(
                self.data,
                member.part,
                resume_file=folder / "last.pth",
                on_epoch=None if self.on_epoch is None else partial(self.on_epoch, member),
            )
            trained = time.perf_counter()
            probabilities = system.predict_rows(self.data, member.part.test)
            finished = time.perf_counter()
        origin = {**self.origin, "fold": member.fold, "seed": member.part.seed}
        system.to_checkpoint(origin).write(folder / f"best_model_{self.model}.pth")
        outcome = Outcome(member, fit, probabilities, trained - started, finished - trained)
        _write_outcome(outcome, done)
        # The resume file is twice the model and of no more use.
        (folder / "last.pth").unlink(missing_ok=True)
        return outcome


def run_members(
    work: MemberWork,
    members: list[Member],
    *,
    n_workers: int,
    on_member: OnMember | None = None,
) -> list[Outcome]:
    """Run every member and return their outcomes in order.

    A result does not depend on `n_workers`: how many threads a training uses is part of
    the system's configuration.
    """
    outcomes = []
    processes = min(n_workers, len(members))
    for outcome in iter_map(partial(_itself, work), members, n_workers=processes):
        outcomes.append(outcome)
        if on_member is not None:
            on_member(len(outcomes), len(members))
    return outcomes


def _itself(work: MemberWork) -> MemberWork:
    return work


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Also write what koser logs (INFO and above) to `path`, appending."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("koser")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()


def _write_outcome(outcome: Outcome, path: Path) -> None:
    values = {
        "part": _part_summary(outcome.member.part),
        "history": [asdict(record) for record in outcome.fit.history],
        "best_epoch": outcome.fit.best_epoch,
        "probabilities": torch.from_numpy(outcome.probabilities),
        "train_seconds": outcome.train_seconds,
        "predict_seconds": outcome.predict_seconds,
    }
    save_tensors(values, path)


def _read_outcome(path: Path, member: Member) -> Outcome:
    values = load_tensors(path)
    if values["part"] != _part_summary(member.part):
        raise RunError(
            f"'{path}' is the result of another split or seed. Train into another folder."
        )
    fit = Fit(tuple(Epoch(**record) for record in values["history"]), values["best_epoch"])
    return Outcome(
        member,
        fit,
        values["probabilities"].numpy(),
        values["train_seconds"],
        values["predict_seconds"],
    )


def _part_summary(part: Part) -> str:
    return json.dumps([part.seed, len(part.train), len(part.val), part.test.tolist()])
