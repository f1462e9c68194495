"""Words that say nothing: RAVDESS, two sentences for all emotions, published 6 folds.

Whisper-base and multilingual-e5-small (REAL). Text only has to be at chance, and the
fusion must not fall below sound only by more than its interval.
"""

from __future__ import annotations

from encoders import real_text_model, real_whisper_ct2
from inputs import add_corpus_option, real_corpus
from koser.data.splits import SplitOptions
from koser.errors import one_line_errors
from koser.experiment.request import TrainRequest
from koser.reporting.ablations import ablation_rows
from measuring import print_heading, print_table, print_verdict
from trials import new_trial_parser, prepare, run_trial, trial_folders


def main() -> None:
    parser = new_trial_parser(__doc__, n_seeds=1)
    add_corpus_option(parser, "ravdess")
    parser.add_argument("--whisper", help="folder or size; Whisper-base if not given")
    parser.add_argument("--text-model", help="hub id or folder; multilingual-e5-small if not given")
    arguments = parser.parse_args()
    root = real_corpus(arguments, "ravdess")
    print_heading(__doc__, is_quick=arguments.quick)
    quick = ("train.epochs=2",) if arguments.quick else ()
    with trial_folders(arguments) as folders:
        request = TrainRequest(
            model="multimodal",
            split="fixed:ravdess",
            manifest=prepare("ravdess", root, folders),
            split_options=SplitOptions(val_fraction=0.0),
            whisper=real_whisper_ct2(arguments.whisper),
            overrides=(*real_text_model(arguments.text_model), *quick, *arguments.set),
            n_seeds=arguments.seeds,
        )
        metrics = run_trial("ravdess", request, folders).run.metrics
    print(f"transcripts: {metrics['features']['transcripts']}")
    if "character error rate" in metrics["features"]:
        print(f"character error rate: {metrics['features']['character error rate']}")
    print_table([("ravdess", "UAR", "accuracy", "fusion is higher by"), *ablation_rows(metrics)])
    text, audio = metrics["ablations"]["text only"], metrics["ablations"]["audio only"]
    chance, (low, high) = metrics["chance_uar"], text["ci95"]["uar"]
    print_verdict(
        f"text only: UAR {text['uar']:.3f} [{low:.3f}, {high:.3f}]",
        f"chance, {chance:.3f}, in its interval",
        is_met=low <= chance <= high,
    )
    difference = audio["difference"]
    print_verdict(
        f"fusion - audio only: UAR {difference['uar']:+.3f}",
        "not below 0 by its interval",
        is_met=difference["ci95"]["uar"][1] >= 0,
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
