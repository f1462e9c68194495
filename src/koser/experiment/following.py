"""What the other processes do that `torchrun` started, while the first one leads."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from koser.errors import ConfigError, RunError
from koser.experiment.members import MemberWork, follow_members
from koser.experiment.request import TrainRequest
from koser.experiment.run import Experiment, members_of, train_rows_of
from koser.systems import SYSTEM_NAMES, system_class
from koser.training.ranks import Ranks


def announce(experiments: Sequence[Experiment], is_pending: Sequence[bool], ranks: Ranks) -> None:
    """Tell the other ranks which experiments are about to be run.

    Parameters
    ----------
    experiments : Sequence[Experiment]
        All of a command's.
    is_pending : Sequence[bool]
        Whether each is still to be run.
    ranks : Ranks
        The processes, of which this is the first.
    """
    ranks.from_first(lambda: [_identities(experiments), list(is_pending)])


def follow(experiments: Sequence[Experiment], *, store_root: Path, ranks: Ranks) -> None:
    """Take part in what the first rank runs of `experiments`, silently.

    Raises
    ------
    RunError
        If this process was asked for something else than the first one.
    LostRankError
        If another process ends before the work does.
    """
    package, silent = logging.getLogger("koser"), logging.NullHandler()
    package.addHandler(silent)  # without any, Python prints what is warned of
    try:
        identities, is_pending = ranks.from_first()
        if identities != json.loads(json.dumps(_identities(experiments))):
            raise RunError(
                f"Rank {ranks.rank} has read other data or settings than rank 0. Start all "
                f"processes with the same command, and let them see the same manifest."
            )
        for experiment, pending in zip(experiments, is_pending, strict=True):
            if pending:
                _follow(experiment, store_root=store_root, ranks=ranks)
    finally:
        package.removeHandler(silent)


def check_shareable(request: TrainRequest, ranks: Ranks) -> None:
    """Refuse a training that several processes cannot share.

    Raises
    ------
    ConfigError
        If it is one.
    """
    model = request.model
    if ranks.is_alone:
        return
    if request.tuning is not None:
        raise ConfigError(
            "koser tune trains many small models, each in one process. Leave torchrun out: it "
            "runs a fold on each core by itself (--workers)."
        )
    if system_class(model).is_shareable:
        return
    others = [name for name in SYSTEM_NAMES if system_class(name).is_shareable]
    raise ConfigError(
        f"System '{model}' trains in one process, because its features take hours and its network "
        f"seconds. Leave torchrun out; systems that it is for: {', '.join(others)}."
    )


def _follow(experiment: Experiment, *, store_root: Path, ranks: Ranks) -> None:
    """Take part in a run that rank 0 leads with `run_experiment`."""
    members = members_of(experiment)
    data = system_class(experiment.model).extract(
        experiment.manifest,
        experiment.config,
        train_rows=train_rows_of(members),
        store_root=store_root,
        ranks=ranks,
    )
    work = MemberWork(
        model=experiment.model,
        labels=experiment.manifest.labels,
        config=experiment.config,
        data=data,
        folder=Path(),  # rank 0's is its own affair
        origin={},
        true_ids=np.zeros(0, np.int64),
        ranks=ranks,
        start=experiment.start,
    )
    follow_members(work, members)


def _identities(experiments: Sequence[Experiment]) -> list[dict[str, object]]:
    return [experiment.identity() for experiment in experiments]
