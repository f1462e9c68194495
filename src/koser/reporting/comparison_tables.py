"""A comparison as tables: for the terminal, as Markdown, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from koser.evaluation.comparison import Comparison
from koser.reporting import figures, markdown
from koser.reporting.comparison import ComparedRun, RunComparison, shared_pretrained
from koser.reporting.language import Phrases
from koser.reporting.noted import notes_with_places
from koser.reporting.sections.scores import protocol_line
from koser.reporting.sections.tables import Table, make_table
from koser.reporting.wording import SYNTHETIC

_DIFFERENCES = ("accuracy", "uar", "macro_f1")
_NOTHING: Mapping[str, Any] = {}
# Kinds of leaks, and what one of them is called.
_LEAKS = {
    "utterance": "utterances",
    "speaker": "speakers",
    "session": "sessions",
    "script": "sentences",
}


def result_table(comparison: RunComparison, t: Phrases) -> Table | None:
    """The document's results table, with intervals, tests, UAR and macro-F1."""
    rows = [
        [str(number), row.title, *_scores(row), *_against_baseline(row, t)]
        for number, row in enumerate(comparison.rows, start=1)
    ]
    heads = ["number", "model", "test_accuracy", "best_val"]
    heads += ["uar_difference", "macro_f1_difference", "vs_baseline", "p"]
    table = make_table([t[f"compare.{name}"] for name in heads], rows, n_text=2)
    if table is None or not comparison.is_mixed:
        return table
    return Table(
        (*table.head, (t["compare.basis"], False)),
        tuple(
            (*cells, _basis(row, t)) for cells, row in zip(table.rows, comparison.rows, strict=True)
        ),
    )


def cost_table(comparison: RunComparison, t: Phrases) -> Table | None:
    """What every system costs."""
    rows = []
    for row in comparison.rows:
        cost = row.run.metrics.get("cost", _NOTHING)
        factor = cost.get("real_time_factor")
        memory = cost.get("gpu_peak_memory_mb") or cost.get("peak_memory_mb")
        rows.append(
            [
                row.title,
                figures.parameters(cost),
                figures.magnitude(cost.get("n_trained_parameters")),
                figures.span(cost.get("train_seconds")),
                figures.MISSING if factor is None else f"{factor:.4f}",
                figures.megabytes(memory),
            ]
        )
    heads = ("model", "parameters", "trained", "train_time", "speed", "memory")
    return make_table([t[f"compare.{name}"] for name in heads], rows)


def pair_table(comparison: RunComparison, t: Phrases) -> Table | None:
    """Every two systems: differences with intervals, and how likely they are by chance."""
    rows = [
        [
            _pair_name(pair),
            *(
                figures.points(pair.differences[name].value, pair.differences[name].bounds)
                for name in _DIFFERENCES
            ),
            figures.p_value(pair.p_adjusted["accuracy"]),
            figures.p_value(pair.p_adjusted["uar"]),
            figures.p_value(pair.mcnemar.p_exact if pair.mcnemar else None),
        ]
        for pair in comparison.pairs
    ]
    heads = ["pair", *(f"{name}_difference" for name in _DIFFERENCES), "p_accuracy", "p_uar"]
    return make_table([t[f"compare.{name}"] for name in (*heads, "mcnemar")], rows)


def pairs_basis(comparison: RunComparison, t: Phrases) -> str:
    """What intervals and p-values of the pairs are, in one paragraph."""
    tested = [pair for pair in comparison.pairs if pair.n_permutations]
    if not tested:
        return str(t["compare.no_tests"])
    kind = t.named("clusters", tested[0].cluster_kind or "speaker")
    methods = [pair.interval_method for pair in tested if pair.interval_method]
    method = t.named("methods", methods[0]) if methods else t["compare.no_intervals"]
    text: str = t["compare.pairs_basis"].format(kind=kind, n=len(comparison.pairs), method=method)
    return text


def shared_basis(comparison: RunComparison, t: Phrases) -> str:
    """What the scores rest on, and which pretrained models, where it is the same for all."""
    basis = protocol_line(comparison.baseline.run.metrics, t)
    parts = [t["compare.mixed_caption"] if comparison.is_mixed else basis]
    for kind, name in shared_pretrained([row.run for row in comparison.rows]).items():
        parts.append(f"{t.named('pretrained', kind)} {Path(name).name}")
    return " · ".join(parts)


def comparison_notes(comparison: RunComparison, t: Phrases) -> list[tuple[str, str]]:
    """What belongs beside the numbers, and beside which; first what test shares with train.

    Each comes with its language, as from `Phrases.notes`.
    """
    leaks = [(row.title, list(_leaks(row.run.metrics))) for row in comparison.rows]
    runs = [(row.title, row.run.metrics["notes"]) for row in comparison.rows]
    pairs = [(_pair_name(pair), pair.notes) for pair in comparison.pairs]
    found = [note for noted in (leaks, runs, pairs) for note in notes_with_places(noted, t)]
    return list(dict.fromkeys(found))


def _leaks(metrics: Mapping[str, Any]) -> Iterator[str]:
    for leak in metrics.get("leaks", ()):
        if leak["n_shared"] and leak["kind"] in _LEAKS:
            yield (
                f"Test shares {leak['n_shared']:,} {_LEAKS[leak['kind']]} with train and val "
                f"({leak['n_utterances']:,} test utterances in one fold): a system that remembers "
                f"them scores better than it would on new ones."
            )


