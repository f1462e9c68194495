"""Frozen and fine-tuned Whisper-base (REAL weights) on RAVDESS, the published 6 folds.

`--systems wav2vec2ft` for one of them, `--encoder` for another encoder. UA is the UAR
over all folds' predictions together; its interval is over speakers.
"""

from __future__ import annotations

from encoders import real_whisper_base
from inputs import add_corpus_option, real_corpus
from koser.data.splits import SplitOptions
from koser.errors import one_line_errors
from koser.experiment.request import TrainRequest
from measuring import mean_and_sd, print_heading, print_table, print_verdict
from trials import new_trial_parser, prepare, print_known, run_trial, trial_folders

KNOWN = (
    ("Whisper-large-v3, frozen, published", 0.753),
    ("linear model on the means of all layers of Whisper-base", 0.751),
    ("the same on its best layer", 0.732),
    ("the same on its last layer", 0.697),
)
FROZEN, TUNED = "wav2vec2", "wav2vec2ft"
# Fine-tuning as two cores without a GPU can afford it.
SETTINGS = {FROZEN: (), TUNED: ("train.epochs=3", "train.precision=bf16")}
TARGETS = {FROZEN: 0.76, TUNED: 0.80}


def main() -> None:
    parser = new_trial_parser(__doc__, n_seeds=1)
    add_corpus_option(parser, "ravdess")
    parser.add_argument("--encoder", help="hub id or folder; Whisper-base if not given")
    parser.add_argument("--systems", nargs="+", default=[FROZEN, TUNED], choices=[FROZEN, TUNED])
    arguments = parser.parse_args()
    root = real_corpus(arguments, "ravdess")
    print_heading(__doc__, is_quick=arguments.quick)
    quick = ("train.epochs=1",) if arguments.quick else ()
    uar = {}
    with trial_folders(arguments) as folders:
        manifest = prepare("ravdess", root, folders)
        for system in arguments.systems:
            trial = run_trial(
                system,
                TrainRequest(
                    model=system,
                    split="fixed:ravdess",
                    manifest=manifest,
                    split_options=SplitOptions(val_fraction=0.0),
                    encoder=real_whisper_base(arguments.encoder),
                    overrides=(*SETTINGS[system], *arguments.set, *quick),
                    n_seeds=arguments.seeds,
                ),
                folders,
            )
            uar[system] = trial.uar
            print_table(
                [(system, "clips", "UAR")]
                + [
                    (name, f"{each.n_utterances}", "-" if each.uar is None else f"{each.uar:.3f}")
                    for name, each in trial.run.results.folds.items()
                ]
            )
            print(f"{system}: UA {mean_and_sd(list(trial.uar_by_seed().values()))} over seeds")
    print_known(KNOWN)
    for system, value in uar.items():
        target = TARGETS[system]
        print_verdict(f"{system}: UA {value:.3f}", f">= {target:.2f}", is_met=value >= target)


if __name__ == "__main__":
    with one_line_errors():
        main()
