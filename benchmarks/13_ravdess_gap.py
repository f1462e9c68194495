"""The gap between a random and a speaker split: frozen Whisper-base (REAL weights) on RAVDESS.

Two runs on the same features, and the difference of their scores with an interval
over the speakers of both sides at once.
"""

from __future__ import annotations

from encoders import real_whisper_base
from inputs import add_corpus_option, real_corpus
from koser.errors import one_line_errors
from koser.experiment.request import TrainRequest
from koser.experiment.series import FinishedRun, compare
from koser.reporting.wording import gap_line
from measuring import print_heading
from trials import new_trial_parser, prepare, run_trial, trial_folders


def main() -> None:
    parser = new_trial_parser(__doc__, n_seeds=1)
    add_corpus_option(parser, "ravdess")
    parser.add_argument("--encoder", help="hub id or folder; Whisper-base if not given")
    arguments = parser.parse_args()
    root = real_corpus(arguments, "ravdess")
    print_heading(__doc__, is_quick=arguments.quick)
    quick = ("train.epochs=1",) if arguments.quick else ()
    runs = []
    with trial_folders(arguments) as folders:
        manifest = prepare("ravdess", root, folders)
        for split in ("random", "speaker"):
            request = TrainRequest(
                model="wav2vec2",
                split=split,
                manifest=manifest,
                encoder=real_whisper_base(arguments.encoder),
                overrides=(*arguments.set, *quick),
                n_seeds=arguments.seeds,
            )
            run = run_trial(split, request, folders).run
            runs.append(FinishedRun.read(run.experiment, run.folder))
    print(gap_line(compare(*runs).to_dict()))


if __name__ == "__main__":
    with one_line_errors():
        main()
