"""The report of a run: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from koser.errors import RunError
from koser.files import write_atomically
from koser.labels import KOREAN
from koser.reporting.ablations import ablation_rows
from koser.reporting.wording import SYNTHETIC, protocol_line, score_with_interval

_SCORES = {
    "uar": "UAR · 비가중 평균 재현율",
    "accuracy": "Accuracy · 정확도",
    "macro_f1": "Macro-F1 · 매크로 F1",
    "nll": "NLL (nats) · 음의 로그우도",
    "ece": "ECE · 보정 오차",
}


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from what a run left in its folder.

    Parameters
    ----------
    folder : Path
        A finished run folder.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    RunError
        If a file of the run is missing.
    """
    run = _read_json(folder / "run.json")
    metrics = _read_json(folder / "metrics.json")
    name = run["name"]
    environment = Environment(
        loader=PackageLoader("koser.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.jinja").render(
        name=name,
        synthetic=SYNTHETIC if metrics["is_synthetic"] else "",
        protocol_line=protocol_line(metrics),
        scores=[(title, score_with_interval(metrics, key)) for key, title in _SCORES.items()],
        recalls=_recalls(metrics),
        ablations=ablation_rows(metrics),
        metrics=metrics,
        run=run,
        left_out=_left_out(run["manifest"]),
        features=list(_flat(metrics.get("features", {}))),
        config=(folder / "config.toml").read_text(encoding="utf-8"),
        confusion=_image(folder / f"confusion_matrix_{name}.png"),
        history=_image(folder / f"training_history_{name}.png"),
    )
    path = folder / "report.html"
    write_atomically(path, html.encode())
    return path


def _recalls(metrics: dict[str, Any]) -> list[tuple[str, str, int]]:
    rows = []
    for label, counts in zip(metrics["labels"], metrics["confusion"], strict=True):
        value, bounds = metrics["recall"][label], metrics["ci95"]["recall"][label]
        text = "absent · 없음" if value is None else f"{value:.3f}"
        if bounds is not None:
            text += f" [{bounds[0]:.3f}, {bounds[1]:.3f}]"
        rows.append((f"{label} · {KOREAN[label]}" if label in KOREAN else label, text, sum(counts)))
    return rows


def _left_out(provenance: dict[str, Any]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in provenance["left_out"]:
        counts[row["reason"]] = counts.get(row["reason"], 0) + 1
    return counts


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and values of nested `values`, in their order."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "–" if value is None else str(value)


def _image(path: Path) -> str:
    try:
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise RunError(f"Cannot read '{path}' for the report: {error.strerror}.") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise RunError(f"Cannot read '{path}' for the report: {error}.") from error
    return values
