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
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from koser.engines.local import available_cores, iter_map
from koser.errors import RunError
from koser.experiment.calibrating import ValPart
from koser.experiment.cost import Memory, forget_peak, peak_memory
from koser.features.threads import torch_threads
from koser.models.checkpoint import load_tensors, save_tensors
from koser.systems import system_class
from koser.systems.system import Part, System
from koser.training.devices import choose_device
from koser.training.loop import Epoch, Fit

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
    """

    member: Member
    fit: Fit
    probabilities: np.ndarray
    train_seconds: float
    predict_seconds: float
    memory: Memory
    val: ValPart
    notes: tuple[str, ...] = ()


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
    on_epoch : Callable, optional
        Told of every epoch; only where members run in this process.
    spare_threads : int
        Threads of torch for a system that takes what is free.
    """

    model: str
    labels: tuple[str, ...]
    config: Any  # of the system's `config_class`
    data: Any  # each system's own
    folder: Path
    origin: dict[str, Any]
    true_ids: np.ndarray
    on_epoch: OnMemberEpoch | None = None
    spare_threads: int = 1

    def __call__(self, member: Member) -> Outcome:
        """Train, predict the test part and keep both; or read what was kept."""
        folder = self.folder / member.name
        done = folder / "outcome.pth"
        facts = json.dumps(system_class(self.model).describe_data(self.data), sort_keys=True)
        if done.exists():
            outcome = _read_outcome(done, member, facts)
            _tidy(folder)
            return outcome
        folder.mkdir(parents=True, exist_ok=True)
        system = system_class(self.model)(self.labels, self.config)
        with (
            log_to(folder / "train.log"),
            warnings_collected() as notes,
            torch_threads(system.n_threads or self.spare_threads),
        ):
            forget_peak()
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
            val = self._ask_val(system, member)
        origin = {**self.origin, "fold": member.fold, "seed": member.part.seed}
        checkpoint = system.to_checkpoint({**origin, "calibration": val.describe()})
        replace(checkpoint, temperature=val.temperature.value).write(
            folder / f"best_model_{self.model}.pth"
        )
        seconds = (trained - started, finished - trained)
        outcome = Outcome(member, fit, probabilities, *seconds, peak_memory(), val, tuple(notes))
        _write_outcome(outcome, done, facts)
        _tidy(folder)
        return outcome

    def _ask_val(self, system: System, member: Member) -> ValPart:
        """What the trained system's val part says; nothing where there is none."""
        rows = member.part.val
        probabilities = np.zeros((0, len(self.labels)))
        if len(rows):
            probabilities = system.predict_rows(self.data, rows)
        val = ValPart.of(self.true_ids[rows], probabilities)
        reason = f": {val.temperature.reason}" if val.temperature.reason else ""
        logger.info("temperature %.4f%s", val.temperature.value, reason)
        return val


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
    processes = 1 if on_gpu else min(n_workers, len(members))
    work = replace(work, spare_threads=max(1, available_cores() // processes))
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


def _itself(work: MemberWork) -> MemberWork:
    return work


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Also write what koser logs (INFO and above) to `path`, appending."""
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package = logging.getLogger("koser")
    level = package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)
        handler.close()


@contextmanager
def warnings_collected() -> Iterator[list[str]]:
    """A list that what koser warns of within the block is added to, each message once."""
    handler = _Collector(logging.WARNING)
    package = logging.getLogger("koser")
    package.addHandler(handler)
    try:
        yield handler.messages
    finally:
        package.removeHandler(handler)


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        # A log that cannot be written ends the run, in one line: results would follow it.
        raise


class _Collector(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self.messages:
            self.messages.append(message)


def _tidy(folder: Path) -> None:
    """Remove what a finished training was resumed with: several times its model, and of no use."""
    for file in folder.glob("last*"):
        file.unlink()


def _write_outcome(outcome: Outcome, path: Path, facts: str) -> None:
    values = {
        "part": _part_summary(outcome.member.part),
        "features": facts,
        "history": [asdict(record) for record in outcome.fit.history],
        "best_epoch": outcome.fit.best_epoch,
        "probabilities": torch.from_numpy(outcome.probabilities),
        "train_seconds": outcome.train_seconds,
        "predict_seconds": outcome.predict_seconds,
        "memory": asdict(outcome.memory),
        "val": outcome.val.to_values(),
    }
    save_tensors(values, path)


def _read_outcome(path: Path, member: Member, facts: str) -> Outcome:
    values = load_tensors(path)
    if values["part"] != _part_summary(member.part):
        raise RunError(
            f"'{path}' is the result of another split or seed. Train into another folder."
        )
    if values["features"] != facts:
        raise RunError(
            f"'{path}' was trained on other features ({values['features']}, now {facts}): the "
            f"encoder has changed since. Train into another folder."
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
        )
    except (KeyError, TypeError) as error:
        raise RunError(
            f"'{path}' lacks what this version of koser keeps ({error!r}): another version wrote "
            f"it. Train into another folder."
        ) from error


def _part_summary(part: Part) -> str:
    return json.dumps([part.seed, len(part.train), len(part.val), part.test.tolist()])
