"""MFCC + CNN on RAVDESS: 8 emotions, the published speaker-disjoint 6 folds.

Default settings. UA is the UAR over all folds' predictions together; its interval is
over speakers.
"""

from __future__ import annotations

from inputs import add_corpus_option, real_corpus
from koser.errors import one_line_errors
from koser.experiment.request import TrainRequest
from measuring import mean_and_sd, print_heading, print_table, print_verdict
from trials import new_trial_parser, prepare, print_known, run_trial, trial_folders

TARGET_UA = 0.60
KNOWN = (
    ("frozen wav2vec2-base + head", 0.543),
    ("linear model on Whisper's convolutional front-end", 0.534),
    ("eGeMAPS", 0.50),
)


def main() -> None:
    parser = new_trial_parser(__doc__, n_seeds=3)
    add_corpus_option(parser, "ravdess")
    arguments = parser.parse_args()
    root = real_corpus(arguments, "ravdess")
    print_heading(__doc__, is_quick=arguments.quick)
    overrides = (*arguments.set, *(["train.epochs=1"] if arguments.quick else []))
    with trial_folders(arguments) as folders:
        request = TrainRequest(
            model="mfcc",
            split="fixed:ravdess",
            manifest=prepare("ravdess", root, folders),
            overrides=overrides,
            n_seeds=arguments.seeds,
        )
        trial = run_trial("ravdess", request, folders)
    print_table(
        [("training", "clips", "UAR")]
        + [
            (name, f"{score.n_utterances}", "-" if score.uar is None else f"{score.uar:.3f}")
            for name, score in trial.run.results.folds.items()
        ]
    )
    by_seed = trial.uar_by_seed()
    if len(by_seed) > 1:
        print(f"UA {mean_and_sd(list(by_seed.values()))} over {len(by_seed)} seeds")
    print_known(KNOWN)
    print_verdict(f"UA {trial.uar:.3f}", f">= {TARGET_UA:.2f}", is_met=trial.uar >= TARGET_UA)


if __name__ == "__main__":
    with one_line_errors():
        main()
