"""What the commands on finished runs print."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable

from koser.reporting import figures
from koser.reporting.comparison import RunComparison
from koser.reporting.comparison_tables import (
    comparison_notes,
    cost_table,
    pair_table,
    pairs_basis,
    result_table,
    shared_basis,
)
from koser.reporting.language import load_phrases
from koser.reporting.matrix import basis, cell_notes, matrix_table, protocol_rows
from koser.reporting.robustness import robustness_basis, robustness_notes, robustness_table
from koser.reporting.sections.tables import Table, make_table
from koser.reporting.wording import SYNTHETIC
from koser.terminal import console

VALUE_SCORES = ("ccc", "pearson", "rmse")


def print_comparison(comparison: RunComparison) -> None:
    """Print the results table, every two systems, and what they cost.

    Parameters
    ----------
    comparison : RunComparison
        What to print; in English, as everything in the terminal.
    """
    t = load_phrases("en")
    if comparison.is_synthetic:
        console.print(f"[bold yellow]{SYNTHETIC}[/]: these numbers say nothing about real speech.")
    mark = f" ({SYNTHETIC})" if comparison.is_synthetic else ""
    _print_table(result_table(comparison, t), f"results{mark}: {shared_basis(comparison, t)}")
    _print_table(pair_table(comparison, t), "first minus second, in points")
    console.print(pairs_basis(comparison, t), style="dim", markup=False)
    _print_table(cost_table(comparison, t), t["compare.cost_caption"])
    for note, _ in comparison_notes(comparison, t):
        console.print(f"Note: {note}", markup=False)


def print_matrix(matrix: Mapping[str, Any]) -> None:
    """Print a cross-corpus table, the protocol of each run, and what to know.

    Parameters
    ----------
    matrix : Mapping
        The content of ``matrix.json``.
    """
    t = load_phrases("en")
    if matrix["is_synthetic"]:
        console.print(f"[bold yellow]{SYNTHETIC}[/]: these numbers say nothing about real speech.")
    _print_table(matrix_table(matrix, t), f"{t['matrix.heading']}: {t['matrix.caption']}")
    console.print(basis(matrix, t), markup=False)
    for name, text in protocol_rows(matrix, t):
        console.print(f"{name}: {text}", style="dim", markup=False)
    for note, _ in cell_notes(matrix, t):
        console.print(f"Note: {note}", markup=False)


def print_robustness(values: Mapping[str, Any]) -> None:
    """Print what degraded sound costs a run, and what the scores rest on.

    Parameters
    ----------
    values : Mapping
        The content of ``robustness.json``.
    """
    t = load_phrases("en")
    if values["is_synthetic"]:
        console.print(f"[bold yellow]{SYNTHETIC}[/]: these numbers say nothing about real speech.")
    _print_table(robustness_table(values, t), f"{values['title']}: {t['robustness.heading']}")
    console.print(robustness_basis(values, t), style="dim", markup=False)
    for note, _ in robustness_notes(values, t):
        console.print(f"Note: {note}", markup=False)


def print_dimensions(results: Mapping[str, Any], folder: Path) -> None:
    """Print valence and arousal of a finished experiment, and what the scores rest on.

    Parameters
    ----------
    results : Mapping
        The content of ``dimensions.json``.
    folder : Path
        Where it is.
    """
    if results["is_synthetic"]:
        console.print(f"[bold yellow]{SYNTHETIC}[/]: these numbers say nothing about real speech.")
    protocol, kind = results["protocol"], results["cluster_kind"] or "speakers unknown"
    title = (
        f"{results['model']}, loss {results['loss']}: split {protocol['protocol']}, "
        f"n = {results['n']}, {results['n_speakers'] or '?'} × {kind}, "
        f"{protocol['n_folds']} folds, seeds {', '.join(map(str, results['seeds']))}"
    )
    rows = []
    parts = {"": results["dimensions"], **results["corpora"]}
    for corpus, dimensions in parts.items():
        for name, found in dimensions.items():
            scores = (figures.score(found[key], found["ci95"][key]) for key in VALUE_SCORES)
            reference = "" if corpus else f"{results['rmse_of_mean'][name]:.3f}"
            rows.append([f"{name} ({corpus})" if corpus else name, *scores, reference])
    heads = ["", "CCC [95 %]", "Pearson", "RMSE", "RMSE of the train mean"]
    _print_table(make_table(heads, rows), title)
    shared = ", ".join(f"{kind} {what}" for kind, what in results["leaks"].items())
    console.print(f"Test shares with train and val: {shared}.", markup=False)
    notes = [note for each in results["dimensions"].values() for note in each["notes"]]
    for note in dict.fromkeys([*notes, *protocol["notes"]]):
        console.print(f"Note: {note}", markup=False)
    console.print(f"Results: {folder / 'dimensions.json'}", markup=False)


def print_failures(failures: Mapping[str, str]) -> None:
    """Print which systems could not be run, and why."""
    for name, why in failures.items():
        console.print(f"Not run: {name}: {why}", soft_wrap=True, markup=False)


def _print_table(table: Table | None, title: str) -> None:
    if table is None:
        return
    shown = RichTable(title=title, title_justify="left", title_style="bold")
    for name, is_number in table.head:
        shown.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*(cell.replace("[", r"\[") for cell in row))
    console.print(shown)
