"""The model card of a run: ``README.md``, as the Hugging Face Hub reads it.

Its metadata are YAML between two lines of dashes; JSON is YAML, so every value that comes
from data is written as JSON and cannot become anything else. A metric carries its protocol
in its name: an accuracy without one says nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from koser.files import write_atomically
from koser.reporting import figures, markdown
from koser.reporting.language import load_phrases
from koser.reporting.runs import RunFolder
from koser.reporting.sections import data, scores
from koser.reporting.sections.trust import checks
from koser.reporting.wording import SYNTHETIC, protocol_line

# Our name of a score: the hub's type of metric, and how it is called.
_METRICS = {
    "uar": ("recall", "UAR"),
    "accuracy": ("accuracy", "Accuracy"),
    "macro_f1": ("f1", "Macro-F1"),
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

_USE = """\
For research on speech emotion recognition, and as a start for systems that are tested on their
own data before they are used. What it gives are probabilities of how acted or conversational
speech would be labelled by listeners of this corpus, not what somebody feels. It is not meant
for decisions about people: not in hiring, schools, policing or medicine. In the European Union
the AI Act forbids inferring emotions at work and in education, but for medical or safety
reasons."""

_LICENSE = """\
A trained model falls under the terms of the corpus it was trained on, and those of AI Hub and
ETRI do not allow passing it on without their consent. Check them first, then replace `license`
above."""


def write_model_card(folder: Path) -> Path:
    """Write ``README.md`` from what a run left in its folder.

    Parameters
    ----------
    folder : Path
        A run folder in which every training is done.

    Returns
    -------
    Path
        The card.

    Raises
    ------
    RunError
        If a file of the run is missing.
    """
    run = RunFolder.read(folder)
    card = run.optional_json("data.json") or {}
    path = folder / "README.md"
    write_atomically(path, f"{_metadata(run, card)}\n{_body(run, card)}".encode())
    return path


def _metadata(run: RunFolder, card: Mapping[str, Any]) -> str:
    lines = ["---"]
    languages = card.get("languages") or []
    if languages:
        lines.append(f"language: {_json(languages)}")
    lines += [
        "license: other",
        "license_name: terms-of-the-corpus",
        "library_name: koser",
        "pipeline_tag: audio-classification",
    ]
    bases = [name for name in run.pretrained.values() if _HUB_ID.fullmatch(name)]
    if bases:
        lines.append(f"base_model: {_json(bases)}")
    tags = ["koser", "speech-emotion-recognition", "audio-classification"]
    if run.metrics["is_synthetic"]:
        tags.append("synthetic-data")
    lines += [f"tags: {_json(tags)}", f"metrics: {_json([kind for kind, _ in _METRICS.values()])}"]
    result = {
        "task": {"type": "audio-classification", "name": "Speech emotion recognition"},
        "dataset": _dataset(run, card),
        "metrics": _metrics(run.metrics),
    }
    index = [{"name": run.name, "results": [result]}]
    lines += [f"model-index: {_json(index)}", "---", ""]
    return "\n".join(lines)


def _dataset(run: RunFolder, card: Mapping[str, Any]) -> dict[str, Any]:
    corpus = ", ".join(card.get("corpora") or ["unknown"])
    protocol = run.metrics["protocol"]
    return {
        "type": corpus,
        "name": f"{corpus} ({SYNTHETIC})" if run.metrics["is_synthetic"] else corpus,
        "config": protocol["protocol"],
        "split": "test",
        "args": {"split_hash": protocol["hash"], "kept_apart": protocol["grouping"]},
    }


def _metrics(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    basis = protocol_line(metrics)
    found = []
    for name, (kind, title) in _METRICS.items():
        if metrics[name] is None:
            continue
        bounds = metrics["ci95"][name]
        interval = "" if bounds is None else f", 95 % [{bounds[0]:.4f}, {bounds[1]:.4f}]"
        found.append(
            {
                "type": kind,
                "value": round(metrics[name], 6),
                "name": f"{title} ({basis}{interval})",
            }
        )
    return found


def _body(run: RunFolder, card: Mapping[str, Any]) -> str:
    metrics, t = run.metrics, load_phrases("en")
    synthetic = f"**{SYNTHETIC}: {t['report.synthetic']}**\n\n" if metrics["is_synthetic"] else ""
    labels = ", ".join(markdown.escaped(label) for label in run.labels)
    made = [markdown.escaped(text) for text in (*metrics["notes"], *metrics["protocol"]["notes"])]
    limits = [
        f"{each.status}: {markdown.escaped(each.text)}"
        for each in checks(metrics, t)
        if each.status != "pass"
    ]
    sections = {
        "": f"{synthetic}{_summary(run)} It tells apart: {labels}.",
        "Use": _usage(run),
        "Intended use": _USE,
        "Results": "\n\n".join(
            [_score_table(metrics), protocol_line(metrics) + ".", _recall_table(metrics)]
        ),
        "Protocol": _fact_list(data.protocol_rows(metrics, t)),
        "Data": _fact_list(data.data_rows(card, t)) if card else "",
        "Limits": "\n".join(f"- {line}" for line in (*limits, *made)),
        "License": _LICENSE,
    }
    parts = [f"# {markdown.escaped(run.name)}"]
    for title, text in sections.items():
        if text:
            parts.append(f"## {title}\n\n{text}" if title else text)
    return "\n\n".join(parts) + "\n"


def _summary(run: RunFolder) -> str:
    return (
        f"Speech emotion recognition with koser's system `{run.model}`"
        + "".join(
            f", {markdown.escaped(kind)} {markdown.escaped(name)}"
            for kind, name in run.pretrained.items()
        )
        + "."
    )


def _usage(run: RunFolder) -> str:
    return (
        "```python\nimport koser\n\n"
        f'recognizer = koser.load_recognizer("best_model_{run.model}.pth")\n'
        'print(recognizer.predict_file("a.wav"))\n```\n\n'
        "A waveform is resampled to 16 kHz and mixed to mono."
    )


def _score_table(metrics: Mapping[str, Any]) -> str:
    made = scores.score_table(metrics, load_phrases("en"))
    if made is None:
        return ""
    return markdown.table([name for name, _ in made.head], made.rows)


def _recall_table(metrics: Mapping[str, Any]) -> str:
    rows = [
        [
            label,
            figures.score(metrics["recall"][label], metrics["ci95"]["recall"][label]),
            f"{sum(counts):,}",
        ]
        for label, counts in zip(metrics["labels"], metrics["confusion"], strict=True)
    ]
    return markdown.table(["Label", "Recall [95 %]", "Tested"], rows)


def _fact_list(rows: list[tuple[str, str]]) -> str:
    return "\n".join(
        f"- {markdown.escaped(name)}: {markdown.escaped(value)}" for name, value in rows
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
