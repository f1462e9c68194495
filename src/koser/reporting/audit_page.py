"""The page of an audit: one HTML file that needs nothing else, in Korean or in English."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from koser.files import write_atomically
from koser.reporting.language import Phrases, load_phrases
from koser.reporting.pages import render_page
from koser.reporting.sections.tables import Table, make_table
from koser.reporting.svg import Axis, ForestRow, forest
from koser.reporting.wording import SYNTHETIC

_STATUS = {"pass": "pass", "warn": "warn", "fail": "fail", "not_run": "unknown"}
_STYLES = {"pass": "first", "warn": "second", "fail": "second", "not_run": "first"}


def write_audit_page(audit: Mapping[str, Any], path: Path, language: str) -> None:
    """Write the page of an audit.

    Parameters
    ----------
    audit : Mapping
        The content of ``audit.json``.
    path : Path
        Where to.
    language : {'ko', 'en'}
        Its language.

    Raises
    ------
    ConfigError
        If koser does not speak the language.
    """
    t = load_phrases(language)
    html = render_page("audit.html.jinja", t, audit_context(audit, t))
    write_atomically(path, html.encode())


def audit_context(audit: Mapping[str, Any], t: Phrases) -> dict[str, Any]:
    """What ``audit.html.jinja`` and ``audit_body.jinja`` name.

    Parameters
    ----------
    audit : Mapping
        The content of ``audit.json``.
    t : Phrases
        The language.
    """
    about = audit["about"]
    protocol = about["protocol"]
    split = t["audit.no_split"]
    if protocol is not None:
        split = t["protocol.split"].format(name=protocol["protocol"])
    return {
        "title": ", ".join(about["corpus"]),
        "subtitle": t["audit.subtitle"].format(n=f"{about['n']:,}", split=split),
        "synthetic": SYNTHETIC if about["is_synthetic"] else "",
        "audit_verdicts": [
            _verdict(audit["leakage"], t["audit.leaks"], t),
            _verdict(audit["confounds"], t["audit.confounds"], t),
        ],
        "audit_checks": [_check(check, t) for check in audit["checks"]],
        "audit_probes": _probe_plot(audit["probes"], t),
        "audit_probe_table": _probe_table(audit["probes"], t),
        "audit_tables": [_table(table, t) for table in audit["tables"]],
        "audit_notes": t.notes(audit["notes"]),
    }


def _verdict(verdict: str, name: str, t: Phrases) -> dict[str, str]:
    status = _STATUS[verdict]
    return {"status": status, "badge": t["badge"][status], "name": name}


def _check(check: Mapping[str, Any], t: Phrases) -> dict[str, Any]:
    evidence = check["evidence"]
    columns = [t.named("audit.columns", name) for name in evidence["columns"]]
    ((summary, language),) = t.notes([check["summary"]])
    more = evidence["n_rows"] - len(evidence["rows"])
    return {
        **_verdict(check["verdict"], t["audit.checks"][check["name"]], t),
        "summary": summary,
        "language": language,
        "evidence": make_table(columns, evidence["rows"], n_text=len(columns)),
        "more": t["audit.more"].format(n=f"{more:,}") if more else "",
    }


def _probe_plot(probes: list[Mapping[str, Any]], t: Phrases) -> str:
    run = [probe for probe in probes if probe["uar"] is not None]
    if not run:
        return ""
    rows = [
        ForestRow(
            t["audit.probes"][probe["name"]],
            probe["uar"],
            probe["low"],
            probe["high"],
            f"{probe['uar']:.3f} {t['badge'][_STATUS[probe['verdict']]].split()[-1]}",
            _STYLES[probe["verdict"]],
        )
        for probe in run
    ]
    title, description = t["audit.plot_title"], t["audit.plot_caption"]
    return forest(title, description, rows, Axis(0, 1, "UAR"), reference=run[0]["chance"])


def _probe_table(probes: list[Mapping[str, Any]], t: Phrases) -> Table | None:
    rows = []
    for probe in probes:
        interval = "" if probe["low"] is None else f" [{probe['low']:.3f}, {probe['high']:.3f}]"
        score = "–" if probe["uar"] is None else f"{probe['uar']:.3f}{interval}"
        p_value = "–" if probe["p_value"] is None else _p_text(probe["p_value"])
        notes = "; ".join(text for text, _ in t.notes(filter(None, probe["note"].split("; "))))
        rows.append(
            (
                t["audit.probes"][probe["name"]],
                t["badge"][_STATUS[probe["verdict"]]],
                notes,
                score,
                f"{probe['chance']:.3f}" if probe["chance"] else "–",
                p_value,
                f"{probe['n']:,}" if probe["n"] else "–",
            )
        )
    names = [t["audit.probe_columns"][name] for name in ("from", "verdict", "note")]
    names += [t["audit.probe_columns"][name] for name in ("uar", "chance", "p", "n")]
    return make_table(names, rows, n_text=3)


def _p_text(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _table(table: Mapping[str, Any], t: Phrases) -> dict[str, Any]:
    name = t["audit.tables"][table["name"]]
    columns = [t["audit.label"], *(t.named("audit.values", value) for value in table["columns"])]
    rows = [
        [t.label(label), *(f"{count:,}" for count in counts)]
        for label, counts in zip(table["labels"], table["counts"], strict=True)
    ]
    association = table["association"]
    caption = name if association is None else f"{name} (Cramér's V = {association:.2f})"
    return {"caption": caption, "grid": make_table(columns, rows)}
