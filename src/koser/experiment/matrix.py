"""Cross-corpus table: every run on every corpus, over the labels that all of them have.

A cell off the diagonal is a run's kept model on a corpus that it was not trained on, all of it.
Where a run was trained on the corpus, that would be a test on training data: such a cell, called
within-corpus, holds the run's own test predictions under its own protocol instead. What it started
from (``--init``) may have learnt from a corpus whole, so that one is refused.

All cells are over the same labels, and models answer only these: the probabilities of their
others go to them, in proportion. So chance is the same in every cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from koser.data.enrolment import is_enrolled
from koser.data.manifest import Manifest
from koser.errors import ConfigError, LabelError, RunError
from koser.evaluation.scoring import evaluate
from koser.experiment.cost import PARTS
from koser.experiment.kept_model import describe_kept, learnt_from, load_kept, why_kept
from koser.experiment.other_data import PROTOCOL as OTHER_DATA
from koser.experiment.other_data import recognise_rows
from koser.experiment.results import PROBABILITY_PREFIX
from koser.experiment.starting import learnt_before
from koser.labels import ordered_labels
from koser.reporting.runs import RunFolder, read_json
from koser.storage.places import Place

Json = dict[str, Any]  # Any: what JSON can hold
# Told of the run, the corpus, the utterances done, and their total.
OnCell = Callable[[str, str, int, int], None]
_MIN_LABELS = 2


@dataclass(frozen=True, eq=False)
class Corpus:
    """A manifest to test on."""

    names: frozenset[str]
    manifest: Manifest

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return "+".join(sorted(self.names))


@dataclass(frozen=True, eq=False)
class _Answers:
    """What there is to score in a cell; a row per utterance, and per seed within a corpus."""

    ids: np.ndarray
    y_true: np.ndarray
    probabilities: np.ndarray  # over the shared labels
    clusters: np.ndarray | None
    cluster_kind: str | None
    n_left_out: int  # utterances with other labels


def evaluate_matrix(
    runs: Sequence[Path],
    manifests: Sequence[Place],
    *,
    places: Mapping[str, str] | None = None,
    store_root: Path | None = None,
    on_cell: OnCell | None = None,
) -> Json:
    """Test every run on every corpus.

    Parameters
    ----------
    runs : Sequence[Path]
        Folders of finished runs.
    manifests : Sequence[Place]
        Corpora, with labels spelt as the runs' (`koser map`).
    places : Mapping[str, str], optional
        Where pretrained models are now, of the runs that have one of the kind: ``encoder``,
        ``whisper``, ``text_model``.
    store_root : Path, optional
        Folder of the stores, where what Whisper hears is then kept.
    on_cell : Callable, optional
        Told of progress.

    Returns
    -------
    dict
        The content of ``matrix.json``: ``labels``, ``runs``, ``corpora``, ``cells`` and ``notes``.

    Raises
    ------
    ConfigError
        If no run has a pretrained model of a kind in `places`.
    RunError
        If a folder is no training, or an enrolled one; two corpora have one name; a run was
        trained on a corpus and tested none of the utterances given, or started from a model
        that was trained on a corpus it did not learn from itself.
    LabelError
        If runs and corpora share fewer than two labels, or a run learnt other labels of the
        utterances given.
    AudioError
        If files cannot be read.
    """
    folders = [RunFolder.read(path) for path in runs]
    _refuse_unneeded(folders, places or {})
    corpora = [_read_corpus(path) for path in manifests]
    names = [corpus.name for corpus in corpora]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RunError(f"Two manifests are of {', '.join(twice)}. Give each corpus once.")
    labels = _shared_labels(folders, corpora)
    described = [
        _describe_run(folder, name)
        for folder, name in zip(folders, _run_names(folders), strict=True)
    ]
    for run in described:
        _refuse_no_training(run)
    cells = []
    for folder, run in zip(folders, described, strict=True):
        recognizer = None
        for corpus in corpora:
            is_within = not corpus.names.isdisjoint(run["trained_on"])
            if is_within:
                answers = _own_answers(folder, corpus, labels)
            else:
                _refuse_learnt_before(run, corpus)
                if recognizer is None:
                    own = _own_places(folder, places or {})
                    recognizer = load_kept(folder, places=own, store_root=store_root)
                    run["kept_model"] = describe_kept(folder, recognizer.origin)
                answers = _new_answers(recognizer, corpus, labels, _listener(on_cell, run, corpus))
            cells.append({**_cell(run, corpus, labels, answers), "is_within": is_within})
    return {
        "labels": list(labels),
        "chance_uar": 1 / len(labels),
        "runs": described,
        "corpora": [_describe_corpus(corpus, labels) for corpus in corpora],
        "cells": cells,
        "is_synthetic": any(run["is_synthetic"] for run in described)
        or any(corpus.manifest.provenance.is_synthetic for corpus in corpora),
        "notes": _notes(described, corpora, labels),
    }


def _refuse_unneeded(folders: Sequence[RunFolder], places: Mapping[str, str]) -> None:
    for name in places:
        if not any(PARTS[name] in folder.pretrained for folder in folders):
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"No run has a model that {option} is about. Leave it out.")


def _own_places(folder: RunFolder, places: Mapping[str, str]) -> dict[str, str]:
    return {name: place for name, place in places.items() if PARTS[name] in folder.pretrained}


def _read_corpus(path: Place) -> Corpus:
    manifest = Manifest.read(path)
    return Corpus(frozenset(manifest.table["corpus"]), manifest)


def _shared_labels(folders: Sequence[RunFolder], corpora: Sequence[Corpus]) -> tuple[str, ...]:
    sets = [set(folder.labels) for folder in folders]
    sets += [set(corpus.manifest.table["label"].unique()) for corpus in corpora]
    shared = ordered_labels(set.intersection(*sets))
    if len(shared) < _MIN_LABELS:
        listed = "; ".join(", ".join(ordered_labels(each)) for each in sets)
        raise LabelError(
            f"Runs and corpora share {len(shared)} labels ({listed}): a table needs two at least. "
            f"Map them to shared ones first: koser map M --mapping four --out M2"
        )
    return shared


def _run_names(folders: Sequence[RunFolder]) -> list[str]:
    """Names of the folders; where two are the same, with as many parents as tell them apart."""
    paths = [folder.folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise RunError("A run is given twice. Give each once.")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in paths]


def _describe_run(folder: RunFolder, name: str) -> Json:
    protocol = folder.metrics["protocol"]
    return {
        "run": name,
        "title": folder.title,
        "trained_on": read_json(folder.folder / "data.json")["corpora"],
        "pretrained_on": sorted(learnt_before(folder.description)),
        "protocol": protocol["protocol"],
        "grouping": protocol["grouping"],
        "n_folds": protocol["n_folds"],
        "split_hash": protocol["hash"],
        "seeds": folder.metrics["seeds"],
        "n_trainings": len(folder.metrics["folds"]),
        "kept_model": None,  # while it is asked nothing
        "labels": list(folder.labels),
        "is_synthetic": folder.metrics["is_synthetic"],
    }


def _refuse_no_training(run: Json) -> None:
    if run["protocol"] == OTHER_DATA:
        raise RunError(
            f"'{run['run']}' is what koser evaluate made of a run, and no training. Give the run."
        )
    if is_enrolled(run["protocol"]):
        raise RunError(
            f"'{run['run']}' is of the protocol '{run['protocol']}', and on other corpora nobody "
            f"is enrolled. Give runs without --enrol; koser compare compares enrolled ones."
        )


def _refuse_learnt_before(run: Json, corpus: Corpus) -> None:
    learnt = sorted(corpus.names & set(run["pretrained_on"]))
    if learnt:
        raise RunError(
            f"'{run['run']}' started from a model that was trained on {', '.join(learnt)}, and "
            f"cannot be tested on it. Leave out the run, or the corpus."
        )


def _describe_corpus(corpus: Corpus, labels: Sequence[str]) -> Json:
    table = corpus.manifest.table
    column = corpus.manifest.grouping_column
    return {
        "corpus": corpus.name,
        "n": table.height,
        "n_speakers": None if column is None else table[column].n_unique(),
        "per_label": dict(table["label"].value_counts(sort=True).iter_rows()),
        "n_left_out": int((~table["label"].is_in(list(labels))).sum()),
        "label_policy": corpus.manifest.provenance.label_policy,
    }


def _own_answers(folder: RunFolder, corpus: Corpus, labels: Sequence[str]) -> _Answers:
    """The run's test predictions of the utterances of one corpus."""
    table = corpus.manifest.table
    own = [*table["id"], *(f"{name}/{i}" for name, i in table.select("corpus", "id").iter_rows())]
    tested = folder.predictions.filter(pl.col("id").is_in(own))
    if not tested.height:
        raise RunError(
            f"The run '{folder.folder}' was trained on {corpus.name}, and tested none of the "
            f"{table.height} utterances of the manifest. Give the manifest that it was trained on."
        )
    _refuse_other_labels(folder, corpus, tested)
    kept = tested.filter(pl.col("label").is_in(list(labels)))
    if not kept.height:
        raise LabelError(f"'{folder.folder}' tested no shared label of {corpus.name}.")
    clusters = kept["cluster"]
    columns = [f"{PROBABILITY_PREFIX}{label}" for label in labels]
    return _Answers(
        kept["id"].to_numpy(),
        kept["label"].to_numpy(),
        _in_proportion(kept.select(columns).to_numpy()),
        None if clusters.null_count() else clusters.to_numpy(),
        folder.metrics["cluster_kind"],
        tested["id"].n_unique() - kept["id"].n_unique(),
    )


