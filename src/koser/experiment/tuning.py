"""Nested cross-validation: settings chosen within each training's own data, before its test.

An outer fold's train and val part is split again, under a protocol that keeps apart what
the outer one keeps apart, and every setting that is tried is trained and scored on these
inner folds. The test part of the outer fold is neither trained on nor scored before the
choice is made, so the score of the run is that of the whole procedure, choice included [1]_.

References
----------
.. [1] Cawley & Talbot, "On over-fitting in model selection and subsequent selection bias in
   performance evaluation", JMLR 11, 2010.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from koser.config import Config
from koser.data.manifest import Manifest
from koser.data.nesting import inner_protocol, split_again
from koser.data.splits import Split, SplitOptions
from koser.errors import ConfigError, RunError, SplitError
from koser.evaluation.calibration import PROBABILITY_FLOOR, log_losses
from koser.evaluation.metrics import recalls_from_confusion
from koser.experiment.members import Member, MemberWork
from koser.experiment.search import Direction, Proposal, SearchSpace, Trial
from koser.files import write_json
from koser.systems import system_class
from koser.systems.system import Part

_FILE = "tuning.json"


class TuneOptions(Config):
    """How settings are chosen.

    The inner protocol is ``speaker+script`` where the outer one is, else ``kfold``, which
    keeps speakers or groups whole.
    """

    n_trials: int = Field(20, ge=1)  # settings tried in each outer fold; fewer if there are fewer
    n_folds: int = Field(3, ge=2)  # inner folds, of speakers in speaker+script
    n_script_folds: int | None = Field(None, ge=2)  # as many as n_folds if None
    # Unweighted average recall, or the mean log-loss, which is steadier with few utterances: to the
    # raters' distribution where the configuration as given learns that, else to the label.
    objective: Literal["uar", "nll"] = "uar"

    @property
    def direction(self) -> Direction:
        """What is better."""
        return "maximize" if self.objective == "uar" else "minimize"


@dataclass(frozen=True)
class Tuning:
    """What may be chosen, and how; part of what an experiment is."""

    space: SearchSpace
    options: TuneOptions

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        return {"space": dict(self.space.ranges), **self.options.model_dump(mode="json")}


@dataclass(frozen=True)
class Tuner:
    """Chooses the configuration of one training after the other.

    Attributes
    ----------
    tuning : Tuning
        What may be chosen, and how.
    manifest : Manifest
        The utterances.
    outer : Split
        In whose folds settings are chosen.
    store_root : Path
        Folder of the feature stores.
    """

    tuning: Tuning
    manifest: Manifest = field(repr=False)
    outer: Split = field(repr=False)
    store_root: Path

    @property
    def inner_protocol(self) -> str:
        """How a training's own utterances are split again."""
        return inner_protocol(self.outer.protocol)

    def check(self, members: Sequence[Member]) -> None:
        """Refuse trainings whose utterances cannot be split again, before the first is tuned.

        Raises
        ------
        SplitError
            As `choose`.
        """
        for member in {member.fold: member for member in members}.values():
            self._inner_parts(member)

    def choose(self, work: MemberWork, member: Member) -> tuple[Any, Any]:
        """Search within the train and val part of a member.

        Every trial is kept in the member's folder when it is done; none is repeated.

        Parameters
        ----------
        work : MemberWork
            What is done for every member, with the configuration that is tuned.
        member : Member
            The training.

        Returns
        -------
        config, data : Config, object
            The configuration that was chosen, and its features.

        Raises
        ------
        SplitError
            If the member's utterances cannot be split again.
        ConfigError
            If no setting that was tried is one.
        """
        folder, options = work.folder / member.name, self.tuning.options
        folder.mkdir(parents=True, exist_ok=True)
        parts = self._inner_parts(member)
        trials = read_trials(folder / _FILE)
        search = _Search(self, work, parts, folder / "inner")
        while len(trials) < options.n_trials:
            trial = search.run_next(trials, seed=(member.part.seed, member.fold))
            if trial is None:
                break
            trials.append(trial)
            write_json({"trials": [asdict(trial) for trial in trials]}, folder / _FILE)
        settings = best_trial(trials, options).settings
        config = self.tuning.space.configure(work.config, settings)
        return config, search.extract(config)

    def _inner_parts(self, member: Member) -> list[Part]:
        rows = np.sort(np.concatenate([member.part.train, member.part.val]))
        options = self.tuning.options
        how = {"seed": self.outer.seed, "val_fraction": self.outer.options.val_fraction}
        if self.inner_protocol == "speaker+script":
            how["n_script_folds"] = options.n_script_folds or options.n_folds
        try:
            inner = split_again(
                self.manifest,
                rows,
                self.inner_protocol,
                SplitOptions(n_folds=options.n_folds, **how),
            )
        except SplitError as error:
            raise SplitError(
                f"Fold {member.fold} cannot be tuned: its {len(rows)} utterances cannot be split "
                f"again into {options.n_folds} inner folds. {error}"
            ) from error
        return [Part(*fold, member.part.seed) for fold in inner]


