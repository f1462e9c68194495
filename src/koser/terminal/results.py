"""What the commands on finished runs print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table as RichTable

from koser.reporting.comparison import RunComparison
from koser.reporting.comparison_tables import (
    cost_table,
    distinct_notes,
    pair_table,
    pairs_basis,
    result_table,
    shared_basis,
)
from koser.reporting.language import load_phrases
from koser.reporting.matrix import basis, cell_notes, matrix_table, protocol_rows
from koser.reporting.sections.tables import Table
from koser.reporting.wording import SYNTHETIC
from koser.terminal import console


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
    for note in distinct_notes(comparison):
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
    for note in cell_notes(matrix):
        console.print(f"Note: {note}", markup=False)


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
