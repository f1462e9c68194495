"""Two systems on RAVDESS in one table: MFCC + CNN and frozen Whisper-base (REAL weights).

Both under one speaker-independent split; the table has intervals, paired tests by speaker
and what each system costs on this machine. With `--out` the runs, `comparison.html` and
its `.md` and `.csv` are kept.
"""

from __future__ import annotations

from encoders import real_whisper_base
from inputs import add_corpus_option, real_corpus
from koser.errors import one_line_errors
from koser.experiment.request import TrainRequest
from koser.reporting.comparison import compare_runs
from koser.reporting.comparison_page import SUFFIXES, write_comparison
from koser.terminal.results import print_comparison
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
    with trial_folders(arguments) as folders:
        manifest = prepare("ravdess", root, folders)
        for model in ("mfcc", "wav2vec2"):
            request = TrainRequest(
                model=model,
                split="speaker",
                manifest=manifest,
                encoder=real_whisper_base(arguments.encoder) if model == "wav2vec2" else None,
                overrides=(*arguments.set, *quick),
                n_seeds=arguments.seeds,
            )
            run_trial(model, request, folders)
        comparison = compare_runs([folders.runs / model for model in ("mfcc", "wav2vec2")])
        print_comparison(comparison)
        for suffix in SUFFIXES:
            write_comparison(comparison, folders.runs / f"comparison{suffix}", language="en")
        pair = comparison.rows[1].against_baseline
        p = 1.0 if pair is None else pair.p_adjusted["uar"] or 1.0
        print(f"frozen Whisper-base differs from MFCC + CNN in UAR: p = {p:.4f}")


if __name__ == "__main__":
    with one_line_errors():
        main()
