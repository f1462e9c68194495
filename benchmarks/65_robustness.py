"""What noise, telephones, rooms and clipping cost: any system, Whisper-base and e5-small REAL.

emotiontts, speaker and sentence left out, 5 × 2 folds by default (10 × 5 take five times as
long to train; hearing takes the same). Every utterance is heard clean and under 26 conditions by
the model that has learnt neither its speaker nor its sentence. Noise, other voices and rooms are
the same for all systems. `--systems fusion --kinds g711a opus` for others and for some conditions:
a system that reads is slow in noise, where Whisper begins again and again; what it has heard is in
`--store` for the next system.
"""

from __future__ import annotations

import time

from encoders import add_pretrained_options, pretrained_of
from inputs import add_corpus_option, real_corpus
from koser.audio.degradation import KINDS
from koser.data.splits import SplitOptions
from koser.engines.local import available_cores
from koser.errors import one_line_errors
from koser.experiment.request import TrainRequest
from koser.experiment.robustness import RobustnessRequest, measure_robustness
from koser.terminal.results import print_robustness
from measuring import print_heading
from trials import new_trial_parser, prepare, run_trial, trial_folders

QUICK = ("train.epochs=2", "speeds=[]")
QUICK_KINDS = ("noise", "g711a", "reverberation")


def main() -> None:
    parser = new_trial_parser(__doc__, n_seeds=1)
    add_corpus_option(parser, "emotiontts")
    add_pretrained_options(parser)
    parser.add_argument("--systems", nargs="+", default=["mfcc", "wav2vec2"])
    parser.add_argument("--kinds", nargs="+", default=[], choices=list(KINDS), help="all if none")
    parser.add_argument("--folds", type=int, default=5, help="of speakers")
    parser.add_argument("--script-folds", type=int, default=2)
    arguments = parser.parse_args()
    root = real_corpus(arguments, "emotiontts")
    print_heading(__doc__, is_quick=arguments.quick)
    folds = (2, 2) if arguments.quick else (arguments.folds, arguments.script_folds)
    with trial_folders(arguments) as folders:
        manifest = prepare("emotiontts", root, folders)
        for system in arguments.systems:
            models = pretrained_of(system, arguments)
            request = TrainRequest(
                model=system,
                split="speaker+script",
                manifest=manifest,
                split_options=SplitOptions(
                    n_folds=folds[0], n_script_folds=folds[1], val_fraction=0.0
                ),
                encoder=models.encoder,
                whisper=models.whisper,
                overrides=(
                    *models.overrides,
                    *(QUICK if arguments.quick else ()),
                    *arguments.set,
                ),
                n_seeds=arguments.seeds,
            )
            run = run_trial(system, request, folders).run
            started = time.perf_counter()
            kinds = tuple(arguments.kinds) or (QUICK_KINDS if arguments.quick else ())
            asked = RobustnessRequest(run.folder, (manifest,), kinds, seed=0, places={})
            values = measure_robustness(
                asked, run.folder, store_root=folders.store, n_workers=available_cores()
            )
            print_robustness(values)
            n_heard = values["n"] * len(values["seeds"]) * (1 + len(values["conditions"]))
            seconds = time.perf_counter() - started
            print(f"{system}: {seconds:.0f} s for {n_heard:,} recognitions")


if __name__ == "__main__":
    with one_line_errors():
        main()
