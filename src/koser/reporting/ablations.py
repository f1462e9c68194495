"""A system's ablations as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from koser.reporting.language import Phrases
from koser.reporting.noted import notes_with_places
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


def ablation_notes(metrics: Mapping[str, Any], t: Phrases) -> list[tuple[str, str]]:
    """What belongs beside the differences and not beside the scores too; as `Phrases.notes`."""
    noted = [
        (
            t.named("ablations.values", name),
            # Runs of earlier versions keep none.
            [
                each
                for each in scores["difference"].get("notes", ())
                if each not in metrics["notes"]
            ],
        )
        for name, scores in metrics.get("ablations", {}).items()
    ]
    return notes_with_places(noted, t)


def _gap(difference: Mapping[str, Any]) -> str:
    gap, bounds = difference["uar"], difference["ci95"]["uar"]
    text = "undefined" if gap is None else f"{gap:+.3f}"
    return text if bounds is None else f"{text} [{bounds[0]:+.3f}, {bounds[1]:+.3f}]"