def _refuse_other_labels(folder: RunFolder, corpus: Corpus, tested: pl.DataFrame) -> None:
    """The other cells of the column are scored by the manifest's labels, so this one must be."""
    given = corpus.manifest.table.select("corpus", "id", "label")
    bare = given.select("id", now="label")
    named = given.select(id=pl.col("corpus") + "/" + pl.col("id"), now="label")
    both = tested.join(pl.concat([bare, named]).unique("id"), on="id", how="inner")
    other = both.filter(pl.col("label") != pl.col("now")).sort("id")
    if other.height:
        row = other.row(0, named=True)
        raise LabelError(
            f"'{folder.folder}' learnt other labels of {other['id'].n_unique()} utterances of "
            f"{corpus.name} (the first, {row['id']}: {row['label']}, and {row['now']} in the "
            f"manifest). Give the manifest that it was trained on, or train on this one."
        )


def _new_answers(
    recognizer: Any,  # a Recognizer
    corpus: Corpus,
    labels: Sequence[str],
    on_clip: Callable[[int, int], None] | None,
) -> _Answers:
    """A model's answers to all utterances with shared labels."""
    whole = corpus.manifest
    table = whole.table.filter(whole.table["label"].is_in(list(labels)))
    probabilities = recognise_rows(recognizer, table, on_clip)
    places = [recognizer.labels.index(label) for label in labels]
    column = whole.grouping_column
    return _Answers(
        table["id"].to_numpy(),
        table["label"].to_numpy(),
        _in_proportion(probabilities[:, places]),
        None if column is None else table[column].to_numpy(),
        whole.provenance.grouping,
        len(whole) - table.height,
    )


