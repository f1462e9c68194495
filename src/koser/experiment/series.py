"""One system under several protocols on one corpus, and the gaps between them.

A series is nothing but its runs: each has a folder of its own, whole as if it had been
made alone. What is compared is read back from these folders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl

from koser.errors import ConfigError, RunError
from koser.evaluation.gap import Gap, Side, evaluate_gap
from koser.experiment.folder import differences, is_finished
from koser.experiment.request import (
    RUNS,
    TrainRequest,
    choose_folder,
    new_folder,
)
from koser.experiment.results import clusters_of
from koser.experiment.run import Experiment
from koser.files import write_json
from koser.reporting.report import ReportOptions, write_report
from koser.reporting.runs import RunFolder


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run as its folder tells it.

    Attributes
    ----------
    experiment : Experiment
        What was tried.
    folder : Path
        Where it is.
    metrics : dict
        The content of ``metrics.json``.
    predictions : pl.DataFrame
        The content of ``predictions.parquet``.
    """

    experiment: Experiment
    folder: Path
    metrics: Mapping[str, Any]
    predictions: pl.DataFrame

    @classmethod
    def read(cls, experiment: Experiment, folder: Path) -> FinishedRun:
        """Read the finished run of `experiment` in `folder`.

        Raises
        ------
        RunError
            If it is not finished, of another experiment, or a file cannot be read.
        """
        different = differences(experiment, folder)
        if different or not is_finished(folder):
            what = f"another run (different: {', '.join(different)})" if different else "a part"
            raise RunError(f"'{folder}' holds {what}, not the finished run {experiment.name}.")
        run = RunFolder.read(folder)
        return cls(experiment, folder, run.metrics, run.predictions)


def resolve_series(request: TrainRequest, splits: Sequence[str]) -> tuple[Experiment, ...]:
    """One experiment per split, on one manifest that is read once.

    Parameters
    ----------
    request : TrainRequest
        Everything but the split.
    splits : Sequence[str]
        Protocols, or files of kept splits, in the order they are run.

    Returns
    -------
    tuple[Experiment, ...]
        In the order of `splits`.

    Raises
    ------
    ConfigError
        If a split is given twice, or two runs would have the same name.
    KoserError
        As `TrainRequest.resolve`; no split is begun if one cannot be made.
    """
    for place, split in enumerate(splits):
        if split in splits[:place]:
            raise ConfigError(f"--split {split} is given twice. Give every split once.")
    first = replace(request, split=splits[0]).resolve()
    others = [
        replace(first, split=replace(request, split=split).split_of(first.config, first.manifest))
        for split in splits[1:]
    ]
    experiments = (first, *others)
    split_of: dict[str, str] = {}
    for split, experiment in zip(splits, experiments, strict=True):
        other = split_of.setdefault(experiment.name, split)
        if other != split:
            raise ConfigError(
                f"--split {other} and --split {split} would both be the run '{experiment.name}'. "
                f"Train them one at a time, each with a folder of its own (--out)."
            )
    return experiments


def choose_folders(
    experiments: Sequence[Experiment], out: Path | None, *, resume: bool
) -> list[Path]:
    """The run folders of a series: below `out`, or new or known ones under ``runs/``.

    A single experiment has `out` itself; `koser.experiment.request.choose_folder` says
    what else.

    Parameters
    ----------
    experiments : Sequence[Experiment]
        With distinct names.
    out : Path, optional
        Folder of the series.
    resume : bool
        Take each experiment's newest run under ``runs/``, finished or not, where there
        is one: the series may have been killed in its second run.

    Raises
    ------
    RunError
        If there is nothing to resume, or `out` is the folder of a single run.
    """
    if len(experiments) == 1:
        return [choose_folder(experiments[0], out, resume=resume)]
    if out is not None:
        if (out / "run.json").exists():
            raise RunError(f"'{out}' is the folder of a single run. Give another one with --out.")
        return [out / experiment.name for experiment in experiments]
    known = [_newest(experiment) if resume else None for experiment in experiments]
    if resume and not any(known):
        raise RunError(
            f"No runs {' or '.join(f'{RUNS / each.name}_*' for each in experiments)} with these "
            f"settings to resume. Leave --resume out."
        )
    return [
        folder or new_folder(experiment.name)
        for experiment, folder in zip(experiments, known, strict=True)
    ]