def as_markdown(comparison: RunComparison, t: Phrases) -> str:
    """The whole comparison as Markdown."""
    parts = [f"# {t['compare.heading']}"]
    if comparison.is_synthetic:
        parts.append(f"**{SYNTHETIC}: {t['report.synthetic']}**")
    for table, caption, n_text in (
        (result_table(comparison, t), shared_basis(comparison, t), 2),
        (pair_table(comparison, t), pairs_basis(comparison, t), 1),
        (cost_table(comparison, t), t["compare.cost_caption"], 1),
    ):
        if table is not None:
            text = markdown.table([name for name, _ in table.head], table.rows, n_text=n_text)
            parts += [text, markdown.escaped(caption)]
    parts += [f"- {markdown.escaped(text)}" for text, _ in comparison_notes(comparison, t)]
    return "\n\n".join(parts) + "\n"


def as_csv(comparison: RunComparison) -> str:
    """One row per run with plain numbers: shares of 1, seconds, MB, p-values; empty if unknown."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, [name for name, _ in _CSV], lineterminator="\n")
    writer.writeheader()
    for row in comparison.rows:
        values = {name: value(row) for name, value in _CSV}
        writer.writerow({name: "" if value is None else value for name, value in values.items()})
    return buffer.getvalue()


def _pair_name(pair: Comparison) -> str:
    return f"{pair.first} − {pair.second}"


def _scores(row: ComparedRun) -> list[str]:
    metrics = row.run.metrics
    bounds = metrics["ci95"]
    return [
        figures.percent(metrics["accuracy"], bounds["accuracy"]),
        figures.percent(metrics.get("best_val_accuracy")),
        figures.score(metrics["uar"], bounds["uar"]),
        figures.score(metrics["macro_f1"], bounds["macro_f1"]),
    ]


def _basis(row: ComparedRun, t: Phrases) -> str:
    """What a row's scores rest on, and why it stands apart, if it does."""
    basis = protocol_line(row.run.metrics, t)
    if not row.why_apart:
        return basis
    ((why, _),) = t.notes([row.why_apart])
    return f"{t['compare.apart'].format(why=why)} — {basis}"


def _against_baseline(row: ComparedRun, t: Phrases) -> list[str]:
    if row.is_baseline:
        return [t["compare.baseline"], figures.MISSING]
    if row.against_baseline is None:
        return [figures.MISSING, figures.MISSING]
    accuracy = row.against_baseline.differences["accuracy"]
    return [
        figures.points(accuracy.value, accuracy.bounds),
        figures.p_value(row.against_baseline.p_adjusted["accuracy"]),
    ]


def _metric(name: str) -> Callable[[ComparedRun], Any]:
    return lambda row: row.run.metrics.get(name)


def _bound(name: str, place: int) -> Callable[[ComparedRun], Any]:
    def value(row: ComparedRun) -> Any:
        bounds = row.run.metrics["ci95"][name]
        return None if bounds is None else bounds[place]

    return value


def _cost(name: str) -> Callable[[ComparedRun], Any]:
    return lambda row: row.run.metrics.get("cost", _NOTHING).get(name)


def _pair(value: Callable[[Comparison], Any]) -> Callable[[ComparedRun], Any]:
    return lambda row: None if row.against_baseline is None else value(row.against_baseline)


def _difference(name: str) -> list[tuple[str, Callable[[ComparedRun], Any]]]:
    def bound(place: int) -> Callable[[Comparison], Any]:
        return lambda pair: (pair.differences[name].bounds or (None, None))[place]

    return [
        (f"{name}_minus_baseline", _pair(lambda pair: pair.differences[name].value)),
        (f"{name}_minus_baseline_low", _pair(bound(0))),
        (f"{name}_minus_baseline_high", _pair(bound(1))),
        (f"{name}_p", _pair(lambda pair: pair.p_values[name])),
        (f"{name}_p_holm", _pair(lambda pair: pair.p_adjusted[name])),
    ]


def _scored(name: str) -> list[tuple[str, Callable[[ComparedRun], Any]]]:
    bounds = [(f"{name}_low", _bound(name, 0)), (f"{name}_high", _bound(name, 1))]
    return [(name, _metric(name)), *bounds]


# Columns of the CSV, in their order.
_CSV: list[tuple[str, Callable[[ComparedRun], Any]]] = [
    ("model", lambda row: row.title),
    ("folder", lambda row: str(row.run.folder)),
    ("protocol", lambda row: row.run.metrics["protocol"]["protocol"]),
    ("split_hash", lambda row: row.run.split_hash),
    ("n", _metric("n")),
    ("n_speakers", _metric("n_speakers")),
    ("cluster_kind", _metric("cluster_kind")),
    ("seeds", lambda row: " ".join(str(seed) for seed in row.run.metrics["seeds"])),
    ("is_synthetic", lambda row: row.run.metrics["is_synthetic"]),
    *_scored("accuracy"),
    ("best_val_accuracy", _metric("best_val_accuracy")),
    *_scored("uar"),
    *_scored("macro_f1"),
    ("nll", _metric("nll")),
    ("ece", _metric("ece")),
    ("is_baseline", lambda row: row.is_baseline),
    ("stands_apart", lambda row: row.why_apart),
    *_difference("accuracy"),
    *_difference("uar"),
    *(
        (name, _cost(name))
        for name in (
            "n_parameters",
            "n_trained_parameters",
            "train_seconds",
            "real_time_factor",
            "peak_memory_mb",
            "gpu_peak_memory_mb",
        )
    ),
]
