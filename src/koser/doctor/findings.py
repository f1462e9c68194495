"""What an examination comes to: findings, each with a verdict and what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How bad it is; in this order."""

    ok = "ok"
    note = "note"  # worth knowing, nothing to do
    warn = "warn"  # works, and will surprise
    fail = "fail"  # does not work, or cannot be believed


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    check : str
        What was looked at.
    verdict : Verdict
        How it is.
    what : str
        What was found, with its values.
    way_out : str
        What to do; empty where nothing is to be done.
    """

    check: str
    verdict: Verdict
    what: str
    way_out: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings on one thing.

    Attributes
    ----------
    subject : str
        What was examined: ``"store"``, ``"run"``, ``"manifest"``, ``"installation"`` …
    path : str
        Where it is; empty for the installation.
    findings : tuple[Finding, ...]
        In the order in which things were looked at.
    """

    subject: str
    path: str
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of the findings."""
        order = list(Verdict)
        return max((each.verdict for each in self.findings), key=order.index, default=Verdict.ok)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {**asdict(self), "verdict": self.verdict.value}


def ok(check: str, what: str) -> Finding:
    """Nothing is wrong."""
    return Finding(check, Verdict.ok, what)


def note(check: str, what: str, way_out: str = "") -> Finding:
    """Worth knowing."""
    return Finding(check, Verdict.note, what, way_out)


def warn(check: str, what: str, way_out: str) -> Finding:
    """Works, and will surprise."""
    return Finding(check, Verdict.warn, what, way_out)


def fail(check: str, what: str, way_out: str) -> Finding:
    """Does not work, or cannot be believed."""
    return Finding(check, Verdict.fail, what, way_out)
