"""How a finished run's scores fall when the sound gets worse: ``koser robustness``.

Every training of the run hears its own test part, degraded in every way and at every level, so
the protocol is that of the run: nobody is tested on what was learnt. Each condition is held
against the clean sound on the same utterances.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from koser import __version__
from koser.audio.degradation import KINDS, Degradation, list_degradations
from koser.data.combining import combine
from koser.data.manifest import Manifest
from koser.data.sealing import write_table
from koser.errors import RunError
from koser.evaluation.comparison import Comparison, compare_all
from koser.evaluation.pairing import Answers
from koser.evaluation.scoring import evaluate
from koser.experiment.degrading import Ask, OnTraining, answer_all, members_of_run
from koser.experiment.enrolled import refuse_enrolled
from koser.experiment.folder import held
from koser.experiment.members import Member
from koser.experiment.results import PROBABILITY_PREFIX, clusters_of, prediction_table
from koser.features.extraction import clips_of
from koser.files import replacing, write_json
from koser.reporting.noted import shared_notes
from koser.reporting.robustness import plot_robustness
from koser.reporting.runs import RunFolder
from koser.storage.places import Place

FILE = "robustness.json"
_UNDONE = ".robustness"  # answers of trainings, while others are still asked
CLEAN = "clean"
# Of a probability: the same model on the same sound differs by rounding, in half precision too,
# by less.
_SAME = 0.05
_KEPT = ("uar", "accuracy", "macro_f1", "ece")


@dataclass(frozen=True)
class RobustnessRequest:
    """What is to be tried.

    Attributes
    ----------
    run : Path
        Folder of a finished run.
    manifests : tuple[Place, ...]
        What it was trained on.
    kinds : tuple[str, ...]
        Of `koser.audio.degradation.KINDS`; empty for all.
    seed : int
        Of noise, voices and rooms.
    places : dict[str, str]
        Where pretrained models are now, if not where they were in training: ``encoder``,
        ``whisper``, ``text_model``.
    """

    run: Path
    manifests: tuple[Place, ...]
    kinds: tuple[str, ...]
    seed: int
    places: dict[str, str]


def measure_robustness(
    request: RobustnessRequest,
    out: Path,
    *,
    store_root: Path,
    n_workers: int = 1,
    on_training: OnTraining | None = None,
) -> dict[str, Any]:
    """Score a run on degraded sound; leave ``robustness.json``, ``.parquet`` and ``.png``.

    Parameters
    ----------
    request : RobustnessRequest
        What to try.
    out : Path
        Where to; the run folder itself, or another.
    store_root : Path
        Folder of the stores: what Whisper hears is kept there.
    n_workers : int
        Processes. The result does not depend on it, but for the last digits of a large encoder.
    on_training : Callable, optional
        Told how many trainings are done. Killed, it goes on after those.

    Returns
    -------
    dict
        The content of ``robustness.json``.

    Raises
    ------
    RunError
        If the run lacks its models, or these do not say on clean sound what the run says.
    SplitError
        If the run was not trained on exactly these utterances.
    AudioError
        If a file cannot be read.
    """
    degradations = list_degradations(request.kinds)
    run = RunFolder.read(request.run)
    refuse_enrolled(run, "koser robustness")
    manifest = combine([Manifest.read(place) for place in request.manifests])
    members = members_of_run(run, manifest)
    with held(out):
        kept = out / _UNDONE
        ask = Ask(
            run.folder,
            run.model,
            tuple(manifest.table["id"]),
            tuple(clips_of(manifest.table)),
            degradations,
            request.seed,
            kept,
            request.places,
            store_root,
        )
        answers = answer_all(ask, members, n_workers=n_workers, on_training=on_training)
        tables = _tables(manifest, members, answers)
        difference = _refuse_other_answers(tables[0], run)
        values = _values(run, manifest, degradations, tables)
        values |= {"seed": request.seed, "largest_difference": difference, "koser": __version__}
        with replacing(out / "robustness.parquet") as partial:
            write_table(_joined(degradations, tables), partial)
        write_json(values, out / FILE)
        plot_robustness(values, out / "robustness.png")
        shutil.rmtree(kept)
    return values


def _tables(
    manifest: Manifest, members: Sequence[Member], answers: Sequence[np.ndarray]
) -> list[pl.DataFrame]:
    """The predictions under every condition, as a run keeps them; the clean ones first."""
    return [
        pl.concat(
            prediction_table(
                manifest,
                each[condition],
                rows=member.part.test,
                seed=member.part.seed,
                fold=member.fold,
            )
            for member, each in zip(members, answers, strict=True)
        )
        for condition in range(len(answers[0]))
    ]


def _refuse_other_answers(clean: pl.DataFrame, run: RunFolder) -> float:
    """Largest difference of a probability from the run's own predictions."""
    keys = ["seed", "fold", "id"]
    columns = [f"{PROBABILITY_PREFIX}{label}" for label in run.labels]
    both = clean.join(run.predictions.select(*keys, *columns), on=keys, suffix="_then")
    if both.height != clean.height:
        raise RunError(
            f"'{run.folder}' was not tested on the same utterances ({both.height} of "
            f"{clean.height}). Give the manifest that it was trained on."
        )
    now = both.select(columns).to_numpy()
    then = both.select([f"{column}_then" for column in columns]).to_numpy()
    difference = float(np.abs(now - then).max())
    if difference > _SAME:
        row = int(np.abs(now - then).max(axis=1).argmax())
        raise RunError(
            f"On clean sound the models do not say what the run says: for '{both['id'][row]}' a "
            f"probability differs by {difference:.3f}. The sound has changed since, or the model "
            f"knows more of an utterance than its sound (corpora.normalise=corpus). Train again."
        )
    return difference


