"""Run an experiment and leave its folder behind.

What is in the folder
---------------------
``config.toml`` and ``run.json`` are written first and say what the run is; ``split.parquet``
who plays which part; ``parts/`` holds one folder per training. When all are done come
what `koser.experiment.outputs` writes, of which ``report.html`` is the last.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from koser import __version__
from koser.config import Config
from koser.data.manifest import Manifest
from koser.data.splits import Split
from koser.engines.local import LocalEngine
from koser.evaluation.metrics import label_ids
from koser.experiment.ablations import run_ablations
from koser.experiment.audit import audit_run
from koser.experiment.folder import claimed
from koser.experiment.logs import log_to
from koser.experiment.members import (
    Member,
    MemberWork,
    OnMember,
    OnMemberEpoch,
    run_members,
)
from koser.experiment.outputs import write_outputs
from koser.experiment.results import Results, collect
from koser.experiment.starting import speaker_keys
from koser.experiment.tuning import Tuner, Tuning, summarise_tuning
from koser.features.extraction import Progress
from koser.reporting.report import ReportOptions
from koser.systems import system_class
from koser.systems.starting import Start
from koser.systems.system import Part, target_distributions
from koser.training.ranks import ALONE, Ranks

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experiment:
    """What is to be tried.

    Attributes
    ----------
    model : str
        Name of a system.
    config : Config
        The system's configuration.
    manifest : Manifest
        The utterances.
    split : Split
        Who plays which part.
    seeds : tuple[int, ...]
        One training per fold is run under each.
    tuning : Tuning, optional
        Settings that each training chooses within its own data; none if not given.
    start : Start, optional
        The trained model that every training starts from; none if not given.
    """

    model: str
    config: Config
    manifest: Manifest = field(repr=False)
    split: Split = field(repr=False)
    seeds: tuple[int, ...]
    tuning: Tuning | None = None
    start: Start | None = field(default=None, repr=False)

    @property
    def split_name(self) -> str:
        """The protocol, as it can stand in a file's name."""
        # fixed:ravdess, speaker enrolled(3)
        return re.sub(r"[^\w+.-]+", "-", self.split.protocol).strip("-")

    @property
    def name(self) -> str:
        """``<model>_<split>``, as the document's files are called."""
        return f"{self.model}_{self.split_name}"

    def tuner(self, store_root: Path) -> Tuner | None:
        """Who chooses the settings, if anybody does."""
        if self.tuning is None:
            return None
        return Tuner(self.tuning, self.manifest, self.split, store_root)

    def identity(self) -> dict[str, Any]:
        """What must be equal for two runs to be the same one."""
        return {
            "model": self.model,
            "config": self.config.model_dump(mode="json"),
            "labels": list(self.manifest.labels),
            "split": self.split.describe(),
            "seeds": list(self.seeds),
            "tuning": None if self.tuning is None else self.tuning.describe(),
            "init": None if self.start is None else self.start.about,
        }


@dataclass(frozen=True)
class Listeners:
    """Who is told how far a run is, or takes part in it; all optional."""

    on_clip: Progress | None = None
    on_epoch: OnMemberEpoch | None = None
    on_member: OnMember | None = None
    ranks: Ranks = ALONE  # of which this process is the first


