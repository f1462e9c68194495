"""What an audit finds, as plain values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

# From good to bad. What cannot be known is not an alarm, and is never called a pass.
Verdict = Literal["pass", "not_run", "warn", "fail"]
VERDICTS: tuple[Verdict, ...] = ("pass", "not_run", "warn", "fail")

MAX_EVIDENCE = 20  # rows of evidence that are kept; all are counted


@dataclass(frozen=True)
class Evidence:
    """Rows that show a finding.

    Attributes
    ----------
    columns : tuple[str, ...]
        What the cells of a row are.
    rows : tuple[tuple[str, ...], ...]
        At most `MAX_EVIDENCE` of them.
    n_rows : int
        How many there are.
    """

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    n_rows: int = 0

    @classmethod
    def of(cls, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Evidence:
        """Keep the first of `rows`, count all."""
        listed = list(rows)
        kept = tuple(tuple(str(cell) for cell in row) for row in listed[:MAX_EVIDENCE])
        return cls(tuple(columns), kept, len(listed))


@dataclass(frozen=True)
class Check:
    """One question about leaks, and its answer.

    Attributes
    ----------
    name : str
        What was looked at, such as ``"scripts"``.
    verdict : Verdict
        ``"fail"``: the split or the data is not what it says; ``"warn"``: nothing is broken,
        but scores rest on more than the voice; ``"not_run"``: what it needs is missing.
    finding : str
        Which of its possible answers it is; names a translation.
    summary : str
        The answer in one English sentence, with its numbers.
    facts : dict
        The numbers of the sentence by name.
    evidence : Evidence
        The worst cases.
    """

    name: str
    verdict: Verdict
    finding: str
    summary: str
    facts: dict[str, Any] = field(default_factory=dict)
    evidence: Evidence = Evidence()


@dataclass(frozen=True)
class Probe:
    """How well something other than the voice recognises the labels, out of fold.

    Attributes
    ----------
    name : str
        What was used, such as ``"release"``.
    verdict : Verdict
        ``"fail"`` where it comes more than half of the way from chance to perfect.
    uar, low, high : float or None
        UAR with its 95 % interval over speakers; None where it was not run or has none.
    chance : float
        UAR of a guesser.
    p_value : float or None
        One-sided, over speakers.
    n, n_speakers : int
        Tested utterances and their speakers (or what stands for one).
    note : str
        Why it was not run, or what else belongs beside the number.
    """

    name: str
    verdict: Verdict
    uar: float | None = None
    low: float | None = None
    high: float | None = None
    chance: float = 0.0
    p_value: float | None = None
    n: int = 0
    n_speakers: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """How often each label occurs with each value of something else.

    Attributes
    ----------
    name : str
        What the columns are, such as ``"release"``.
    labels, columns : tuple[str, ...]
        Rows and columns.
    counts : tuple[tuple[int, ...], ...] [shape=(n_labels, n_columns)]
        Utterances.
    association : float or None
        Cramér's V, corrected for bias, in [0, 1]; None with a single column.
    """

    name: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    association: float | None


@dataclass(frozen=True)
class Audit:
    """Everything an audit found.

    Attributes
    ----------
    checks : tuple[Check, ...]
        For leaks and errors of the data.
    probes : tuple[Probe, ...]
        For confounds.
    tables : tuple[Table, ...]
        Labels against what is known of the utterances.
    about : dict
        What was audited: corpus, rows, split, which encoder; as JSON values.
    notes : tuple[str, ...]
        What a reader should know, one sentence each.
    """

    checks: tuple[Check, ...]
    probes: tuple[Probe, ...]
    tables: tuple[Table, ...]
    about: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def leakage(self) -> Verdict:
        """The worst verdict of the checks."""
        return worst(check.verdict for check in self.checks)

    @property
    def confounds(self) -> Verdict:
        """The worst verdict of the probes."""
        return worst(probe.verdict for probe in self.probes)

    @property
    def is_violated(self) -> bool:
        """Whether ``--strict`` refuses: a leak, an error, or a confound that fails."""
        return self.leakage in ("warn", "fail") or self.confounds == "fail"

    def to_dict(self) -> dict[str, Any]:
        """The content of ``audit.json``."""
        return {
            "leakage": self.leakage,
            "confounds": self.confounds,
            **asdict(self),
        }


def counted(n: int, noun: str) -> str:
    """A number and what it counts.

    Examples
    --------
    >>> counted(1, "set"), counted(1200, "set")
    ('1 set', '1,200 sets')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of `verdicts`; ``"not_run"`` only where nothing else was.

    Examples
    --------
    >>> worst(["pass", "not_run"]), worst(["warn", "pass"]), worst(["not_run"])
    ('pass', 'warn', 'not_run')
    """
    known = [verdict for verdict in verdicts if verdict != "not_run"]
    return max(known, key=VERDICTS.index, default="not_run")
