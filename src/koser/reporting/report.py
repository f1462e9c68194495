"""The report of a run: one HTML file that needs nothing else, in Korean or in English."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koser.errors import RunError
from koser.files import write_atomically
from koser.reporting import robustness
from koser.reporting.ablations import ablation_notes
from koser.reporting.audit_page import audit_context
from koser.reporting.language import Language, Phrases, load_phrases
from koser.reporting.pages import render_page
from koser.reporting.runs import RunFolder
from koser.reporting.sections import data, evidence, mistakes, quality, scores, training, trust
from koser.reporting.wording import SYNTHETIC


@dataclass(frozen=True)
class ReportOptions:
    """How a report is written.

    Attributes
    ----------
    language : {'ko', 'en'}
        Its language.
    n_clips : int
        How many of the worst mistakes can be heard in it. None by default: the terms of
        most corpora (AI Hub's and ETRI's among them) forbid passing sound on, and a
        report is easily mailed.
    """

    language: Language = "ko"
    n_clips: int = 0


def write_report(
    folder: Path, options: ReportOptions | None = None, *, path: Path | None = None
) -> Path:
    """Write the report of the run in `folder` from what it left there.

    Parameters
    ----------
    folder : Path
        A run folder in which every training is done.
    options : ReportOptions, optional
        Language and clips.
    path : Path, optional
        Where to; by default ``report.html`` in the folder.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    RunError
        If a file of the run is missing, or `path` cannot be written.
    """
    options = options or ReportOptions()
    run, t = RunFolder.read(folder), load_phrases(options.language)
    html = render_page("report.html.jinja", t, _context(run, t, options))
    path = path or folder / "report.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, html.encode())
    except OSError as error:
        raise RunError(f"Cannot write the report '{path}': {error.strerror}.") from error
    return path


def _context(run: RunFolder, t: Phrases, options: ReportOptions) -> dict[str, Any]:
    metrics = run.metrics
    history, card = run.optional_json("history.json"), run.optional_json("data.json")
    return {
        "name": run.name,
        "title": run.title,
        "synthetic": SYNTHETIC if metrics["is_synthetic"] else "",
        "protocol_line": scores.protocol_line(metrics, t),
        "metrics": metrics,
        "checks": trust.checks(metrics, t),
        "score_table": scores.score_table(metrics, t),
        "interval_basis": _interval_basis(metrics, t),
        "notes": t.notes(metrics["notes"]),
        "recall_plot": scores.recall_plot(metrics, t),
        "confusion": scores.confusion_matrix(metrics, t),
        "most_confused": scores.most_confused(metrics, t),
        "fold_table": scores.fold_table(metrics, t),
        "learning_curves": training.learning_curves(history, t) if history else [],
        "protocol_rows": data.protocol_rows(metrics, t),
        "protocol_notes": t.notes(metrics["protocol"]["notes"]),
        "shared": data.shared_table(metrics, t),
        "data_rows": data.data_rows(card, t) if card else [],
        "part_table": data.part_table(card, t) if card else None,
        "data_notes": t.notes(card["notes"]) if card else [],
        "mistakes": mistakes.worst_mistakes(run.predictions, t, n_clips=options.n_clips),
        "n_clips": options.n_clips,
        "evidence": evidence.evidence_of(run.optional_json(evidence.EXPLANATIONS), t),
        "gap_table": scores.gap_table(run.optional_json("gap.json"), metrics, t),
        "ablations": scores.ablation_table(metrics, t),
        "ablation_notes": ablation_notes(metrics, t),
        "probes": quality.probe_table(metrics, t),
        **_quality(metrics, t),
        **_audit(run, t),
        **_robustness(run, t),
        "stacking_table": training.stacking_table(metrics, t),
        "tuning_table": training.tuning_table(metrics, t),
        "tuning_caption": training.tuning_caption(metrics, t),
        "cost_rows": training.cost_rows(metrics, t),
        "command": shlex.join(run.description["command"]),
        "config": _config(run.folder),
        "features": data.fact_rows(metrics.get("features", {}), t),
        "environment": data.flat_rows(run.description["environment"]),
    }


def _quality(metrics: Mapping[str, Any], t: Phrases) -> dict[str, Any]:
    """Calibration, selective answers, subgroups and raters; what a run lacks is empty."""
    calibration, selective = metrics.get("calibration"), metrics.get("selective")
    subgroups = metrics.get("subgroups", {})
    return {
        "reliability_plots": quality.reliability_plots(calibration, t) if calibration else [],
        "calibration_table": quality.calibration_table(calibration, t) if calibration else None,
        "temperature": quality.temperature_line(calibration, t) if calibration else "",
        "calibration_notes": t.notes(calibration["notes"]) if calibration else [],
        "coverage_plot": quality.coverage_plot(selective, metrics, t) if selective else "",
        "thresholds": quality.threshold_table(selective, t) if selective else None,
        "subgroups": quality.subgroup_tables(subgroups, t),
        "raters": quality.rater_rows(metrics.get("raters"), t),
        "rater_notes": t.notes(quality.rater_notes(metrics.get("raters"))),
        "votes": quality.vote_table(metrics.get("votes"), t),
        "vote_line": quality.vote_line(metrics.get("votes"), t),
        "vote_notes": t.notes((metrics.get("votes") or {}).get("notes", ())),
    }


def _audit(run: RunFolder, t: Phrases) -> dict[str, Any]:
    """The audit of the data, and the canaries of the pipeline, where there are any."""
    audit, canaries = run.optional_json("audit.json"), run.optional_json("canaries.json")
    context: dict[str, Any] = {"has_audit": audit is not None}
    if audit is not None:
        found = audit_context(audit, t)
        context.update({key: value for key, value in found.items() if key.startswith("audit_")})
    context["canaries"] = trust.canary_checks(canaries, t) if canaries else []
    return context


def _robustness(run: RunFolder, t: Phrases) -> dict[str, Any]:
    """What degraded sound costs, where it was tried; what a run lacks is empty."""
    values = run.optional_json("robustness.json")
    return {
        "robustness_table": robustness.robustness_table(values, t),
        "robustness_forest": robustness.robustness_forest(values, t),
        "robustness_basis": robustness.robustness_basis(values, t),
        "robustness_notes": robustness.robustness_notes(values, t),
    }


def _interval_basis(metrics: Mapping[str, Any], t: Phrases) -> str:
    method = metrics["interval_method"]
    if method is None:
        return str(t["scores.no_intervals"])
    kind = t.named("clusters", metrics["cluster_kind"] or "speaker")
    text: str = t["scores.intervals"].format(kind=kind, method=t.named("methods", method))
    return text


def _config(folder: Path) -> str:
    path = folder / "config.toml"
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"Cannot read '{path}' for the report: {error.strerror}.") from error
