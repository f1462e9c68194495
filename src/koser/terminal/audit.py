"""What ``koser audit`` and the canaries print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from koser.data.audit.results import Audit, Check, Probe
from koser.reporting.wording import SYNTHETIC
from koser.terminal import console

_STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "not_run": "dim"}
_WORDS = {"pass": "pass", "warn": "WARN", "fail": "FAIL", "not_run": "–"}
_SHOWN_EVIDENCE = 3


def print_audit(audit: Audit, out: Path | None) -> None:
    """Print every check with its evidence, every probe, and the two verdicts.

    Parameters
    ----------
    audit : Audit
        What was found.
    out : Path or None
        Where it was written.
    """
    about = audit.about
    if about["is_synthetic"]:
        console.print(f"[bold yellow]{SYNTHETIC}[/]: this says nothing about real speech.")
    protocol = about["protocol"]
    under = "no split" if protocol is None else f"split {protocol['protocol']}"
    title = f"{', '.join(about['corpus'])}: {about['n']:,} utterances, {under}"
    console.print(_check_table(title, audit.checks))
    for check in audit.checks:
        if check.verdict in ("warn", "fail"):
            _print_evidence(check)
    if audit.probes:
        console.print(_probe_table(audit.probes))
    for note in audit.notes:
        console.print(f"Note: {note}", markup=False)
    for name, verdict in (("Leaks", audit.leakage), ("Confounds", audit.confounds)):
        console.print(f"{name}: [{_STYLES[verdict]}]{_WORDS[verdict]}[/]")
    if out is not None:
        console.print(f"Audit: {out / 'audit.html'}", markup=False, soft_wrap=True)


def print_canaries(name: str, values: Mapping[str, Any], path: Path) -> None:
    """Print what the canaries told of a pipeline.

    Parameters
    ----------
    name : str
        What the run is called.
    values : Mapping
        The content of ``canaries.json``.
    path : Path
        Where that is.
    """
    table = Table(title=f"{name}: canaries", title_justify="left", title_style="bold")
    for column in ("verdict", "canary", "finding"):
        table.add_column(column)
    for canary in values["canaries"]:
        table.add_row(
            _badge(canary["verdict"]), canary["name"].replace("_", " "), canary["summary"]
        )
    console.print(table)
    console.print(f"Canaries: {path}", markup=False, soft_wrap=True)


def _check_table(title: str, checks: Sequence[Check]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in ("verdict", "check", "finding"):
        table.add_column(name)
    for check in checks:
        table.add_row(_badge(check.verdict), check.name.replace("_", " "), check.summary)
    return table


def _print_evidence(check: Check) -> None:
    shown = check.evidence.rows[:_SHOWN_EVIDENCE]
    if not shown:
        return
    columns = " | ".join(check.evidence.columns)
    console.print(f"{check.name.replace('_', ' ')} ({columns}):", markup=False)
    for row in shown:
        console.print(f"  {' | '.join(row)}", markup=False, soft_wrap=True)
    if check.evidence.n_rows > len(shown):
        console.print(f"  … and {check.evidence.n_rows - len(shown):,} more")


def _probe_table(probes: Sequence[Probe]) -> Table:
    table = Table(
        title="Recognised without the voice, out of fold",
        title_justify="left",
        title_style="bold",
    )
    for name in ("verdict", "from", "UAR [95 %]", "chance", "note"):
        table.add_column(name)
    for probe in probes:
        score, chance = probe_score(probe), f"{probe.chance:.3f}" if probe.chance else ""
        table.add_row(
            _badge(probe.verdict), probe.name.replace("_", " "), score, chance, probe.note
        )
    return table


def probe_score(probe: Probe) -> str:
    """A probe's UAR with its interval, or a dash."""
    if probe.uar is None:
        return "–"
    interval = "" if probe.low is None else f" [{probe.low:.3f}, {probe.high:.3f}]"
    return f"{probe.uar:.3f}{interval}"


def _badge(verdict: str) -> str:
    return f"[{_STYLES[verdict]}]{_WORDS[verdict]}[/]"
