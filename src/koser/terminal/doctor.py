"""What an examination prints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.table import Table

from koser.terminal import console

if TYPE_CHECKING:
    from koser.doctor.findings import Diagnosis

_STYLES = {"ok": "green", "note": "dim", "warn": "yellow", "fail": "bold red"}


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print every finding, and below them what to do about those that are not well."""
    table = Table(title=f"{diagnosis.subject} {diagnosis.path}".strip(), title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("found", overflow="fold")
    for each in diagnosis.findings:
        style = _STYLES[each.verdict.value]
        table.add_row(f"[{style}]{each.verdict.value}[/]", _plain(each.check), _plain(each.what))
    console.print(table)
    for each in diagnosis.findings:
        if each.way_out and each.verdict.value != "ok":
            console.print(f"{each.check}: {each.way_out}", markup=False, soft_wrap=True)


def print_diagnosis_json(diagnosis: Diagnosis) -> None:
    """Print all of it for programs."""
    text = json.dumps(diagnosis.to_dict(), ensure_ascii=False, indent=2)
    console.print(text, markup=False, soft_wrap=True)


def _plain(text: str) -> str:
    """A path may hold what rich takes for markup."""
    return text.replace("[", r"\[")