def _newest(experiment: Experiment) -> Path | None:
    for folder in sorted(RUNS.glob(f"{experiment.name}_*"), reverse=True):
        if (folder / "run.json").exists() and not differences(experiment, folder):
            return folder
    return None


def compare(first: FinishedRun, second: FinishedRun) -> Gap:
    """How much higher the same corpus scores under the first run's protocol.

    Both sides hold all seeds, an utterance once per seed, as in every score of a run.

    Parameters
    ----------
    first, second : FinishedRun
        Runs on the same corpus.

    Raises
    ------
    RunError
        If their labels differ.
    """
    labels = first.experiment.manifest.labels
    if second.experiment.manifest.labels != labels:
        raise RunError(
            f"'{first.folder}' and '{second.folder}' cannot be compared: their labels are "
            f"{', '.join(labels)} and {', '.join(second.experiment.manifest.labels)}."
        )
    return evaluate_gap(
        _side(first),
        _side(second),
        labels=labels,
        cluster_kind=first.experiment.manifest.provenance.grouping,
    )


def _side(run: FinishedRun) -> Side:
    return Side(
        run.experiment.split.protocol,
        run.predictions["label"].to_numpy(),
        run.predictions["predicted"].to_numpy(),
        clusters_of(run.experiment.manifest, run.predictions),
    )


def write_gaps(
    runs: Sequence[FinishedRun], path: Path, *, report: ReportOptions | None = None
) -> dict[str, Any]:
    """Compare every two runs of a series, in their order, and write ``gap.json``.

    The same goes into every run's folder, and into its report: who reads of a score under
    one protocol sees what becomes of it under the others.

    Parameters
    ----------
    runs : Sequence[FinishedRun]
        At least two.
    path : Path
        Where to.
    report : ReportOptions, optional
        How the reports are written.

    Returns
    -------
    dict
        What was written: ``runs`` with their folders, protocols, split hashes and scores,
        and ``gaps``.

    Raises
    ------
    RunError
        If two runs cannot be compared.
    """
    values = {
        "model": runs[0].experiment.model,
        "labels": list(runs[0].experiment.manifest.labels),
        "is_synthetic": runs[0].metrics["is_synthetic"],
        "runs": [_run_json(run) for run in runs],
        "gaps": [
            {**compare(first, second).to_dict(), "split_hashes": _hashes(first, second)}
            for first, second in combinations(runs, 2)
        ],
    }
    owns = [run.folder / "gap.json" for run in runs]
    if not all(_holds(file, values) for file in (path, *owns)):
        path.unlink(missing_ok=True)  # it comes last: where it is, every report knows of it
        for own in owns:
            write_json(values, own)
            write_report(own.parent, report)
        write_json(values, path)
    return values


def _holds(path: Path, values: dict[str, Any]) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")) == values)
    except (OSError, ValueError):  # missing or damaged: it is written anew
        return False


def gap_file(runs: Sequence[FinishedRun], out: Path | None) -> Path:
    """``gap.json`` in `out`; else beside the runs, named after them and the last one's time."""
    if out is not None:
        return out / "gap.json"
    last = runs[-1]
    time = last.folder.name.removeprefix(last.experiment.name)
    return last.folder.parent / f"gap_{series_name(runs)}{time}.json"


def series_name(runs: Sequence[FinishedRun]) -> str:
    """``<model>_<split>_<split>``."""
    return "_".join([runs[0].experiment.model, *(run.experiment.split_name for run in runs)])


def _run_json(run: FinishedRun) -> dict[str, Any]:
    kept = ("n", "n_speakers", "cluster_kind", "seeds", "uar", "accuracy")
    return {
        "name": run.experiment.name,
        "folder": run.folder.name,
        **{key: run.metrics[key] for key in kept},
        "ci95": {key: run.metrics["ci95"][key] for key in ("uar", "accuracy")},
        "chance_uar": run.metrics["chance_uar"],
        "majority_accuracy": run.metrics["majority_accuracy"],
        "protocol": run.metrics["protocol"],
    }


def _hashes(first: FinishedRun, second: FinishedRun) -> list[str]:
    return [run.metrics["protocol"]["hash"] for run in (first, second)]
