"""Does RAVDESS (English) help emotiontts (Korean)? From scratch, pre-trained on it, and jointly.

Shared labels angry, happiness, neutral, sadness (mapping `four-without-calm`). Every system is
tested on all utterances of emotiontts, speaker and sentence left out, in the same 5 × 2 folds:
`scratch`; `pretrained`, which starts from a training on RAVDESS; `adapted`, the same with a tenth
of the learning rate and fewer epochs; and `joint`, with all of RAVDESS in the train part of every
fold, corpora and labels heard equally often. Paired differences from `scratch` are over speakers.
Whisper-base has its REAL weights, and is frozen.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl

from encoders import real_whisper_base
from inputs import add_corpus_option, real_corpus
from koser.data.combining import combine
from koser.data.manifest import Manifest
from koser.data.mapping import map_labels, read_mapping
from koser.data.splits import SCHEMA, Split, SplitOptions, resolve_split
from koser.errors import one_line_errors
from koser.evaluation.comparison import compare_all
from koser.evaluation.pairing import Answers
from koser.experiment.request import TrainRequest
from koser.reporting import figures
from measuring import print_heading, print_table
from trials import Folders, Trial, new_trial_parser, prepare, run_trial, trial_folders

TARGET, SOURCE = "emotiontts", "ravdess"
MAPPING = "four-without-calm"
ADAPTED = {
    "mfcc": ("train.epochs=20", "train.learning_rate=4e-4"),
    "wav2vec2": ("train.epochs=30", "train.learning_rate=1e-4"),
}
QUICK = ("train.epochs=2", "speeds=[]")


def main() -> None:
    parser = new_trial_parser(__doc__, n_seeds=1)
    for corpus in (TARGET, SOURCE):
        add_corpus_option(parser, corpus)
    parser.add_argument("--encoder", help="hub id or folder; Whisper-base if not given")
    parser.add_argument("--systems", nargs="+", default=list(ADAPTED), choices=list(ADAPTED))
    arguments = parser.parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    with trial_folders(arguments) as folders:
        paths = {corpus: _manifest(corpus, arguments, folders) for corpus in (TARGET, SOURCE)}
        splits = _write_splits(paths, folders, is_quick=arguments.quick)
        for system in arguments.systems:
            trials = _run_all(system, paths, splits, arguments, folders)
            _print_comparison(system, trials)


def _manifest(corpus: str, arguments: argparse.Namespace, folders: Folders) -> Path:
    path = prepare(corpus, real_corpus(arguments, corpus), folders)
    manifest = map_labels(Manifest.read(path), read_mapping(MAPPING))
    print(f"{corpus}: {len(manifest)} utterances with shared labels")
    manifest.write(path)
    return path


def _write_splits(paths: dict[str, Path], folders: Folders, *, is_quick: bool) -> dict[str, Path]:
    """The target's folds alone, and with all of the source to train on."""
    target, source = (Manifest.read(paths[corpus]) for corpus in (TARGET, SOURCE))
    options = SplitOptions(n_folds=2 if is_quick else 5, n_script_folds=2, val_fraction=0.0)
    alone = resolve_split(target, "speaker+script", options)
    own = alone.table.with_columns((f"{TARGET}/" + pl.col("id")).alias("id"))
    others = combine([target, source]).table.filter(corpus=SOURCE).select("id")
    learnt = others.join(own.select("fold").unique(), how="cross").with_columns(
        part=pl.lit("train")
    )
    table = pl.concat([own, learnt.select("id", "fold", "part").cast(dict(SCHEMA))])
    made = {}
    for name, split in {
        "alone": alone,
        "joint": Split(table, f"speaker+script, with {SOURCE}", alone.grouping, options),
    }.items():
        made[name] = folders.runs / f"{name}.split.parquet"
        split.write(made[name])
    return made


def _run_all(
    system: str,
    paths: dict[str, Path],
    splits: dict[str, Path],
    arguments: argparse.Namespace,
    folders: Folders,
) -> dict[str, Trial]:
    overrides = (*arguments.set, *(QUICK if arguments.quick else ()))
    encoder = None if system == "mfcc" else real_whisper_base(arguments.encoder)

    def run(name: str, split: str, *corpora: str, more: tuple[str, ...] = (), **given: object):
        request = TrainRequest(
            model=system,
            split=split,
            manifest=paths[corpora[0]],
            more_manifests=tuple(paths[corpus] for corpus in corpora[1:]),
            encoder=encoder,
            overrides=(*more, *overrides),
            **given,
        )
        return run_trial(f"{system}-{name}", request, folders)

    before = run("before", "speaker", SOURCE, split_options=SplitOptions(test_fraction=0.1))
    start = {"init": before.run.folder, "n_seeds": arguments.seeds}
    balance = ("train.balance=corpus+label",)
    return {
        "scratch": run("scratch", str(splits["alone"]), TARGET, n_seeds=arguments.seeds),
        "pretrained": run("pretrained", str(splits["alone"]), TARGET, **start),
        "adapted": run("adapted", str(splits["alone"]), TARGET, more=ADAPTED[system], **start),
        "joint": run("joint", str(splits["joint"]), TARGET, SOURCE, more=balance,
                     n_seeds=arguments.seeds),
    }  # fmt: skip


def _print_comparison(system: str, trials: dict[str, Trial]) -> None:
    answers, labels = [], trials["scratch"].run.results.evaluation.labels
    for name, trial in trials.items():
        table = trial.run.results.predictions
        answers.append(
            Answers(
                name,
                table["id"].str.strip_prefix(f"{TARGET}/").to_numpy(),
                table["label"].to_numpy(),
                table["predicted"].to_numpy(),
                table["cluster"].str.strip_prefix(f"{TARGET}/").to_numpy(),
            )
        )
    compared = compare_all(answers, labels=labels, cluster_kind="speaker", baseline=0)
    rows = [["", "UAR [95 %]", "points against scratch [95 %]", "p (Holm)"]]
    for place, (name, trial) in enumerate(trials.items()):
        uar = trial.run.metrics["uar"], trial.run.metrics["ci95"]["uar"]
        row = [f"{system}, {name}", figures.score(*uar), "", ""]
        if place:
            found = compared[place - 1]
            difference = found.differences["uar"]
            row[2] = figures.points(difference.value, difference.bounds)
            row[3] = figures.p_value(found.p_adjusted["uar"])
        rows.append(row)
    print_table(rows)
    first = compared[0]
    print(
        f"speaker+script, 5 × 2 folds (quick: 2 × 2), n = {first.n_utterances}, "
        f"{first.n_clusters} speakers, seeds {first.n_seeds[0]}"
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
