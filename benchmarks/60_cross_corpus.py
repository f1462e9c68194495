"""emotiontts (Korean) and RAVDESS (English): every system trained on one, tested on both.

Shared labels angry, happiness, neutral, sadness; RAVDESS's calm is left out (mapping
`four-without-calm`). One protocol for all: speaker and sentence left out, 5 × 2 folds. Within a
corpus a cell is those test parts; across, the kept model on all of the other corpus. `both` is
trained on the two together, corpora and labels heard equally often, with and without
normalisation per corpus. Whisper-base has its REAL weights, and is frozen.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import polars as pl

from encoders import add_pretrained_options, pretrained_of
from inputs import add_corpus_option, real_corpus
from koser.data.manifest import LeftOut, Manifest
from koser.data.mapping import map_labels, read_mapping
from koser.data.splits import SplitOptions
from koser.errors import one_line_errors
from koser.experiment.matrix import evaluate_matrix
from koser.experiment.request import TrainRequest
from koser.reporting.matrix import write_matrix
from koser.terminal.results import print_matrix
from measuring import print_heading
from trials import Folders, new_trial_parser, prepare, run_trial, trial_folders

CORPORA = ("emotiontts", "ravdess")
MAPPING = "four-without-calm"
QUICK_SPEAKERS = 2  # of each corpus: it shows that it works, not how well
QUICK = ("train.epochs=3", "speeds=[]")
BOTH = {
    "both": ("train.balance=corpus+label",),
    "both-normalised": ("train.balance=corpus+label", "corpora.normalise=corpus"),
}


def main() -> None:
    parser = new_trial_parser(__doc__, n_seeds=1)
    for corpus in CORPORA:
        add_corpus_option(parser, corpus)
    add_pretrained_options(parser)
    parser.add_argument("--systems", nargs="+", default=["mfcc", "wav2vec2"])
    arguments = parser.parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    with trial_folders(arguments) as folders:
        manifests = [_manifest(corpus, arguments, folders) for corpus in CORPORA]
        runs = []
        for system in arguments.systems:
            models = pretrained_of(system, arguments)
            for name, paths, overrides in _trainings(manifests):
                request = TrainRequest(
                    model=system,
                    split="speaker+script",
                    manifest=paths[0],
                    more_manifests=paths[1:],
                    split_options=SplitOptions(
                        n_folds=2 if arguments.quick else 5, n_script_folds=2, val_fraction=0.0
                    ),
                    encoder=models.encoder,
                    whisper=models.whisper,
                    overrides=(
                        *models.overrides,
                        *overrides,
                        *(QUICK if arguments.quick else ()),
                        *arguments.set,
                    ),
                    n_seeds=arguments.seeds,
                )
                runs.append(run_trial(f"{system}-{name}", request, folders).run.folder)
        matrix = evaluate_matrix(runs, manifests)
        print_matrix(matrix)
        if arguments.out is not None:
            for path in write_matrix(matrix, folders.runs / "matrix", language="en"):
                print(f"matrix: {path}")


def _manifest(corpus: str, arguments: argparse.Namespace, folders: Folders) -> Path:
    """The corpus with shared labels; in a quick run, of some of its speakers."""
    path = prepare(corpus, real_corpus(arguments, corpus), folders)
    manifest = map_labels(Manifest.read(path), read_mapping(MAPPING))
    if arguments.quick:
        manifest = _first_speakers(manifest, QUICK_SPEAKERS)
    for note in manifest.provenance.notes[-1:]:
        print(f"{corpus}: {note}")
    print(
        f"{corpus}: {len(manifest)} utterances of {manifest.table['speaker'].n_unique()} speakers"
    )
    manifest.write(path)
    return path


def _first_speakers(manifest: Manifest, n_speakers: int) -> Manifest:
    kept = manifest.table["speaker"].unique().sort().head(n_speakers)
    is_kept = pl.col("speaker").is_in(kept.implode())
    left_out = tuple(
        LeftOut(name, "speaker not in the quick run")
        for name in manifest.table.filter(~is_kept)["id"]
    )
    provenance = replace(manifest.provenance, left_out=(*manifest.provenance.left_out, *left_out))
    return Manifest(manifest.table.filter(is_kept), provenance).validate()


def _trainings(manifests: list[Path]) -> list[tuple[str, tuple[Path, ...], tuple[str, ...]]]:
    """Name, manifests and settings of each training."""
    alone = [(corpus, (path,), ()) for corpus, path in zip(CORPORA, manifests, strict=True)]
    return [*alone, *((name, tuple(manifests), settings) for name, settings in BOTH.items())]


if __name__ == "__main__":
    with one_line_errors():
        main()
