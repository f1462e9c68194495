"""What a system is worth without one of its parts: trained beside it, on the same split.

Each ablation is a whole set of trainings under the same folds and seeds, in
``ablations/<name>`` of the run folder, resumed like the run's own.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from koser.data.manifest import Manifest
from koser.evaluation.gap import Side, evaluate_gap
from koser.experiment.members import Member, MemberWork, run_members
from koser.experiment.results import Results, clusters_of, collect
from koser.systems import system_class

logger = logging.getLogger(__name__)

_SCORES = ("uar", "accuracy", "macro_f1")


def run_ablations(
    work: MemberWork,
    members: list[Member],
    results: Results,
    manifest: Manifest,
    *,
    n_workers: int,
) -> dict[str, Any]:
    """Train and test what the system names, and compare it with the system's own result.

    Parameters
    ----------
    work : MemberWork
        The run's own.
    members : list[Member]
        The run's trainings: the same rows and seeds are used.
    results : Results
        What the run came to.
    manifest : Manifest
        The utterances.
    n_workers : int
        Processes.

    Returns
    -------
    dict
        For ``metrics.json``: ``ablations``, by name, with scores, intervals (``ci95``) and how
        much higher the system scores (``difference``, whose interval draws speakers once for
        both); empty where the system names none.
    """
    wanted = system_class(work.model).ablations(work.config, work.data)
    found: dict[str, Any] = {}
    for name, (config, data) in wanted.items():
        logger.info("ablation: %s", name)
        folder = work.folder.parent / "ablations" / name.replace(" ", "_")
        without = replace(work, config=config, data=data, folder=folder, on_epoch=None)
        outcomes = run_members(without, members, n_workers=n_workers)
        found[name] = _describe(results, collect(manifest, outcomes), manifest)
    # What a system's parts said is there already.
    for name in results.outcomes[0].inside.probabilities:
        answers = [
            replace(outcome, probabilities=outcome.inside.probabilities[name])
            for outcome in results.outcomes
        ]
        found[name] = _describe(results, collect(manifest, answers), manifest)
    return {"ablations": found} if found else {}


def _describe(whole: Results, part: Results, manifest: Manifest) -> dict[str, Any]:
    scores = part.evaluation.to_dict()
    gap = evaluate_gap(
        _side("system", whole, manifest),
        _side("ablation", part, manifest),
        labels=manifest.labels,
        cluster_kind=manifest.provenance.grouping,
    ).to_dict()
    return {
        **{score: scores[score] for score in _SCORES},
        "ci95": {score: scores["ci95"][score] for score in _SCORES},
        "per_seed_uar": [each.scores["uar"].value for each in part.per_seed.values()],
        "difference": {score: gap[score] for score in ("uar", "accuracy", "ci95", "notes")},
    }


def _side(name: str, results: Results, manifest: Manifest) -> Side:
    predictions = results.predictions
    return Side(
        name,
        predictions["label"].to_numpy(),
        predictions["predicted"].to_numpy(),
        clusters_of(manifest, predictions),
    )
