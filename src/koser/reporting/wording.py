"""One sentence for a result: the score, its interval, and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SYNTHETIC = "SYNTHETIC DATA · 합성 데이터"


def score_with_interval(metrics: Mapping[str, Any], name: str, *, percent: bool = False) -> str:
    """A score and its 95 % interval, as in ``.612 [.540, .683]`` or ``61.2 % [54.0, 68.3]``.

    Parameters
    ----------
    metrics : Mapping
        The content of ``metrics.json``.
    name : str
        Which score.
    percent : bool
        Whether to print in percent.
    """
    value, bounds = metrics[name], metrics["ci95"][name]
    if value is None:
        return "undefined"
    scale, digits, unit = (100.0, 1, " %") if percent else (1.0, 3, "")
    text = f"{value * scale:.{digits}f}{unit}"
    if bounds is None:
        return text
    return f"{text} [{bounds[0] * scale:.{digits}f}, {bounds[1] * scale:.{digits}f}]"


def protocol_line(metrics: Mapping[str, Any]) -> str:
    """What a score rests on: protocol, grouping, n, speakers, folds, seeds."""
    protocol = metrics["protocol"]
    n_speakers, kind = metrics["n_speakers"], metrics["cluster_kind"]
    if n_speakers is None:
        speakers = "speakers unknown"
    else:
        speakers = f"{n_speakers} speakers" if kind == "speaker" else f"{n_speakers} × {kind}"
    n_folds = protocol["n_folds"]
    return ", ".join(
        [
            f"split {protocol['protocol']}",
            f"n = {metrics['n']}",
            speakers,
            f"{n_folds} folds" if n_folds > 1 else "one split",
            f"seeds {', '.join(str(seed) for seed in metrics['seeds'])}",
        ]
    )


def headline(metrics: Mapping[str, Any]) -> str:
    """UAR and accuracy with intervals, and what they rest on, in one line."""
    scores = (
        f"UAR {score_with_interval(metrics, 'uar')}, "
        f"accuracy {score_with_interval(metrics, 'accuracy')}"
    )
    mark = f"{SYNTHETIC}: " if metrics["is_synthetic"] else ""
    return f"{mark}{scores} ({protocol_line(metrics)})"
