"""The trainings an experiment consists of: one per fold and seed.

Each leaves its own folder when it is done. Trainings do not know of each other, so they
may run in any order and in several processes, and a killed experiment repeats none that
was finished.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from koser.engines.local import available_cores, iter_map
from koser.errors import RunError
from koser.experiment.calibrating import ValPart
from koser.experiment.cost import Memory, forget_peak, peak_memory
from koser.experiment.logs import log_to, warnings_collected
from koser.experiment.taught import hash_taught
from koser.features.threads import torch_threads
from koser.models.checkpoint import load_tensors, save_tensors
from koser.systems import system_class
from koser.systems.memory import free_memory
from koser.systems.starting import Start
from koser.systems.system import Inside, Part, System
from koser.training.devices import choose_device
from koser.training.progress import Epoch, Fit
from koser.training.ranks import ALONE, Ranks

logger = logging.getLogger(__name__)

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
        Of the member's test rows, in their order, before the temperature.
    train_seconds, predict_seconds : float
        Time taken.
    memory : Memory
        The most that was in use meanwhile.
    val : ValPart
        What the val part says of how far the model can be believed.
    notes : tuple[str, ...]
        What koser warned of meanwhile; empty where the outcome was read back.
    inside : Inside
        What the system's parts say of the test rows.
    """

    member: Member
    fit: Fit
    probabilities: np.ndarray
    train_seconds: float
    predict_seconds: float
    memory: Memory
    val: ValPart
    notes: tuple[str, ...] = ()
    inside: Inside = field(default_factory=Inside)


