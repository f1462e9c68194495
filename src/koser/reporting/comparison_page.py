"""The comparison of systems as a page, and the file that somebody asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koser.errors import ComparisonError
from koser.files import write_atomically
from koser.reporting import figures
from koser.reporting.comparison import RunComparison
from koser.reporting.comparison_tables import (
    as_csv,
    as_markdown,
    comparison_notes,
    cost_table,
    pair_table,
    pairs_basis,
    result_table,
    shared_basis,
)
from koser.reporting.language import Language, load_phrases
from koser.reporting.pages import render_page
from koser.reporting.sections.scores import confusion_matrix
from koser.reporting.sections.tables import Table, make_table
from koser.reporting.svg import Axis, ForestRow, forest
from koser.reporting.wording import SYNTHETIC

SUFFIXES = (".html", ".md", ".csv")


@dataclass(frozen=True)
class Appendix:
    """What else a page of `koser reproduce` says.

    Attributes
    ----------
    gaps : Sequence[Mapping]
        Entries of ``gaps`` in ``gap.json``.
    failures : Mapping[str, str]
        Systems that could not be run, and why.
    """

    gaps: Sequence[Mapping[str, Any]] = ()
    failures: Mapping[str, str] | None = None


def check_suffix(path: Path) -> None:
    """Refuse a file whose kind koser does not write.

    Raises
    ------
    ComparisonError
        With the kinds it does.
    """
    if path.suffix not in SUFFIXES:
        raise ComparisonError(
            f"--out {path}: a comparison is written as {', '.join(SUFFIXES)}. Give such a name."
        )


def write_comparison(
    comparison: RunComparison,
    path: Path,
    *,
    language: Language = "ko",
    appendix: Appendix | None = None,
) -> None:
    """Write a comparison as its name says: ``.html``, ``.md`` or ``.csv``.

    Parameters
    ----------
    comparison : RunComparison
        What to write.
    path : Path
        Where to; missing folders are made.
    language : {'ko', 'en'}
        Of page and Markdown.
    appendix : Appendix, optional
        What else the page says.

    Raises
    ------
    ComparisonError
        If the suffix is another, or the file cannot be written.
    """
    check_suffix(path)
    t = load_phrases(language)
    if path.suffix == ".html":
        context = _context(comparison, language, appendix or Appendix())
        text = render_page("comparison.html.jinja", t, context)
    else:
        text = as_markdown(comparison, t) if path.suffix == ".md" else as_csv(comparison)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    except OSError as error:
        raise ComparisonError(f"Cannot write '{path}': {error.strerror}.") from error


def _context(comparison: RunComparison, language: Language, appendix: Appendix) -> dict[str, Any]:
    t = load_phrases(language)
    return {
        "synthetic": SYNTHETIC if comparison.is_synthetic else "",
        "is_mixed": comparison.is_mixed,
        "basis": shared_basis(comparison, t),
        "results": result_table(comparison, t),
        "uar_forest": _uar_forest(comparison, language),
        "difference_forest": _difference_forest(comparison, language),
        "pairs": pair_table(comparison, t),
        "pairs_basis": pairs_basis(comparison, t),
        "recalls": _recall_table(comparison, language),
        "costs": cost_table(comparison, t),
        "confusions": [
            (row.title, confusion_matrix(row.run.metrics, t)) for row in comparison.rows
        ],
        "notes": comparison_notes(comparison, t),
        "gaps": _gap_table(appendix.gaps, language),
        "failures": list((appendix.failures or {}).items()),
    }


def _uar_forest(comparison: RunComparison, language: Language) -> str:
    t = load_phrases(language)
    rows = []
    for row in comparison.rows:
        metrics = row.run.metrics
        low, high = metrics["ci95"]["uar"] or (None, None)
        style = "faint" if row.why_apart else "first"
        text = figures.score(metrics["uar"])
        rows.append(ForestRow(row.title, metrics["uar"], low, high, text, style))
    description = "; ".join(f"{row.name} {row.text}" for row in rows)
    chance = comparison.baseline.run.metrics["chance_uar"]
    return forest(t["compare.uar_forest"], description, rows, Axis(0, 1, "UAR"), reference=chance)


def _difference_forest(comparison: RunComparison, language: Language) -> str:
    t = load_phrases(language)
    rows = []
    for row in comparison.rows:
        if row.against_baseline is None:
            continue
        score = row.against_baseline.differences["accuracy"]
        value, low, high = (
            None if each is None else 100 * each for each in (score.value, score.low, score.high)
        )
        text = figures.points(score.value)
        rows.append(ForestRow(row.title, value, low, high, text, "second"))
    if not rows:
        return ""
    known = [each for row in rows for each in (row.value, row.low, row.high) if each is not None]
    reach = max(1.0, *(abs(each) for each in known))
    description = "; ".join(f"{row.name} {row.text}" for row in rows)
    title = t["compare.difference_forest"]
    return forest(title, description, rows, Axis(-reach, reach, title), reference=0.0)


def _recall_table(comparison: RunComparison, language: Language) -> Table | None:
    t = load_phrases(language)
    labels = comparison.baseline.run.labels
    rows = [
        [
            row.title,
            *(figures.score(row.run.metrics["recall"].get(label)) for label in labels),
        ]
        for row in comparison.rows
    ]
    return make_table([t["compare.model"], *(t.label(label) for label in labels)], rows)


def _gap_table(gaps: Sequence[Mapping[str, Any]], language: Language) -> Table | None:
    t = load_phrases(language)
    rows = [
        [
            f"{gap['first']} − {gap['second']}",
            figures.points(gap["accuracy"], gap["ci95"]["accuracy"]),
            figures.points(gap["uar"], gap["ci95"]["uar"]),
        ]
        for gap in gaps
    ]
    heads = ("basis", "accuracy_difference", "uar_difference")
    return make_table([t[f"compare.{name}"] for name in heads], rows)