def _values(
    run: RunFolder,
    manifest: Manifest,
    degradations: Sequence[Degradation],
    tables: Sequence[pl.DataFrame],
) -> dict[str, Any]:
    names = [CLEAN, *(each.name for each in degradations)]
    clusters = clusters_of(manifest, tables[0])
    kind = manifest.provenance.grouping
    answers = [
        Answers(
            name,
            table["id"].to_numpy(),
            table["label"].to_numpy(),
            table["predicted"].to_numpy(),
            clusters,
        )
        for name, table in zip(names, tables, strict=True)
    ]
    comparisons = compare_all(answers, labels=run.labels, cluster_kind=kind, baseline=0)
    scores = [_scores(table, run, clusters, kind) for table in tables]
    shared = shared_notes([pair.notes for pair in comparisons])
    conditions = [
        {
            **asdict(each),
            "unit": KINDS[each.kind].unit,
            **found,
            "difference": _difference(pair),
            "notes": [note for note in pair.notes if note not in shared],
        }
        for each, found, pair in zip(degradations, scores[1:], comparisons, strict=True)
    ]
    return {
        "run": run.folder.resolve().name,
        "model": run.model,
        "title": run.title,
        "protocol": run.metrics["protocol"],
        "seeds": run.metrics["seeds"],
        "n_trainings": len(run.metrics["folds"]),
        "labels": list(run.labels),
        "chance_uar": run.metrics["chance_uar"],
        "n": tables[0]["id"].n_unique(),
        "n_speakers": comparisons[0].n_clusters,
        "cluster_kind": kind,
        "interval_method": comparisons[0].interval_method,
        CLEAN: scores[0],
        "conditions": conditions,
        "is_synthetic": run.metrics["is_synthetic"],
        "notes": shared,
    }


def _scores(
    table: pl.DataFrame, run: RunFolder, clusters: np.ndarray | None, kind: str | None
) -> dict[str, Any]:
    columns = [f"{PROBABILITY_PREFIX}{label}" for label in run.labels]
    found = evaluate(
        table["label"].to_numpy(),
        table.select(columns).to_numpy(),
        labels=run.labels,
        clusters=clusters,
        cluster_kind=kind,
    )
    return {
        **{name: found.scores[name].value for name in _KEPT},
        "ci95": {name: found.scores[name].bounds for name in _KEPT},
        "recall": {label: score.value for label, score in found.recall.items()},
    }


def _difference(pair: Comparison) -> dict[str, Any]:
    """Of the degraded sound's scores from the clean one's."""
    uar = pair.differences["uar"]
    return {
        "uar": uar.value,
        "ci95": uar.bounds,
        "p": pair.p_values["uar"],
        "p_holm": pair.p_adjusted["uar"],
    }


def _joined(degradations: Sequence[Degradation], tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """All predictions: ``kind`` and ``level`` of the condition, then what a run keeps."""
    conditions = [(CLEAN, None), *((each.kind, each.level) for each in degradations)]
    return pl.concat(
        table.select(pl.lit(kind).alias("kind"), pl.lit(level, pl.Float64).alias("level"), pl.all())
        for (kind, level), table in zip(conditions, tables, strict=True)
    )
