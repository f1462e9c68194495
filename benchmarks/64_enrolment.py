"""Enrolment: k unlabelled utterances of each tested person adapt the features.

emotiontts, speaker and sentence left out, 50 folds; `--corpus ravdess`: the published 6 folds,
eight classes. Frozen Whisper-base (REAL weights), and MFCC + CNN. For every k the same utterances
are scored: 10 of each person are held out for enrolment, whatever k. `--systems wav2vec2` for one
system, `--encoder` for another encoder, `--k 0 5` for a part of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from encoders import real_whisper_base
from inputs import add_corpus_option, real_corpus
from koser.data.splits import SplitOptions
from koser.errors import one_line_errors
from koser.evaluation.comparison import compare_systems
from koser.evaluation.pairing import Answers
from koser.experiment.request import TrainRequest
from koser.reporting.wording import score_with_interval
from measuring import print_heading, print_table
from trials import Folders, Trial, new_trial_parser, prepare, print_known, run_trial, trial_folders

FROZEN, BASELINE = "wav2vec2", "mfcc"
# Its split and folds, and those of a quick run.
SPLITS = {
    "emotiontts": (
        "speaker+script",
        SplitOptions(n_folds=10, n_script_folds=5, val_fraction=0.0),
        SplitOptions(n_folds=2, n_script_folds=2, val_fraction=0.0),
    ),
    "ravdess": (
        "fixed:ravdess",
        SplitOptions(val_fraction=0.0),
        SplitOptions(val_fraction=0.0),
    ),
}
# Of emotiontts.
KNOWN = (
    ("linear model on the means of Whisper-base, no enrolment (another split)", 0.46),
    ("the same, features normalised by each speaker's own mean and spread", 0.69),
)
QUICK = {FROZEN: ("train.epochs=5", "speeds=[]"), BASELINE: ("train.epochs=2", "speeds=[]")}


def main() -> None:
    parser = new_trial_parser(__doc__, n_seeds=1)
    for corpus in SPLITS:
        add_corpus_option(parser, corpus)
    parser.add_argument("--corpus", default="emotiontts", choices=list(SPLITS))
    parser.add_argument("--encoder", help="hub id or folder; Whisper-base if not given")
    parser.add_argument(
        "--systems", nargs="+", default=[FROZEN, BASELINE], choices=[FROZEN, BASELINE]
    )
    parser.add_argument("--k", nargs="+", type=int, default=[0, 1, 3, 5, 10], help="utterances")
    arguments = parser.parse_args()
    corpus = arguments.corpus
    root = real_corpus(arguments, corpus)
    print_heading(__doc__, is_quick=arguments.quick)
    with trial_folders(arguments) as folders:
        manifest = prepare(corpus, root, folders)
        for system in arguments.systems:
            trials = {k: _run(system, k, manifest, folders, arguments) for k in sorted(arguments.k)}
            print_table(_rows(system, trials))
    if corpus == "emotiontts":
        print_known(KNOWN)


def _run(
    system: str, k: int, manifest: Path, folders: Folders, arguments: argparse.Namespace
) -> Trial:
    split, folds, quick_folds = SPLITS[arguments.corpus]
    return run_trial(
        f"{system}-enrolled-{k}",
        TrainRequest(
            model=system,
            split=split,
            manifest=manifest,
            split_options=quick_folds if arguments.quick else folds,
            encoder=real_whisper_base(arguments.encoder) if system == FROZEN else None,
            overrides=(*(QUICK[system] if arguments.quick else ()), *arguments.set),
            n_seeds=arguments.seeds,
            enrol=k,
        ),
        folders,
    )


def _rows(system: str, trials: dict[int, Trial]) -> list[list[str]]:
    """The enrolment curve: every row is a protocol of its own, on the same utterances."""
    rows = [["protocol", "UAR", "accuracy", "n", "speakers", "UAR above the first", "p"]]
    first = next(iter(trials.values()))
    for trial in trials.values():
        metrics, difference, p_value = trial.run.metrics, "", ""
        if trial is not first:
            found = compare_systems(
                _answers(trial),
                _answers(first),
                labels=metrics["labels"],
                cluster_kind=metrics["cluster_kind"],
            ).to_dict()
            difference = f"{found['uar']:+.3f} [{found['ci95']['uar'][0]:+.3f}, "
            difference += f"{found['ci95']['uar'][1]:+.3f}]"
            p_value = f"{found['p']['uar']:.4f}"
        rows.append(
            [
                f"{system}, {metrics['protocol']['protocol']}",
                score_with_interval(metrics, "uar"),
                score_with_interval(metrics, "accuracy"),
                str(metrics["n"]),
                str(metrics["n_speakers"]),
                difference,
                p_value,
            ]
        )
    return rows


def _answers(trial: Trial) -> Answers:
    table = trial.run.results.predictions
    return Answers(
        trial.run.metrics["protocol"]["protocol"],
        ids=table["id"].to_numpy(),
        y_true=table["label"].to_numpy(),
        y_pred=table["predicted"].to_numpy(),
        clusters=table["cluster"].to_numpy(),
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
