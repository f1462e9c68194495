"""Every system on one corpus, and their comparison; Whisper-base and multilingual-e5-small (REAL).

emotiontts: speaker and sentence left out, 10 x 5 folds. `--corpus ravdess`: the published 6
folds, eight classes. Nothing was chosen on these folds: every fusion is shown, each with its
default settings, and the ensemble's members were named beforehand; on RAVDESS, whose actors all
say the same two sentences, `prosody` stands in for words. `--systems`, `--kinds` for some of
them; with `--out` what is finished there is not done again, and what an earlier call finished is
compared too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from encoders import MEMBERS, add_pretrained_options, pretrained_of
from inputs import add_corpus_option, real_corpus
from koser.data.splits import SplitOptions
from koser.errors import one_line_errors
from koser.experiment.folder import is_finished
from koser.experiment.request import TrainRequest
from koser.reporting.ablations import ablation_rows
from koser.reporting.comparison import compare_runs
from koser.reporting.comparison_page import SUFFIXES, write_comparison
from koser.terminal.results import print_comparison
from measuring import print_heading, print_table, print_verdict
from trials import Trial, new_trial_parser, prepare, run_trial, trial_folders

SYSTEMS = ("mfcc", "prosody", "wav2vec2", "wav2vec2ft", "multimodal", "fusion", "ensemble")
KINDS = ("concat", "gated", "cross_attention")
FUSED = ("multimodal", "fusion")
BASELINE = "wav2vec2"
QUICK_EPOCHS = 2


@dataclass(frozen=True)
class Task:
    """What is asked of a corpus; a quick run has fewer folds where folds can be chosen."""

    split: str
    folds: SplitOptions
    quick_folds: SplitOptions
    members: tuple[str, ...]
    target: float


TASKS = {
    "emotiontts": Task(
        "speaker+script",
        SplitOptions(n_folds=10, n_script_folds=5, val_fraction=0.0),
        SplitOptions(n_folds=2, n_script_folds=2, val_fraction=0.0),
        MEMBERS,
        0.90,
    ),
    "ravdess": Task(
        "fixed:ravdess",
        SplitOptions(val_fraction=0.0),
        SplitOptions(val_fraction=0.0),
        ("wav2vec2", "prosody"),
        0.85,
    ),
}


def main() -> None:
    parser = new_trial_parser(__doc__, n_seeds=1)
    for corpus in TASKS:
        add_corpus_option(parser, corpus)
    parser.add_argument("--corpus", default="emotiontts", choices=list(TASKS))
    add_pretrained_options(parser)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    arguments = parser.parse_args()
    root = real_corpus(arguments, arguments.corpus)
    print_heading(__doc__, is_quick=arguments.quick)
    trials: dict[str, Trial] = {}
    with trial_folders(arguments) as folders:
        manifest = prepare(arguments.corpus, root, folders)
        for name, request in _requests(arguments, manifest):
            trials[name] = run_trial(name, request, folders)
            metrics = trials[name].run.metrics
            if rows := ablation_rows(metrics):
                print_table([(name, "UAR", "accuracy", f"{name} is higher by"), *rows])
        paths = sorted(path for path in folders.runs.iterdir() if is_finished(path))
        if len(paths) > 1:
            baseline = folders.runs / BASELINE
            comparison = compare_runs(paths, baseline=baseline if baseline in paths else paths[0])
            print_comparison(comparison)
            for suffix in SUFFIXES:
                write_comparison(comparison, folders.runs / f"comparison{suffix}", language="en")
    best = max(trials, key=lambda name: trials[name].uar)
    target = TASKS[arguments.corpus].target
    print_verdict(
        f"{best}: UAR {trials[best].uar:.3f}",
        f">= {target:.2f}",
        is_met=trials[best].uar >= target,
    )


def _requests(arguments: argparse.Namespace, manifest: Path) -> Iterator[tuple[str, TrainRequest]]:
    """Every training that was asked for, by name."""
    for system in arguments.systems:
        kinds = arguments.kinds if system in FUSED else [""]
        for kind in kinds:
            chosen = [f"fusion.kind={kind}"] if kind else []
            yield (
                f"{system}-{kind}" if kind else system,
                _request(system, chosen, arguments, manifest),
            )


def _request(
    system: str, chosen: list[str], arguments: argparse.Namespace, manifest: Path
) -> TrainRequest:
    task = TASKS[arguments.corpus]
    models = pretrained_of(system, arguments, task.members)
    if system == "ensemble":
        chosen.append(f"members={list(task.members)}")
    if arguments.quick:
        trained = [f"systems.{name}." for name in task.members] if system == "ensemble" else [""]
        chosen += [f"{each}train.epochs={QUICK_EPOCHS}" for each in trained]
    return TrainRequest(
        model=system,
        split=task.split,
        manifest=manifest,
        split_options=task.quick_folds if arguments.quick else task.folds,
        encoder=models.encoder,
        whisper=models.whisper,
        overrides=(*chosen, *models.overrides, *arguments.set),
        n_seeds=arguments.seeds,
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
