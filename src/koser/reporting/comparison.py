"""Finished runs side by side: which may be compared, and what the comparison says.

Two scores may stand in one table if the same utterances were tested with the same
reference labels under the same split. Everything else is refused, or, when it is asked
for, shown without differences and tests, and marked as such.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from koser.errors import ComparisonError
from koser.evaluation.comparison import Comparison, compare_all
from koser.evaluation.pairing import Answers
from koser.reporting.runs import RunFolder
from koser.reporting.sections.data import flat_rows

# Settings that may stand in a run's name.
_MOST_SETTINGS = 2


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """A row of the results table.

    Attributes
    ----------
    title : str
        What the run is called there; no two are called alike.
    run : RunFolder
        The run.
    is_baseline : bool
        Whether the others are held against it.
    why_apart : str
        Why it cannot be held against the baseline; empty where it can.
    against_baseline : Comparison or None
        Its scores minus the baseline's; None for the baseline, and for what stands apart.
    """

    title: str
    run: RunFolder
    is_baseline: bool
    why_apart: str
    against_baseline: Comparison | None


@dataclass(frozen=True, eq=False)
class RunComparison:
    """All runs, and every two of them that may be compared.

    Attributes
    ----------
    rows : tuple[ComparedRun, ...]
        In the order they were given.
    pairs : tuple[Comparison, ...]
        First minus second, those with the baseline (as the second) first. Holm's
        correction is over all of them.
    """

    rows: tuple[ComparedRun, ...]
    pairs: tuple[Comparison, ...]

    @property
    def baseline(self) -> ComparedRun:
        """What the others are held against."""
        return next(row for row in self.rows if row.is_baseline)

    @property
    def is_mixed(self) -> bool:
        """Whether some rows stand apart."""
        return any(row.why_apart for row in self.rows)

    @property
    def is_synthetic(self) -> bool:
        """Whether a score rests on speech that a machine made."""
        return any(row.run.metrics["is_synthetic"] for row in self.rows)


def compare_runs(
    folders: Sequence[Path], *, baseline: Path | None = None, allow_mixed: bool = False
) -> RunComparison:
    """Read finished runs and compare every two of them.

    Parameters
    ----------
    folders : Sequence[Path]
        Run folders, at least two.
    baseline : Path, optional
        The one that the others are held against; by default the first.
    allow_mixed : bool
        Take runs on other data or splits too. They stand apart: their scores are shown,
        no difference and no test.

    Returns
    -------
    RunComparison
        With p-values corrected over all pairs.

    Raises
    ------
    ComparisonError
        If runs may not be put side by side, one is given twice, or the baseline is not
        among them.
    RunError
        If a folder holds no finished run.
    """
    paths = [folder.resolve() for folder in folders]
    if len(paths) < 2:
        raise ComparisonError("A comparison needs at least two runs. Give two run folders or more.")
    for folder, n in Counter(paths).items():
        if n > 1:
            raise ComparisonError(f"The run '{folder}' is given {n} times. Give every run once.")
    chosen = paths[0] if baseline is None else baseline.resolve()
    if chosen not in paths:
        raise ComparisonError(
            f"The baseline '{baseline}' is not among the compared runs. Give it as a run too."
        )
    runs = [RunFolder.read(folder) for folder in folders]
    first = runs[paths.index(chosen)]
    apart = ["" if run is first else why_apart(first, run) for run in runs]
    if any(apart) and not allow_mixed:
        number = next(number for number, why in enumerate(apart) if why)
        raise ComparisonError(
            f"'{runs[number].folder}' cannot stand beside '{first.folder}': {apart[number]}. "
            f"Compare runs of one split on one manifest (koser train --split S.parquet), or add "
            f"--allow-mixed for a table without differences and tests."
        )
    titles = unique_titles(runs)
    pairs = _compare_pairs(
        [
            _answers(title, run)
            for title, run, why in zip(titles, runs, apart, strict=True)
            if not why and run is not first
        ],
        _answers(titles[runs.index(first)], first),
        first,
    )
    of_baseline = {pair.first: pair for pair in pairs if pair.second == titles[runs.index(first)]}
    rows = [
        ComparedRun(title, run, run is first, why, of_baseline.get(title))
        for title, run, why in zip(titles, runs, apart, strict=True)
    ]
    return RunComparison(tuple(rows), pairs)


def why_apart(baseline: RunFolder, other: RunFolder) -> str:
    """Why the scores of two runs may not be held against each other; empty where they may.

    Parameters
    ----------
    baseline, other : RunFolder
        Two runs.

    Returns
    -------
    str
        The first reason, with the values on both sides.
    """
    if baseline.labels != other.labels:
        return f"other labels ({', '.join(other.labels)}; {', '.join(baseline.labels)})"
    protocols = [run.metrics["protocol"]["protocol"] for run in (other, baseline)]
    hashes = [run.split_hash[:8] for run in (other, baseline)]
    if protocols[0] != protocols[1]:
        return (
            f"another protocol ({protocols[0]}, split {hashes[0]}; "
            f"{protocols[1]}, split {hashes[1]})"
        )
    if other.split_hash != baseline.split_hash:
        return f"another split of the protocol '{protocols[0]}' ({hashes[0]}; {hashes[1]})"
    references = [_references(run) for run in (other, baseline)]
    joined = references[0].join(references[1], on="id", how="full", suffix="_baseline")
    n_only = joined.filter(pl.col("id").is_null() | pl.col("id_baseline").is_null()).height
    if n_only:
        return f"other test utterances ({n_only} of {joined.height} were tested in one run only)"
    n_other = joined.filter(pl.col("label") != pl.col("label_baseline")).height
    if n_other:
        return f"other reference labels ({n_other} of {joined.height} test utterances)"
    return ""


def unique_titles(runs: Sequence[RunFolder]) -> list[str]:
    """What each run is called in a table: its system, and what tells it from its like.

    Pretrained models are part of it where runs have different ones; see `shared_pretrained`.
    """
    shared = shared_pretrained(runs)
    titles = [run.title_without(shared) for run in runs]
    distinctions: tuple[Callable[[RunFolder, Sequence[RunFolder]], str], ...] = (
        lambda run, _: str(run.metrics["protocol"]["protocol"]),
        _own_settings,
        lambda run, _: run.folder.resolve().name,
        lambda run, _: str(run.folder.resolve()),
    )
    plain = list(titles)
    for distinction in distinctions:
        alike: dict[str, list[RunFolder]] = {}
        for title, run in zip(titles, runs, strict=True):
            alike.setdefault(title, []).append(run)
        titles = [
            title
            if len(alike[title]) == 1
            else ", ".join(filter(None, (own, distinction(run, alike[title]))))
            for title, own, run in zip(titles, plain, runs, strict=True)
        ]
    return titles


def shared_pretrained(runs: Sequence[RunFolder]) -> dict[str, str]:
    """The pretrained models that are the same in all runs that have one of their kind, by kind."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for kind, name in run.pretrained.items():
            found.setdefault(kind, set()).add(name)
    return {kind: next(iter(names)) for kind, names in found.items() if len(names) == 1}


