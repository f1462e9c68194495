"""Functionals of prosody and a linear classifier: emotiontts_open_db, RAVDESS, and the speed.

Default settings. emotiontts: one speaker left out, and speaker and sentence left out (10 x 5
folds, no val part). RAVDESS: the published speaker-disjoint 6 folds. Intervals are over
speakers. Speed: all functionals of 5-s clips in memory, one core, against `librosa.pyin`,
the plain way to the pitch alone.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from inputs import add_corpus_option, iter_clips, real_corpus
from koser.data.splits import SplitOptions
from koser.errors import one_line_errors
from koser.experiment.request import TrainRequest
from koser.features.prosody.extractor import ProsodyExtractor
from koser.features.prosody.pitch import PitchOptions
from measuring import mean_and_sd, print_heading, print_table, print_verdict, time_in_turns
from trials import Folders, new_trial_parser, prepare, print_known, run_trial, trial_folders

TARGET_RATIO = 5.0
SECONDS = 5.0
KNOWN = {
    "emotiontts": (("ComParE features + linear SVM, speaker+script", 0.690),),
    "ravdess": (("eGeMAPS", 0.50),),
}
CORPORA = ("emotiontts", "ravdess")


def main() -> None:
    parser = new_trial_parser(__doc__, n_seeds=1)
    for corpus in CORPORA:
        add_corpus_option(parser, corpus)
    parser.add_argument("--only", choices=("speed", *CORPORA), help="one of the three parts")
    arguments = parser.parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    if arguments.only in (None, "speed"):
        measure_speed(is_quick=arguments.quick)
    with trial_folders(arguments) as folders:
        for corpus in CORPORA:
            if arguments.only in (None, corpus):
                score(corpus, arguments, folders)


def measure_speed(*, is_quick: bool) -> None:
    clips = list(iter_clips(2 if is_quick else 16, seconds=SECONDS))
    works = {
        "plain: librosa.pyin, pitch alone": partial(with_librosa, clips),
        "ours, all functionals": partial(with_koser, clips, ProsodyExtractor(PitchOptions())),
    }
    with threadpool_limits(1):
        for work in works.values():  # librosa compiles when first called
            work()
        timings = time_in_turns(works, n_rounds=1 if is_quick else 5)
    plain, ours = timings.values()
    print_table(
        [("one core", "x real time", "cores")]
        + [
            (name, f"{len(clips) * SECONDS / timing.seconds:,.1f}", f"{timing.cores:.2f}")
            for name, timing in timings.items()
        ]
    )
    ratio = plain.seconds / ours.seconds
    print_verdict(
        f"{ratio:.1f} times librosa.pyin", f">= {TARGET_RATIO:g}", is_met=ratio >= TARGET_RATIO
    )


def with_librosa(clips: list[np.ndarray]) -> None:
    import librosa

    for clip in clips:
        librosa.pyin(clip, fmin=60, fmax=600, sr=16_000, frame_length=1024, hop_length=256)


def with_koser(clips: list[np.ndarray], extractor: ProsodyExtractor) -> None:
    for clip in clips:
        extractor(clip)


def score(corpus: str, arguments: argparse.Namespace, folders: Folders) -> None:
    manifest = prepare(corpus, real_corpus(arguments, corpus), folders)
    overrides = (*arguments.set, *(["train.epochs=1"] if arguments.quick else []))
    n_folds, n_script_folds = (2, 2) if arguments.quick else (10, 5)
    options = SplitOptions(n_folds=n_folds, n_script_folds=n_script_folds, val_fraction=0.0)
    protocols = {
        "emotiontts": (("leave_one_speaker_out", SplitOptions()), ("speaker+script", options)),
        "ravdess": (("fixed:ravdess", SplitOptions()),),
    }[corpus]
    for split, split_options in protocols:
        trial = run_trial(
            f"{corpus}-{split.replace(':', '-')}",
            TrainRequest(
                model="prosody",
                split=split,
                manifest=manifest,
                split_options=split_options,
                overrides=overrides,
                n_seeds=arguments.seeds,
            ),
            folders,
        )
        by_seed = trial.uar_by_seed()
        if len(by_seed) > 1:
            print(f"{split}: UAR {mean_and_sd(list(by_seed.values()))} over {len(by_seed)} seeds")
    print_known(KNOWN[corpus])


if __name__ == "__main__":
    with one_line_errors():
        main()