@dataclass(frozen=True)
class Record:
    """What a run's folder should tell beside its results.

    Attributes
    ----------
    command : tuple[str, ...]
        The command line.
    report : ReportOptions
        How its report is written.
    """

    command: tuple[str, ...] = ()
    report: ReportOptions = field(default_factory=ReportOptions)


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run: its folder, what came out, and the content of ``metrics.json``."""

    experiment: Experiment
    folder: Path
    results: Results
    metrics: dict[str, Any]


def run_experiment(
    experiment: Experiment,
    folder: Path,
    *,
    store_root: Path,
    n_workers: int = 1,
    resume: bool = False,
    listeners: Listeners | None = None,
    record: Record | None = None,
) -> Run:
    """Extract, train, test, score and write everything into `folder`.

    Parameters
    ----------
    experiment : Experiment
        What to try.
    folder : Path
        The run folder; must be new or empty unless `resume`.
    store_root : Path
        Folder of the feature stores.
    n_workers : int
        Processes for extraction and, where there are several trainings, for these.
    resume : bool
        Go on in a folder that an interrupted run of the same experiment left.
    listeners : Listeners, optional
        Told of progress.
    record : Record, optional
        What is told of the run beside its results, and in which language.

    Raises
    ------
    RunError
        If `folder` is taken, or to be resumed but of another experiment.
    SplitError
        If the split is not the manifest's, or a fold that is to be tuned cannot be split again.
    """
    listeners, record = listeners or Listeners(), record or Record()
    experiment.split.check(experiment.manifest)
    members = members_of(experiment)
    tuner = experiment.tuner(store_root)
    if tuner is not None:
        tuner.check(members)
    with (
        claimed(folder, experiment, resume=resume, command=record.command),
        log_to(folder / "train.log"),
    ):
        logger.info("run %s: %d trainings", experiment.name, len(members))
        system = system_class(experiment.model)
        started = time.perf_counter()
        data = system.extract(
            experiment.manifest,
            experiment.config,
            train_rows=train_rows_of(members),
            store_root=store_root,
            engine=LocalEngine(n_workers),
            progress=listeners.on_clip,
            ranks=listeners.ranks,
        )
        extraction_seconds = time.perf_counter() - started
        audit_run(
            experiment.manifest,
            experiment.split,
            folder,
            store_root=store_root,
            n_workers=n_workers,
        )
        work = MemberWork(
            model=experiment.model,
            labels=experiment.manifest.labels,
            config=experiment.config,
            data=data,
            folder=folder / "parts",
            origin=_origin(experiment),
            true_ids=_true_ids(experiment.manifest),
            shares=_shares(experiment),
            on_epoch=listeners.on_epoch if len(members) == 1 or n_workers == 1 else None,
            tuner=tuner,
            ranks=listeners.ranks,
            start=experiment.start,
            speaker_keys=speaker_keys(experiment.manifest),
        )
        outcomes = run_members(work, members, n_workers=n_workers, on_member=listeners.on_member)
        results = collect(experiment.manifest, outcomes, features=system.describe_data(data))
        system.write_extras(experiment.manifest, data, folder)
        beside = _beside(experiment, work, members, results, n_workers)
        metrics = write_outputs(
            experiment,
            results,
            folder,
            beside=beside,
            extraction_seconds=extraction_seconds,
            report=record.report,
        )
        logger.info("done: %s", folder)
    return Run(experiment, folder, results, metrics)


def _true_ids(manifest: Manifest) -> np.ndarray:
    return label_ids(manifest.table["label"].to_numpy(), labels=manifest.labels)


def _shares(experiment: Experiment) -> np.ndarray | None:
    """The raters' distribution, where the system is trained on it."""
    train: Any = experiment.config.model_dump().get("train", {})
    targets = target_distributions(experiment.manifest, train.get("target", "label"))
    return targets if (targets.max(axis=1) < 1).any() else None


def _beside(
    experiment: Experiment,
    work: MemberWork,
    members: list[Member],
    results: Results,
    n_workers: int,
) -> dict[str, Any]:
    """What a run's metrics tell beside its scores: its choices, or what its parts are worth."""
    if isinstance(work.tuner, Tuner):
        # An untuned system without a part would say nothing of a tuned one's part.
        return {"tuning": summarise_tuning(work.tuner, work.config, work.folder, members)}
    ablations = run_ablations(work, members, results, experiment.manifest, n_workers=n_workers)
    return {**ablations, **_stacking(results)}


def _stacking(results: Results) -> dict[str, Any]:
    """How each training pooled its members; nothing of a system that has none."""
    found = [
        {"fold": each.member.fold, "seed": each.member.part.seed, **each.inside.facts}
        for each in results.outcomes
        if each.inside.facts
    ]
    return {"stacking": found} if found else {}


def members_of(experiment: Experiment) -> list[Member]:
    """Every fold under every seed, as rows of the manifest."""
    row_of = {name: row for row, name in enumerate(experiment.manifest.table["id"])}

    def rows(fold: int, part: str) -> np.ndarray:
        return np.sort(np.array([row_of[i] for i in experiment.split.ids(fold, part)], np.int64))

    folds = [
        (fold, rows(fold, "train"), rows(fold, "val"), rows(fold, "test"))
        for fold in range(experiment.split.n_folds)
    ]
    return [
        Member(fold, Part(train, val, test, seed))
        for seed in experiment.seeds
        for fold, train, val, test in folds
    ]


def train_rows_of(members: Sequence[Member]) -> np.ndarray:
    """Rows that train in any of `members`."""
    return np.unique(np.concatenate([member.part.train for member in members]))


def _origin(experiment: Experiment) -> dict[str, Any]:
    provenance = experiment.manifest.provenance
    return {
        "split": experiment.split.describe(),
        "corpus": sorted(experiment.manifest.table["corpus"].unique()),
        "label_policy": provenance.label_policy,
        "is_synthetic": provenance.is_synthetic,
        "koser": __version__,
        "init": None if experiment.start is None else experiment.start.about,
    }
