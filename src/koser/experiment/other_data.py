"""A finished run tested on other data: another corpus, another microphone, other labels.

What is left is a folder like that of a run, so that it is reported and compared like one.
Its split has a single part, test.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from koser.data.card import data_card
from koser.data.leakage import Leak
from koser.data.manifest import LeftOut, Manifest
from koser.data.sealing import write_table
from koser.data.splits import SCHEMA, Split, SplitOptions
from koser.errors import AudioError, LabelError
from koser.evaluation.calibration import apply_temperature
from koser.evaluation.scoring import Evaluation, evaluate, majority_accuracy
from koser.experiment.analysis import Chosen, Tested, analyse
from koser.experiment.cost import measure_model
from koser.experiment.environment import describe_environment
from koser.experiment.folder import refuse_full
from koser.experiment.kept_model import describe_kept, learnt_from, load_kept, why_kept
from koser.experiment.outputs import kept_files
from koser.experiment.results import prediction_table
from koser.experiment.starting import learnt_before
from koser.features.extraction import clips_of
from koser.files import copy_atomically, replacing, write_json
from koser.hashes import write_sums
from koser.inference.prediction import Failure
from koser.inference.recognizer import Recognizer
from koser.models.checkpoint import find_checkpoint
from koser.reporting.plots import plot_confusion_matrix
from koser.reporting.report import ReportOptions, write_report
from koser.reporting.runs import RunFolder, read_json
from koser.reporting.wording import headline
from koser.storage.places import Place, name_of

PROTOCOL = "other_data"
_KINDS = ("utterance", "speaker", "group", "script")
_UNKNOWN_LABEL = "a label that the run lacks"

OnClip = Callable[[int, int], None]


@dataclass(frozen=True)
class EvaluateRequest:
    """What is to be tested on what.

    Attributes
    ----------
    run : Path
        Folder of a finished run; its kept model is tested.
    manifest : Place
        The utterances.
    places : Mapping[str, str]
        Where pretrained models are now, if they were moved: ``encoder``, ``whisper``,
        ``text_model``.
    restrict : bool
        Let the model answer only labels that the data has: the probabilities of the
        others go to these, in proportion.
    command : tuple[str, ...]
        The command line, for the record.
    report : ReportOptions
        How the report is written.
    """

    run: Path
    manifest: Place
    places: Mapping[str, str] = field(default_factory=dict)
    restrict: bool = False
    command: tuple[str, ...] = ()
    report: ReportOptions = field(default_factory=ReportOptions)

    @property
    def name(self) -> str:
        """What the result is called."""
        return f"{self.run.resolve().name}_on_{name_of(self.manifest).stem}"


def evaluate_run(
    request: EvaluateRequest,
    out: Path,
    *,
    store_root: Path | None = None,
    on_clip: OnClip | None = None,
) -> dict[str, Any]:
    """Recognise every utterance of a manifest with a run's model, and score the answers.

    Utterances whose label the run lacks cannot be recognised. They are left out of the
    scores and reported, by label. Labels that only the run has stay possible answers,
    always wrong ones, unless `restrict` takes them away.

    Parameters
    ----------
    request : EvaluateRequest
        What to test.
    out : Path
        Folder of the result; new or empty.
    store_root : Path, optional
        Folder of the stores, where what Whisper hears is then kept.
    on_clip : Callable, optional
        Told how many utterances are done, and of how many.

    Returns
    -------
    dict
        The content of ``metrics.json``.

    Raises
    ------
    RunError
        If the run is none, or `out` is taken.
    LabelError
        If no utterance carries a label of the run.
    AudioError
        If files cannot be read.
    """
    refuse_full(out)
    run = RunFolder.read(request.run)
    recognizer = load_kept(run, places=request.places, store_root=store_root)
    whole = Manifest.read(request.manifest)
    manifest = _known_rows(whole, recognizer.labels)
    probabilities = recognise_rows(recognizer, manifest.table, on_clip)
    if request.restrict:
        probabilities = _restricted(probabilities, manifest)
    split = _as_split(manifest)
    seed = int(str(recognizer.origin.get("seed", run.metrics["seeds"][0])))
    predictions = prediction_table(manifest, probabilities, seed=seed)
    column = manifest.grouping_column
    clusters = None if column is None else manifest.table[column].to_numpy()
    evaluation = evaluate(
        manifest.table["label"].to_numpy(),
        probabilities,
        labels=manifest.labels,
        clusters=clusters,
        cluster_kind=manifest.provenance.grouping,
    )
    kept = describe_kept(run, recognizer.origin)
    notes = _notes(request, run, whole, manifest, kept)
    chosen = Chosen.by(recognizer.origin, len(manifest))
    # The inverse of the model's own temperature: what the network gives.
    raw = apply_temperature(probabilities, 1 / chosen.temperature.value)
    tested = Tested(manifest, predictions, raw, probabilities, clusters, [chosen])
    metrics = _metrics(evaluation, run, manifest, split, notes)
    metrics["kept_model"] = kept
    metrics.update(analyse(tested, evaluation))
    metrics["cost"] = measure_model(
        find_checkpoint(request.run), clips_of(manifest.table.head(64)), places=request.places
    )
    out.mkdir(parents=True, exist_ok=True)
    _write(request, run, out, predictions=predictions, metrics=metrics)
    split.write(out / "split.parquet")
    write_json(data_card(manifest, split), out / "data.json")
    _write_description(request, run, manifest, split, out)
    write_sums(out, kept_files(out))
    write_report(out, request.report)
    return metrics


def _known_rows(manifest: Manifest, labels: Sequence[str]) -> Manifest:
    """The rows that the run can get right; the others are left out, and named."""
    is_known = manifest.table["label"].is_in(list(labels))
    unknown = manifest.table.filter(~is_known)
    if not is_known.any():
        raise LabelError(
            f"None of the {len(manifest)} utterances carries a label of the run: it knows "
            f"{', '.join(labels)}, the data {', '.join(manifest.labels)}."
        )
    left_out = tuple(
        LeftOut(name, _UNKNOWN_LABEL, label)
        for name, label in unknown.select("id", "label").iter_rows()
    )
    provenance = manifest.provenance
    # Shares of other labels would be no distribution over these.
    table = manifest.table.filter(is_known).with_columns(
        pl.lit(None, manifest.table.schema["distribution"]).alias("distribution")
    )
    return Manifest(
        table,
        replace(provenance, labels=tuple(labels), left_out=(*provenance.left_out, *left_out)),
    ).validate()


def recognise_rows(
    recognizer: Recognizer, table: pl.DataFrame, on_clip: OnClip | None
) -> np.ndarray:
    """Probabilities of utterances, in the order of the rows [shape=(n_rows, n_labels)].

    Parameters
    ----------
    recognizer : Recognizer
        The model.
    table : pl.DataFrame
        Rows of a manifest.
    on_clip : Callable or None
        Told how many are done, and of how many.

    Raises
    ------
    AudioError
        If files cannot be read.
    """
    probabilities = np.zeros((table.height, len(recognizer.labels)))
    failures = []
    for row, result in enumerate(recognizer.iter_clips(clips_of(table))):
        if isinstance(result, Failure):
            failures.append(result.error)
        else:
            probabilities[row] = [result.probabilities[label] for label in recognizer.labels]
        if on_clip is not None:
            on_clip(row + 1, table.height)
    if failures:
        raise AudioError(
            f"{len(failures)} of {table.height} audio files cannot be read. Repair them or run "
            f"`koser prepare` again, which leaves them out and says so. "
            f"The first: {' | '.join(failures[:5])}"
        )
    return probabilities


def _restricted(probabilities: np.ndarray, manifest: Manifest) -> np.ndarray:
    present = set(manifest.table["label"].unique())
    is_kept = np.array([label in present for label in manifest.labels])
    # So small a floor decides only where a model gave all it has to labels that are not there.
    kept: np.ndarray = (probabilities + 1e-12) * is_kept
    shares: np.ndarray = kept / kept.sum(axis=1, keepdims=True)
    return shares


def _as_split(manifest: Manifest) -> Split:
    rows = {"id": manifest.table["id"], "fold": 0, "part": "test"}
    table = pl.DataFrame(rows, schema=SCHEMA)
    return Split(table, PROTOCOL, "corpus", SplitOptions())


def _metrics(
    evaluation: Evaluation, run: RunFolder, manifest: Manifest, split: Split, notes: list[str]
) -> dict[str, Any]:
    learnt = _learnt_ids(run)
    protocol = {**split.describe(), "options": {}, "seed": None, "notes": notes}
    scores = evaluation.scores
    trained_on = read_json(run.folder / "data.json")
    if learnt_before(run.description).isdisjoint(manifest.table["corpus"]):
        leaks = _leaks(manifest, learnt, same_corpus=_is_same_corpus(manifest, trained_on))
    else:  # of the model that it started from nothing is beside it
        leaks = [Leak(kind, None) for kind in _KINDS]
    y_train = [
        label
        for part in trained_on["parts"]
        if part["part"] == "train"
        for label, n in part["per_label"].items()
        for _ in range(round(n))
    ]
    return {
        **evaluation.to_dict(),
        "majority_accuracy": majority_accuracy(y_train, manifest.table["label"].to_numpy()),
        "best_val_accuracy": run.metrics["best_val_accuracy"],
        "seeds": run.metrics["seeds"][:1],
        "over_seeds": {
            name: {"mean": scores[name].value, "sd": None}
            for name in ("accuracy", "uar", "macro_f1")
        },
        "folds": [],
        "protocol": protocol,
        "shared": {f"{leak.kind}s": leak.describe() for leak in leaks},
        "leaks": [asdict(leak) for leak in leaks],
        "features": run.metrics["features"],
        "is_synthetic": manifest.provenance.is_synthetic or run.metrics["is_synthetic"],
    }


def _learnt_ids(run: RunFolder) -> set[str]:
    table = Split.read(run.folder / "split.parquet").table
    learnt = set(table.filter(pl.col("part").is_in(["train", "val"]))["id"])
    corpora = read_json(run.folder / "data.json")["corpora"]
    if len(corpora) > 1:  # ids then have their corpus in front
        learnt |= {name.removeprefix(f"{corpus}/") for corpus in corpora for name in learnt}
    return learnt


def _is_same_corpus(manifest: Manifest, trained_on: dict[str, Any]) -> bool:
    return bool(set(manifest.table["corpus"].unique()) & set(trained_on["corpora"]))


def _leaks(manifest: Manifest, learnt: set[str], *, same_corpus: bool) -> list[Leak]:
    """What was learnt from too, where the data are of the run's own corpus.

    Equal ids in two corpora say nothing. Whether two corpora share a person or a sentence
    is not known here.
    """
    if not same_corpus:
        return [Leak("utterance", 0), *(Leak(kind, None) for kind in _KINDS[1:])]
    is_learnt = manifest.table["id"].is_in(list(learnt))
    leaks = [Leak("utterance", int(is_learnt.sum()), int(is_learnt.sum()))]
    for kind, column in (("speaker", "speaker"), ("group", "group"), ("script", "text")):
        values = manifest.table[column]
        if values.null_count() == len(values):
            leaks.append(Leak(kind, None))
            continue
        shared = values.filter(is_learnt).drop_nulls().unique()
        n_tested = int(values.is_in(shared.to_list()).sum())
        leaks.append(Leak(kind, len(shared), n_tested))
    return leaks


def _notes(
    request: EvaluateRequest,
    run: RunFolder,
    whole: Manifest,
    manifest: Manifest,
    kept: dict[str, Any],
) -> list[str]:
    corpora = ", ".join(read_json(run.folder / "data.json")["corpora"])
    trained = run.metrics["protocol"]
    notes = [
        f"The model was trained on {corpora} under the protocol {trained['protocol']} "
        f"(split {trained['hash'][:8]})."
    ]
    before = learnt_before(run.description)
    if before:
        shared = sorted(before & set(manifest.table["corpus"]))
        known = f" It may know utterances of {', '.join(shared)} that it is tested on here."
        notes.append(
            f"It started from a model that was trained on {', '.join(sorted(before))}."
            + (known if shared else "")
        )
    if kept["n_trainings"] > 1:
        notes.append(
            f"It is one of {kept['n_trainings']} trainings, {why_kept(kept)}: fold {kept['fold']}, "
            f"seed {kept['seed']}."
        )
    learnt = learnt_from(kept, corpora)
    notes += [f"It {learnt}."] if learnt else []
    unknown = Counter(
        row.detail for row in manifest.provenance.left_out if row.reason == _UNKNOWN_LABEL
    )
    if unknown:
        counts = ", ".join(f"{label} {n}" for label, n in unknown.most_common())
        notes.append(
            f"{sum(unknown.values())} of {len(whole)} utterances carry labels that the run lacks, "
            f"and are not scored: {counts}."
        )
    if request.restrict:
        notes.append("The model was allowed to answer only labels that the data has.")
    return notes


def _write(
    request: EvaluateRequest,
    run: RunFolder,
    out: Path,
    *,
    predictions: pl.DataFrame,
    metrics: dict[str, Any],
) -> None:
    with replacing(out / "predictions.parquet") as partial:
        write_table(predictions, partial)
    write_json(metrics, out / "metrics.json")
    copy_atomically(run.folder / "config.toml", out / "config.toml")
    plot_confusion_matrix(
        np.array(metrics["confusion"]),
        out / f"confusion_matrix_{run.model}_{PROTOCOL}.png",
        labels=metrics["labels"],
        title=request.name,
        subtitle="\n".join([headline(metrics), *metrics["protocol"]["notes"]]),
        is_synthetic=metrics["is_synthetic"],
    )


def _write_description(
    request: EvaluateRequest, run: RunFolder, manifest: Manifest, split: Split, out: Path
) -> None:
    trained = run.description["experiment"]
    description = {
        "name": request.name,
        "experiment": {
            **trained,
            "split": split.describe(),
            "trained": {"run": run.folder.resolve().name, "split": trained["split"]},
        },
        "manifest": json.loads(manifest.provenance.to_json()),
        "command": list(request.command),
        "environment": describe_environment(),
    }
    write_json(description, out / "run.json")