def _own_settings(run: RunFolder, alike: Sequence[RunFolder]) -> str:
    """The settings of a run in which those that are called alike differ, if these are few."""
    settings = [dict(flat_rows(each.description["experiment"]["config"])) for each in alike]
    own = settings[alike.index(run)]
    keys = sorted({key for each in settings for key in each})
    differ = [key for key in keys if len({each.get(key) for each in settings}) > 1]
    if len(differ) > _MOST_SETTINGS:
        return ""
    return ", ".join(f"{key}={own.get(key)}" for key in differ)


def _compare_pairs(
    others: list[Answers], baseline: Answers, run: RunFolder
) -> tuple[Comparison, ...]:
    if not others:
        return ()
    pairs = compare_all(
        [baseline, *others],
        labels=run.labels,
        cluster_kind=run.metrics["cluster_kind"],
    )
    return tuple(sorted(pairs, key=lambda pair: pair.second != baseline.name))


def _references(run: RunFolder) -> pl.DataFrame:
    return run.predictions.select("id", "label").unique()


def _answers(title: str, run: RunFolder) -> Answers:
    table = run.predictions
    has_clusters = table["cluster"].null_count() == 0
    return Answers(
        title,
        ids=table["id"].to_numpy(),
        y_true=table["label"].to_numpy(),
        y_pred=table["predicted"].to_numpy(),
        clusters=table["cluster"].to_numpy() if has_clusters else None,
    )
