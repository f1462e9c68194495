"""A system's ablations as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from koser.reporting.wording import score_with_interval


def ablation_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """The system and each of its ablations: name, UAR, accuracy, and what the rest adds.

    Parameters
    ----------
    metrics : Mapping
        The content of ``metrics.json``.

    Returns
    -------
    list[tuple[str, str, str, str]]
        Scores with intervals; the last is how much higher the system's UAR is. No rows for a
        system without ablations.
    """
    found = metrics.get("ablations", {})
    if not found:
        return []
    named = {"the system": metrics, **found}
    rows = []
    for name, scores in named.items():
        gap = _gap(scores["difference"]) if "difference" in scores else ""
        uar, accuracy = (score_with_interval(scores, score) for score in ("uar", "accuracy"))
        rows.append((name, uar, accuracy, gap))
    return rows


def _gap(difference: Mapping[str, Any]) -> str:
    gap, bounds = difference["uar"], difference["ci95"]["uar"]
    text = "undefined" if gap is None else f"{gap:+.3f}"
    return text if bounds is None else f"{text} [{bounds[0]:+.3f}, {bounds[1]:+.3f}]"
