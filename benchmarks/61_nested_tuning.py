"""MFCC + CNN on emotiontts, speaker and sentence out, its settings chosen within each fold.

Nested cross-validation: an outer fold is two speakers and a fifth of the sentences; its
settings, those of the front-end and the augmentation among them, are chosen by speaker +
sentence folds of the eight other speakers and the other sentences. No test fold has a say in
the choice. Beside it: the defaults on the same folds.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from inputs import add_corpus_option, real_corpus
from koser.data.splits import SplitOptions
from koser.errors import one_line_errors
from koser.experiment.request import TrainRequest
from koser.experiment.search import SearchSpace
from koser.experiment.tuning import TuneOptions, Tuning
from koser.reporting.wording import tuning_line
from koser.systems.mfcc import MfccConfig
from measuring import print_heading, print_table, print_verdict
from trials import new_trial_parser, prepare, run_trial, trial_folders

TARGET_UAR = 0.60
# From what a tutorial would do (25 ms windows, no augmentation, few epochs) to the defaults.
SPACE = """
speeds = [[], [0.9, 1.1]]
[mfcc]
win_length = [400, 1024, 2048]
[cnn]
dropout = [0.2, 0.4]
channel_dropout = [0.0, 0.05]
[train]
learning_rate = [0.001, 0.004]
epochs = [20, 40, 60]
"""


def main() -> None:
    parser = new_trial_parser(__doc__, n_seeds=1)
    parser.add_argument("--trials", type=int, default=8, help="settings tried in each fold")
    add_corpus_option(parser, "emotiontts")
    arguments = parser.parse_args()
    root = real_corpus(arguments, "emotiontts")
    print_heading(__doc__, is_quick=arguments.quick)
    n_folds, n_trials, n_inner = (2, 2, 2) if arguments.quick else (5, arguments.trials, 4)
    overrides = (*arguments.set, *(["train.epochs=1"] if arguments.quick else []))
    with trial_folders(arguments) as folders, TemporaryDirectory() as temporary:
        manifest = prepare("emotiontts", root, folders)
        file = Path(temporary) / "space.toml"
        file.write_text(SPACE.replace("[20, 40, 60]", "[1, 2]") if arguments.quick else SPACE)
        options = TuneOptions(n_trials=n_trials, n_folds=n_inner, n_script_folds=2, objective="nll")
        ways = {
            "defaults": None,
            "tuned": Tuning(SearchSpace.read(file, MfccConfig), options),
        }
        found = {
            name: run_trial(
                name,
                TrainRequest(
                    model="mfcc",
                    split="speaker+script",
                    manifest=manifest,
                    split_options=SplitOptions(n_folds=n_folds, val_fraction=0.0),
                    overrides=overrides,
                    tuning=tuning,
                ),
                folders,
            )
            for name, tuning in ways.items()
        }
    metrics = found["tuned"].run.metrics
    print(f"{tuning_line(metrics)}.")
    print_table([("chosen in", "of"), *counts(metrics["tuning"]["folds"])])
    print_verdict(
        f"tuned within each fold: UAR {found['tuned'].uar:.3f}",
        f">= {TARGET_UAR:.2f}",
        is_met=found["tuned"].uar >= TARGET_UAR,
    )


def counts(folds: list[dict[str, dict[str, object]]]) -> list[tuple[str, str]]:
    """How often each value of each setting was chosen."""
    rows = []
    for key in folds[0]["settings"]:
        chosen = [str(fold["settings"][key]) for fold in folds]
        of_value = (f"{value} in {chosen.count(value)}" for value in sorted(set(chosen)))
        rows.append((key, ", ".join(of_value)))
    return rows


if __name__ == "__main__":
    with one_line_errors():
        main()
