"""Sound and words on real Korean speech: emotiontts, Whisper-base and multilingual-e5-small (REAL).

Every fusion with its ablations, (a) one speaker left out: each sentence belongs to one
emotion, so words recognise it; (b) speaker and sentence left out, 10 x 5 folds. What the
script leak contributes is the difference of the two, per modality.
"""

from __future__ import annotations

from typing import Any

from encoders import real_text_model, real_whisper_ct2
from inputs import add_corpus_option, real_corpus
from koser.data.splits import SplitOptions
from koser.errors import one_line_errors
from koser.experiment.request import TrainRequest
from koser.reporting.ablations import ablation_rows
from measuring import print_heading, print_table, print_verdict
from trials import new_trial_parser, prepare, run_trial, trial_folders

KINDS = ("concat", "gated", "cross_attention")


def main() -> None:
    parser = new_trial_parser(__doc__, n_seeds=1)
    add_corpus_option(parser, "emotiontts")
    parser.add_argument("--whisper", help="folder or size; Whisper-base if not given")
    parser.add_argument("--text-model", help="hub id or folder; multilingual-e5-small if not given")
    parser.add_argument("--fusions", nargs="+", default=list(KINDS), choices=KINDS)
    arguments = parser.parse_args()
    root = real_corpus(arguments, "emotiontts")
    print_heading(__doc__, is_quick=arguments.quick)
    shape = (2, 2) if arguments.quick else (10, 5)
    quick = ("train.epochs=2",) if arguments.quick else ()
    protocols = {
        "leave_one_speaker_out": SplitOptions(val_fraction=0.0),
        "speaker+script": SplitOptions(n_folds=shape[0], n_script_folds=shape[1], val_fraction=0.0),
    }
    found: dict[tuple[str, str], dict[str, Any]] = {}
    with trial_folders(arguments) as folders:
        manifest = prepare("emotiontts", root, folders)
        for kind in arguments.fusions:
            for split, options in protocols.items():
                request = TrainRequest(
                    model="multimodal",
                    split=split,
                    manifest=manifest,
                    split_options=options,
                    whisper=real_whisper_ct2(arguments.whisper),
                    overrides=(
                        *real_text_model(arguments.text_model),
                        f"fusion.kind={kind}",
                        *quick,
                        *arguments.set,
                    ),
                    n_seeds=arguments.seeds,
                )
                trial = run_trial(f"{kind}-{split}", request, folders)
                found[kind, split] = trial.run.metrics
                heading = (f"{kind}, {split}", "UAR", "accuracy", "fusion is higher by")
                print_table([heading, *ablation_rows(trial.run.metrics)])
    error = next(iter(found.values()))["features"]["character error rate"]
    print(f"character error rate of the transcripts: {100 * error:.2f} %")
    print_leak(found)
    for kind in arguments.fusions:
        metrics = found[kind, "speaker+script"]
        alone = max(metrics["ablations"][f"{name} only"]["uar"] for name in ("audio", "text"))
        print_verdict(
            f"{kind}, speaker+script: UAR {metrics['uar']:.3f}",
            f"above the better of sound and words alone, {alone:.3f}",
            is_met=metrics["uar"] > alone,
        )


def print_leak(found: dict[tuple[str, str], dict[str, Any]]) -> None:
    """How much higher each modality scores where the sentences are known."""
    rows = [("UAR with sentences known - unheard", "fusion", "audio only", "text only")]
    for kind in dict.fromkeys(kind for kind, _ in found):
        known, unheard = found[kind, "leave_one_speaker_out"], found[kind, "speaker+script"]
        parts = [("", known["uar"] - unheard["uar"])]
        parts += [
            (name, known["ablations"][name]["uar"] - unheard["ablations"][name]["uar"])
            for name in ("audio only", "text only")
        ]
        rows.append((kind, *(f"{gap:+.3f}" for _, gap in parts)))
    print_table(rows)


if __name__ == "__main__":
    with one_line_errors():
        main()
