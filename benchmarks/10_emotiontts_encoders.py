"""Frozen and fine-tuned Whisper-base (REAL weights) on emotiontts, speaker and sentence out.

50 folds: every utterance is tested by a system that has heard neither its speaker nor
its sentence. `--systems wav2vec2ft` for one of them, `--encoder` for another encoder.
"""

from __future__ import annotations

from encoders import real_whisper_base
from inputs import add_corpus_option, real_corpus
from koser.data.splits import SplitOptions
from koser.errors import one_line_errors
from koser.experiment.request import TrainRequest
from measuring import mean_and_sd, print_heading, print_verdict
from trials import new_trial_parser, prepare, print_known, run_trial, trial_folders

KNOWN = (
    ("linear model on the means of all layers of Whisper-base", 0.845),
    ("the same on its last layer", 0.805),
)
FROZEN, TUNED = "wav2vec2", "wav2vec2ft"
# Fine-tuning as two cores without a GPU can afford it.
SETTINGS = {FROZEN: (), TUNED: ("train.epochs=3", "train.precision=bf16")}
TARGET = 0.85  # of the frozen one; the other has to be above it


def main() -> None:
    parser = new_trial_parser(__doc__, n_seeds=1)
    add_corpus_option(parser, "emotiontts")
    parser.add_argument("--encoder", help="hub id or folder; Whisper-base if not given")
    parser.add_argument("--systems", nargs="+", default=[FROZEN, TUNED], choices=[FROZEN, TUNED])
    arguments = parser.parse_args()
    root = real_corpus(arguments, "emotiontts")
    print_heading(__doc__, is_quick=arguments.quick)
    folds = (2, 2) if arguments.quick else (10, 5)
    uar = {}
    with trial_folders(arguments) as folders:
        manifest = prepare("emotiontts", root, folders)
        for system in arguments.systems:
            trial = run_trial(
                system,
                TrainRequest(
                    model=system,
                    split="speaker+script",
                    manifest=manifest,
                    split_options=SplitOptions(
                        n_folds=folds[0], n_script_folds=folds[1], val_fraction=0.0
                    ),
                    encoder=real_whisper_base(arguments.encoder),
                    overrides=(*SETTINGS[system], *arguments.set),
                    n_seeds=arguments.seeds,
                ),
                folders,
            )
            uar[system] = trial.uar
            print(f"{system}: UAR {mean_and_sd(list(trial.uar_by_seed().values()))} over seeds")
    print_known(KNOWN)
    if FROZEN in uar:
        print_verdict(
            f"frozen: UAR {uar[FROZEN]:.3f}", f">= {TARGET:.2f}", is_met=uar[FROZEN] >= TARGET
        )
    if len(uar) == 2:
        is_above = uar[TUNED] > uar[FROZEN]
        print_verdict(f"fine-tuned: UAR {uar[TUNED]:.3f}", "above frozen", is_met=is_above)


if __name__ == "__main__":
    with one_line_errors():
        main()
