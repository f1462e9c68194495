"""MFCC + CNN on real Korean speech: emotiontts_open_db, 10 speakers, 4 emotions.

(a) One speaker left out, ten folds, default settings: recognises the sentence as well, since
every sentence belongs to one emotion. (b) Speaker and sentence left out, 10 x 5 folds, 40
epochs without a val part, several seeds: recognises the emotion. Intervals are over
speakers.
"""

from __future__ import annotations

from inputs import add_corpus_option, real_corpus
from koser.data.splits import SplitOptions
from koser.errors import one_line_errors
from koser.experiment.request import TrainRequest
from measuring import mean_and_sd, print_heading, print_verdict
from trials import new_trial_parser, prepare, print_known, run_trial, trial_folders

TARGET_SECONDS = 300.0  # of (a)
TARGET_UAR = 0.60  # of (b)
KNOWN = (("CNN with untuned settings", 0.45), ("ComParE features + linear SVM", 0.690))


def main() -> None:
    parser = new_trial_parser(__doc__, n_seeds=3)
    add_corpus_option(parser, "emotiontts")
    arguments = parser.parse_args()
    root = real_corpus(arguments, "emotiontts")
    print_heading(__doc__, is_quick=arguments.quick)
    overrides = (*arguments.set, *(["train.epochs=1"] if arguments.quick else []))
    n_seeds = 2 if arguments.quick else arguments.seeds
    with trial_folders(arguments) as folders:
        manifest = prepare("emotiontts", root, folders)
        speaker = run_trial(
            "leave_one_speaker_out",
            TrainRequest(
                model="mfcc",
                split="leave_one_speaker_out",
                manifest=manifest,
                overrides=overrides,
            ),
            folders,
        )
        options = SplitOptions(n_folds=10, n_script_folds=5, val_fraction=0.0)
        if arguments.quick:
            options = SplitOptions(n_folds=2, n_script_folds=2, val_fraction=0.0)
        script = run_trial(
            "speaker+script",
            TrainRequest(
                model="mfcc",
                split="speaker+script",
                manifest=manifest,
                split_options=options,
                overrides=overrides,
                n_seeds=n_seeds,
            ),
            folders,
        )
    by_seed = script.uar_by_seed()
    for seed, uar in by_seed.items():
        print(f"speaker+script, seed {seed}: UAR {uar:.3f}")
    print(f"speaker+script: UAR {mean_and_sd(list(by_seed.values()))} over {len(by_seed)} seeds")
    print_known(KNOWN)
    print_verdict(
        f"leave_one_speaker_out in {speaker.seconds:.0f} s",
        f"< {TARGET_SECONDS:g} s",
        is_met=speaker.seconds < TARGET_SECONDS,
    )
    print_verdict(
        f"speaker+script: UAR {script.uar:.3f}",
        f">= {TARGET_UAR:.2f}",
        is_met=script.uar >= TARGET_UAR,
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