@dataclass(eq=False)
class _Search:
    """The trials of one member."""

    tuner: Tuner
    work: MemberWork
    parts: Sequence[Part]
    scratch: Path
    _data: dict[str, Any] = field(default_factory=dict)

    def run_next(self, trials: Sequence[Trial], *, seed: tuple[int, int]) -> Trial | None:
        """Try what the search proposes; None where it has nothing new."""
        space, options = self.tuner.tuning.space, self.tuner.tuning.options
        proposal = space.propose(
            trials,
            first=space.settings_of(self.work.config),
            direction=options.direction,
            seed=seed,
        )
        if proposal is None:
            return None
        started = time.perf_counter()
        try:
            config = space.configure(self.work.config, proposal.settings)
        except ConfigError as error:
            return Trial(proposal.settings, "refused", reason=str(error))
        scores = self._scores(config, proposal)
        is_whole = len(scores) == len(self.parts)
        seconds = time.perf_counter() - started
        return Trial(proposal.settings, "complete" if is_whole else "pruned", scores, seconds)

    def _scores(self, config: Config, proposal: Proposal) -> tuple[float, ...]:
        """Over all inner test parts so far, after each; fewer of them if it is hopeless."""
        data = self.extract(config)
        rows: list[np.ndarray] = []
        found: list[np.ndarray] = []
        scores: list[float] = []
        for step, part in enumerate(self.parts):
            rows.append(part.test)
            found.append(self._train_and_test(config, data, part))
            scores.append(self._score(np.concatenate(rows), np.concatenate(found)))
            if proposal.is_hopeless(step, scores[-1]) and step + 1 < len(self.parts):
                break
        return tuple(scores)

    def _score(self, rows: np.ndarray, probabilities: np.ndarray) -> float:
        true_ids = self.work.true_ids[rows]
        if self.tuner.tuning.options.objective == "nll":
            # To what the run learns: held against labels alone, a model of raters who disagree
            # would be chosen for being surer than they are. To the same for every trial, also
            # where the space holds other targets: else they could not be compared.
            if self.work.shares is None:
                return float(log_losses(true_ids, probabilities).mean())
            logs = np.log(np.clip(probabilities, PROBABILITY_FLOOR, 1.0))
            return float(-(self.work.shares[rows] * logs).sum(axis=1).mean())
        n_labels = probabilities.shape[1]
        confusion = np.zeros((n_labels, n_labels))
        np.add.at(confusion, (true_ids, probabilities.argmax(axis=1)), 1)
        # Over the labels there are: an inner fold of few utterances may lack one.
        return float(np.nanmean(recalls_from_confusion(confusion)))

    def _train_and_test(self, config: Config, data: Any, part: Part) -> np.ndarray:
        # What a killed trial left there belongs to other settings.
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        system = self.work.make_system(config)
        with self.work.threads(system):
            system.fit(data, part, resume_file=self.scratch / "last.pth")
            probabilities = system.predict_rows(data, part.test)
        shutil.rmtree(self.scratch)
        return probabilities

    def extract(self, config: Config) -> Any:
        """The features under `config`, looked up once for those that differ in training alone."""
        values = config.model_dump(mode="json")
        # What is to be learnt is part of the features; the rest of the training is not.
        values["train"] = values.get("train", {}).get("target")
        key = json.dumps(values, sort_keys=True)
        if key not in self._data:
            learnt = np.unique(np.concatenate([part.train for part in self.parts]))
            own = np.unique(np.concatenate([learnt, *(part.val for part in self.parts)]))
            self._data[key] = system_class(self.work.model).extract(
                self.tuner.manifest, config, train_rows=own, store_root=self.tuner.store_root
            )
        return self._data[key]


def best_trial(trials: Sequence[Trial], options: TuneOptions) -> Trial:
    """The trial with the best score over all inner folds, the first of equals.

    Raises
    ------
    ConfigError
        If none was completed.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    if not complete:
        raise ConfigError(
            f"None of {len(trials)} settings that were tried is a configuration; the first: "
            f"{trials[0].reason}"
        )
    choose = max if options.objective == "uar" else min
    return choose(complete, key=lambda trial: trial.scores[-1])


def summarise_tuning(
    tuner: Tuner, base: Config, folder: Path, members: Sequence[Member]
) -> dict[str, Any]:
    """What the choices came to, for ``metrics.json``.

    Parameters
    ----------
    tuner : Tuner
        Who chose.
    base : Config
        The configuration that was tuned.
    folder : Path
        Where the members' folders are.
    members : Sequence[Member]
        The trainings.

    Returns
    -------
    dict
        ``objective``, the inner protocol, the budget (``n_trials`` in each fold, ``n_trainings``
        in all, ``seconds``), and by fold what was chosen, its inner score, and that of the
        configuration as it was given (None where the space does not hold it).
    """
    options = tuner.tuning.options
    given = tuner.tuning.space.settings_of(base)
    folds, n_trials, n_trainings, seconds = [], 0, 0, 0.0
    for member in members:
        trials = read_trials(folder / member.name / _FILE)
        best = best_trial(trials, options)
        untuned = [trial.scores[-1] for trial in trials if trial.settings == given and trial.scores]
        n_trials = max(n_trials, len(trials))
        n_trainings += sum(len(trial.scores) for trial in trials)
        seconds += sum(trial.seconds for trial in trials)
        folds.append(
            {
                "fold": member.fold,
                "settings": dict(best.settings),
                "inner_score": best.scores[-1],
                "untuned_inner_score": untuned[0] if untuned else None,
                "n_pruned": sum(trial.state == "pruned" for trial in trials),
                "n_refused": sum(trial.state == "refused" for trial in trials),
            }
        )
    return {
        "objective": options.objective,
        "inner_protocol": tuner.inner_protocol,
        "n_inner_folds": options.n_folds
        * ((options.n_script_folds or options.n_folds) if "script" in tuner.inner_protocol else 1),
        "n_trials": n_trials,
        "n_trainings": n_trainings,
        "seconds": seconds,
        "folds": folds,
    }


def read_trials(path: Path) -> list[Trial]:
    """The trials of one training; none where the file does not exist.

    Raises
    ------
    RunError
        If the file cannot be read.
    """
    if not path.exists():
        return []
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))["trials"]
        trials = [Trial(**values) for values in kept]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"Cannot read the trials in '{path}' ({error!r}). Remove the file to search again."
        ) from error
    return [replace(trial, scores=tuple(trial.scores)) for trial in trials]