def _in_proportion(probabilities: np.ndarray) -> np.ndarray:
    """Shares among the columns; equal where a model gave nothing to any of them."""
    kept: np.ndarray = probabilities + 1e-12
    shares: np.ndarray = kept / kept.sum(axis=1, keepdims=True)
    return shares


def _cell(run: Json, corpus: Corpus, labels: Sequence[str], answers: _Answers) -> Json:
    scores = evaluate(
        answers.y_true,
        answers.probabilities,
        labels=labels,
        clusters=answers.clusters,
        cluster_kind=answers.cluster_kind,
    ).to_dict()
    kept = ("accuracy", "uar", "macro_f1", "recall", "ci95", "n_speakers", "cluster_kind")
    return {
        "run": run["run"],
        "corpus": corpus.name,
        **{key: scores[key] for key in (*kept, "labels_absent", "confusion", "notes")},
        "n": len(np.unique(answers.ids)),
        "n_left_out": answers.n_left_out,
    }


def _listener(
    on_cell: OnCell | None, run: Json, corpus: Corpus
) -> Callable[[int, int], None] | None:
    if on_cell is None:
        return None
    return lambda done, total: on_cell(run["run"], corpus.name, done, total)


def _notes(runs: Sequence[Json], corpora: Sequence[Corpus], labels: Sequence[str]) -> list[str]:
    notes = [
        f"All cells are over {len(labels)} shared labels ({', '.join(labels)}), and models answer "
        f"only these."
    ]
    for corpus in corpora:
        counts = corpus.manifest.table["label"].value_counts(sort=True).iter_rows()
        others = ", ".join(f"{label} {n}" for label, n in counts if label not in labels)
        if others:
            notes.append(f"Not shared, and not scored, of {corpus.name}: {others}.")
    for run in runs:
        if run["pretrained_on"]:
            before = ", ".join(run["pretrained_on"])
            notes.append(f"{run['run']} started from a model that was trained on {before}.")
        kept = run["kept_model"]
        if kept is not None and kept["n_trainings"] > 1:
            learnt = learnt_from(kept, ", ".join(run["trained_on"]))
            notes.append(
                f"On other corpora {run['run']} is its kept model, one of {kept['n_trainings']} "
                f"trainings, {why_kept(kept)}; within its own it is all of them."
            )
            notes += [f"The kept model of {run['run']} {learnt}."] if learnt else []
    return notes