class Chooser(Protocol):
    """Who chooses the configuration of each training."""

    def choose(self, work: MemberWork, member: Member) -> tuple[Any, Any]:
        """A member's configuration and features."""
        ...


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
    true_ids : np.ndarray [shape=(n_utterances,)]
        Place of each utterance's label among `labels`, for the rows of the manifest.
    shares : np.ndarray, optional [shape=(n_utterances, n_labels)]
        The raters' distribution, where the system is trained on it.
    on_epoch : Callable, optional
        Told of every epoch; only where members run in this process.
    spare_threads : int
        Threads of torch for a system that takes what is free.
    memory_share : int, optional
        Bytes of the machine's memory for each of the trainings that run at once.
    tuner : Chooser, optional
        Who chooses each member's configuration; every member has `config` otherwise.
    ranks : Ranks
        The processes that share each training; the first of them does what is described here,
        the others take part with `follow`.
    start : Start, optional
        The trained model that every training starts from.
    speaker_keys : tuple[str | None, ...]
        A hash of each utterance's speaker; a checkpoint keeps those it has learnt from.
    """

    model: str
    labels: tuple[str, ...]
    config: Any  # of the system's `config_class`
    data: Any  # each system's own
    folder: Path
    origin: dict[str, Any]
    true_ids: np.ndarray
    shares: np.ndarray | None = None
    on_epoch: OnMemberEpoch | None = None
    spare_threads: int = 1
    memory_share: int | None = None
    tuner: Chooser | None = None
    ranks: Ranks = ALONE
    start: Start | None = None
    speaker_keys: tuple[str | None, ...] = ()

    def __call__(self, member: Member) -> Outcome:
        """Train, predict the test part and keep both; or read what was kept."""
        folder = self.folder / member.name
        done = folder / "outcome.pth"
        facts = json.dumps(system_class(self.model).describe_data(self.data), sort_keys=True)
        taught = hash_taught(member.part, self.data, self.true_ids, self.data.targets)
        if self.ranks.from_first(done.exists):
            outcome = _read_outcome(done, member, facts, taught)
            _tidy(folder)
            return outcome
        folder.mkdir(parents=True, exist_ok=True)
        with log_to(folder / "train.log"), warnings_collected() as notes:
            system, trained = self._train(member, folder)
            val = self._val_part(member, trained.val_probabilities)
        origin = {**self.origin, "fold": member.fold, "seed": member.part.seed}
        origin["learnt_speakers"] = self._learnt_speakers(member.part)
        checkpoint = system.to_checkpoint({**origin, "calibration": val.describe()})
        replace(checkpoint, temperature=val.temperature.value).write(
            folder / f"best_model_{self.model}.pth"
        )
        outcome = Outcome(
            member,
            trained.fit,
            trained.probabilities,
            *trained.seconds,
            peak_memory(),
            val,
            tuple(notes),
            trained.inside,
        )
        _write_outcome(outcome, done, facts, taught)
        _tidy(folder)
        return outcome

    def make_system(self, config: Any) -> System:  # an instance of its `config_class`
        """A new system that knows what it may take of the machine."""
        system = system_class(self.model)(self.labels, config)
        system.memory_share = self.memory_share
        return system

    def threads(self, system: System) -> AbstractContextManager[None]:
        """As many threads of torch as `system` is to have."""
        return torch_threads(system.n_threads or self.spare_threads)

    def follow(self, member: Member) -> None:
        """Take part in a training that rank 0 leads; nothing is written."""
        if not self.ranks.from_first():
            self._train(member, self.folder / member.name)

    def _train(self, member: Member, folder: Path) -> tuple[System, _Trained]:
        """Train, and predict the test part and the val part, if there is one."""
        config, data = self.config, self.data
        if self.tuner is not None:
            config, data = self.tuner.choose(self, member)
        system = self.make_system(config)
        system.ranks, system.start = self.ranks, self.start
        part = member.part
        with self.threads(system):
            forget_peak()
            started = time.perf_counter()
            fit = system.fit(
                data,
                part,
                resume_file=folder / "last.pth",
                on_epoch=None if self.on_epoch is None else partial(self.on_epoch, member),
            )
            trained = time.perf_counter()
            probabilities = system.predict_rows(data, part.test)
            seconds = (trained - started, time.perf_counter() - trained)
            inside = system.inspect_rows(data, part.test)
            val_probabilities = np.zeros((0, len(self.labels)))
            if len(part.val):
                val_probabilities = system.predict_rows(data, part.val)
        return system, _Trained(fit, probabilities, val_probabilities, seconds, inside)

    def _learnt_speakers(self, part: Part) -> list[str] | None:
        """Hashes of those that a model has learnt from, its start included; None if unknown."""
        rows = [*part.train.tolist(), *part.val.tolist()]
        keys = [self.speaker_keys[row] if self.speaker_keys else None for row in rows]
        known = {key for key in keys if key is not None}
        before = [] if self.start is None else self.start.checkpoint.origin.get("learnt_speakers")
        if before is None or None in keys:
            return None
        return sorted(known.union(before))

    def _val_part(self, member: Member, probabilities: np.ndarray) -> ValPart:
        """What the val part says of a training; nothing where there is none."""
        rows = member.part.val
        shares = None if self.shares is None else self.shares[rows]
        val = ValPart.of(self.true_ids[rows], probabilities, shares)
        reason = f": {val.temperature.reason}" if val.temperature.reason else ""
        logger.info("temperature %.4f%s", val.temperature.value, reason)
        return val


@dataclass(frozen=True)
class _Trained:
    """What a training gives before anything is written; see `Outcome`."""

    fit: Fit
    probabilities: np.ndarray
    val_probabilities: np.ndarray
    seconds: tuple[float, float]
    inside: Inside


def run_members(
    work: MemberWork,
    members: list[Member],
    *,
    n_workers: int,
    on_member: OnMember | None = None,
) -> list[Outcome]:
    """Run every member and return their outcomes in order.

    A result does not depend on `n_workers`: how many threads a training uses is part of
    the system's configuration. (Where that says 0, whatever is free, the sums of more
    threads differ in their last digits.)
    """
    outcomes = []
    # One training at a time has a GPU: its memory is sized for one.
    on_gpu = choose_device(work.config.train.device).type == "cuda"
    is_one_at_a_time = on_gpu or not work.ranks.is_alone
    processes = 1 if is_one_at_a_time else min(n_workers, len(members))
    if len(members) > 1 and not work.ranks.is_alone:
        logger.warning(
            "%d trainings run one after another, each in all %d processes. Where one fits a "
            "single device, `koser train` without torchrun runs several at once and is done "
            "sooner.",
            len(members),
            work.ranks.n_ranks,
        )
    work = _with_shares(work, processes)
    passed_on: set[str] = set()
    for outcome in iter_map(partial(_itself, work), members, n_workers=processes):
        outcomes.append(outcome)
        if processes > 1:  # what was logged in another process has not been heard in this one
            for note in outcome.notes:
                if note not in passed_on:
                    passed_on.add(note)
                    logger.warning("%s", note)
        if on_member is not None:
            on_member(len(outcomes), len(members))
    return outcomes


def follow_members(work: MemberWork, members: list[Member]) -> None:
    """What the other ranks do while the first one runs `run_members`."""
    work = _with_shares(work, 1)
    for member in members:
        work.follow(member)


def _with_shares(work: MemberWork, processes: int) -> MemberWork:
    """Tell trainings what each may take of the machine while `processes` of them run."""
    n_sharing = processes * work.ranks.n_local
    # Found before any of them runs: later, what is free lacks what the others have taken.
    free = free_memory() if processes > 1 else None
    return replace(
        work,
        spare_threads=max(1, available_cores() // n_sharing),
        memory_share=None if free is None else free // processes,
    )


def _itself(work: MemberWork) -> MemberWork:
    return work


def _tidy(folder: Path) -> None:
    """Remove what a finished training was resumed with: several times its model, and of no use."""
    for file in folder.glob("last*"):
        file.unlink()


def _write_outcome(outcome: Outcome, path: Path, facts: str, taught: str) -> None:
    values = {
        "part": _part_summary(outcome.member.part),
        "features": facts,
        "taught": taught,
        "history": [asdict(record) for record in outcome.fit.history],
        "best_epoch": outcome.fit.best_epoch,
        "probabilities": torch.from_numpy(outcome.probabilities),
        "train_seconds": outcome.train_seconds,
        "predict_seconds": outcome.predict_seconds,
        "memory": asdict(outcome.memory),
        "val": outcome.val.to_values(),
        "parts": {
            name: torch.from_numpy(each) for name, each in outcome.inside.probabilities.items()
        },
        "facts": json.dumps(outcome.inside.facts),
    }
    save_tensors(values, path)


def _read_outcome(path: Path, member: Member, facts: str, taught: str) -> Outcome:
    values = load_tensors(path)
    if values["part"] != _part_summary(member.part):
        raise RunError(
            f"'{path}' is the result of another split or seed. Train into another folder."
        )
    if values["features"] != facts:
        raise RunError(
            f"'{path}' was trained on other features ({values['features']}, now {facts}): the "
            f"encoder, or how koser computes them, has changed since. Train into another folder."
        )
    if values.get("taught", taught) != taught:  # older versions did not keep it
        raise RunError(
            f"'{path}' was trained on other labels or sound: the manifest has changed since. "
            f"Resume with the original one, or train into another folder."
        )
    try:
        return Outcome(
            member,
            Fit(tuple(Epoch(**record) for record in values["history"]), values["best_epoch"]),
            values["probabilities"].numpy(),
            values["train_seconds"],
            values["predict_seconds"],
            Memory(**values["memory"]),
            ValPart.from_values(values["val"]),
            inside=Inside(
                {name: each.numpy() for name, each in values["parts"].items()},
                json.loads(values["facts"]),
            ),
        )
    except (KeyError, TypeError) as error:
        raise RunError(
            f"'{path}' lacks what this version of koser keeps ({error!r}): another version wrote "
            f"it. Train into another folder."
        ) from error


def _part_summary(part: Part) -> str:
    return json.dumps([part.seed, len(part.train), len(part.val), part.test.tolist()])
