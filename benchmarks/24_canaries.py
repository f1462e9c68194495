"""Canaries: planted leaks that they notice, and what the reference's projection recognises.

Invented speech of eight speakers. An honest small system, then the same with each leak of the
tests, among them the reference implementation's new random projection for every batch of 16
files in class order. The third canary of each is that of batches and order. Several seeds; an
honest pipeline may be accused once in a thousand canaries.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from inputs import REPOSITORY
from koser.data.assignment import TEST, TRAIN, VAL
from koser.data.manifest import Manifest
from koser.data.splits import SplitOptions, make_split
from koser.experiment.canaries import Pipeline, run_canaries
from koser.systems.system import Part, System
from koser.training.canaries import Canary
from measuring import new_parser, print_heading, print_table, print_verdict

sys.path.insert(0, str(REPOSITORY / "tests"))  # the tests' systems and speech

N_SEEDS = 5
PROTOCOLS = ("random", "speaker")


def main() -> None:
    arguments = new_parser(__doc__).parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    from fixtures.audits import clean_rows
    from fixtures.manifests import manifest
    from fixtures.systems import (
        BatchNormalisingSystem,
        BatchProjectionSystem,
        HonestSystem,
        LabelPeekingSystem,
        PaddingSystem,
        TrainsOnTestSystem,
    )

    systems = {
        "honest": HonestSystem,
        "a projection per batch (the reference)": BatchProjectionSystem,
        "a scaler that knows the labels": LabelPeekingSystem,
        "test utterances in training": TrainsOnTestSystem,
        "standardised per batch": BatchNormalisingSystem,
        "padded without a mask": PaddingSystem,
    }
    n_seeds = 1 if arguments.quick else N_SEEDS
    rows = [("pipeline", "split", "noticed", "UAR on noise", "on dealt labels")]
    n_missed = n_accused = 0
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as folder:
        made = clean_rows(n_speakers=8, n_each=32, folder=Path(folder))
        made.sort(key=lambda row: (row["label"], row["id"]))
        corpus = manifest(made)
        for name, system in systems.items():
            for protocol in PROTOCOLS:
                found = [watch(system, corpus, protocol, seed) for seed in range(n_seeds)]
                n_noticed = sum(any(each.verdict == "fail" for each in one) for one in found)
                if name == "honest":
                    n_accused += n_noticed
                else:
                    n_missed += n_seeds - n_noticed
                uars = {
                    kind: np.mean([c.facts["uar"] for one in found for c in one if c.name == kind])
                    for kind in ("noise", "permuted_labels")
                }
                scores = [f"{uars['noise']:.2f}", f"{uars['permuted_labels']:.2f}"]
                rows.append((name, protocol, f"{n_noticed} of {n_seeds}", *scores))
    print_table(rows)
    print("chance: 0.25")
    print_verdict(f"planted leaks missed: {n_missed}", "none", is_met=n_missed == 0)
    print_verdict(f"honest pipelines accused: {n_accused}", "none", is_met=n_accused == 0)


def watch(system: type[System], corpus: Manifest, protocol: str, seed: int) -> tuple[Canary, ...]:
    options = SplitOptions(test_fraction=0.4, val_fraction=0.0, seed=seed)
    split = make_split(corpus, protocol, options)
    (part,) = split.parts(corpus)
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as folder:
        pipeline = Pipeline(system, system.config_class(), Path(folder) / "store")
        data = system.extract(
            corpus, pipeline.config, train_rows=np.arange(len(corpus)), store_root=Path(folder)
        )
        trained = system(corpus.labels, pipeline.config)
        rows = [np.flatnonzero(part == code) for code in (TRAIN, VAL, TEST)]
        trained.fit(data, Part(*rows, seed=seed), resume_file=Path(folder) / "last.pth")
        return run_canaries(pipeline, corpus, split, trained, seed=seed)


if __name__ == "__main__":
    main()
