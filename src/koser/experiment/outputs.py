"""What a finished run leaves in its folder, for programs and for people.

Everything that is read later stands in files of its own: a report can be made again in
another language, and runs can be compared, without the corpus or the features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koser.data.card import data_card
from koser.data.sealing import write_table
from koser.experiment.audit import baselines_of
from koser.experiment.cost import measure_model
from koser.experiment.results import Results, document_json, metrics_json
from koser.features.extraction import clips_of
from koser.files import copy_atomically, replacing, write_json
from koser.hashes import SUMS, write_sums
from koser.reporting.model_card import write_model_card
from koser.reporting.plots import plot_confusion_matrix, plot_training_history
from koser.reporting.report import ReportOptions, write_report
from koser.reporting.wording import headline

if TYPE_CHECKING:
    from koser.experiment.run import Experiment

# Written into a finished run's folder, and again whenever they are asked for.
_LATER = ("canaries.json", "gap.json", "robustness.json", "robustness.parquet")


def write_outputs(
    experiment: Experiment,
    results: Results,
    folder: Path,
    *,
    beside: Mapping[str, Any],
    extraction_seconds: float,
    report: ReportOptions,
) -> dict[str, Any]:
    """Write predictions, scores, the document's files, the model, its card and the report.

    Parameters
    ----------
    experiment : Experiment
        What was tried.
    results : Results
        What it came to.
    folder : Path
        The run folder.
    beside : Mapping
        What ``metrics.json`` tells beside the scores: ablations, or the choices of settings.
    extraction_seconds : float
        What the features took; what the store had already took nothing.
    report : ReportOptions
        Language and clips of the report.

    Returns
    -------
    dict
        The content of ``metrics.json``.
    """
    manifest, split = experiment.manifest, experiment.split
    # Of a run that was killed just before its report; what they vouch for is written anew.
    (folder / SUMS).unlink(missing_ok=True)
    with replacing(folder / "predictions.parquet") as partial:
        write_table(results.predictions, partial)
    model_file = folder / f"best_model_{experiment.model}.pth"
    copy_atomically(folder / "parts" / results.chosen.member.name / model_file.name, model_file)
    metrics = metrics_json(results, manifest, split) | dict(beside)
    metrics["notes"] += [] if experiment.start is None else [experiment.start.note(manifest.labels)]
    metrics["probes"] = baselines_of(folder)
    metrics["cost"] = _cost(results, model_file, extraction_seconds)
    write_json(metrics, folder / "metrics.json")
    # The document's keys go first; ours are the same as in metrics.json.
    document = document_json(experiment.model, results, manifest, split)
    write_json({**document, **metrics}, folder / f"results_{experiment.name}.json")
    write_json(_history(results), folder / "history.json")
    write_json(data_card(manifest, split), folder / "data.json")
    _plot(experiment, results, metrics, folder)
    write_model_card(folder)
    write_sums(folder, kept_files(folder))
    write_report(folder, report)
    return metrics


def kept_files(folder: Path) -> list[str]:
    """Names of the files of a run folder that programs read, and nobody is to change."""
    patterns = ("*.pth", "*.json", "*.parquet", "config.toml")
    found = (path.name for pattern in patterns for path in folder.glob(pattern))
    return [name for name in found if name not in _LATER]


def _cost(results: Results, model_file: Path, extraction_seconds: float) -> dict[str, Any]:
    outcomes = results.outcomes
    gpu = [outcome.memory.gpu for outcome in outcomes if outcome.memory.gpu is not None]
    return {
        **measure_model(model_file, clips_of(results.predictions.head(64))),
        "n_trainings": len(outcomes),
        "train_seconds": sum(outcome.train_seconds for outcome in outcomes),
        "test_seconds": sum(outcome.predict_seconds for outcome in outcomes),
        "extraction_seconds": extraction_seconds,
        "peak_memory_mb": max(outcome.memory.process for outcome in outcomes),
        "gpu_peak_memory_mb": max(gpu) if gpu else None,
    }


def _history(results: Results) -> dict[str, Any]:
    return {
        outcome.member.name: {
            "best_epoch": outcome.fit.best_epoch,
            "epochs": [asdict(record) for record in outcome.fit.history],
        }
        for outcome in results.outcomes
    }


def _plot(experiment: Experiment, results: Results, metrics: dict[str, Any], folder: Path) -> None:
    is_synthetic = experiment.manifest.provenance.is_synthetic
    subtitle = "\n".join([headline(metrics), *metrics["notes"]])
    plot_training_history(
        {outcome.member.name: outcome.fit.history for outcome in results.outcomes},
        chosen_epoch={each.member.name: each.fit.best_epoch for each in results.outcomes},
        path=folder / f"training_history_{experiment.name}.png",
        title=experiment.name,
        subtitle=subtitle,
        is_synthetic=is_synthetic,
    )
    plot_confusion_matrix(
        results.evaluation.confusion,
        folder / f"confusion_matrix_{experiment.name}.png",
        labels=experiment.manifest.labels,
        title=experiment.name,
        subtitle=subtitle,
        is_synthetic=is_synthetic,
    )
