"""Every leak is planted once, and noticed; the honest pipelines pass."""

import numpy as np
import pytest

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
from koser.data.splits import SplitOptions, make_split
from koser.experiment.canaries import Pipeline, run_canaries
from koser.systems.system import Part


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Invented speech of eight speakers, in the order of the labels as folders have it."""
    folder = tmp_path_factory.mktemp("speech")
    rows = clean_rows(n_speakers=8, n_each=32, folder=folder)
    rows.sort(key=lambda row: (row["label"], row["id"]))
    return manifest(rows)


@pytest.fixture
def canaries(corpus, tmp_path):
    def run(system, protocol="speaker"):
        split = make_split(corpus, protocol, SplitOptions(test_fraction=0.4, val_fraction=0.0))
        pipeline = Pipeline(system, system.config_class(), tmp_path / "store")
        data = system.extract(
            corpus, pipeline.config, train_rows=np.arange(len(corpus)), store_root=tmp_path
        )
        trained = system(corpus.labels, pipeline.config)
        parts = [np.flatnonzero(split.parts(corpus)[0] == code) for code in (0, 1, 2)]
        trained.fit(data, Part(*parts, seed=0), resume_file=tmp_path / "last.pth")
        found = run_canaries(pipeline, corpus, split, trained, seed=0)
        return {canary.name: canary for canary in found}

    return run


@pytest.mark.parametrize("protocol", ["speaker", "random", "leave_one_speaker_out"])
def test_an_honest_pipeline_passes(canaries, protocol):
    found = canaries(HonestSystem, protocol)
    assert {canary.verdict for canary in found.values()} == {"pass"}


@pytest.mark.parametrize(
    ("system", "noticed_by"),
    [
        (BatchProjectionSystem, {"noise", "invariance"}),
        (LabelPeekingSystem, {"permuted_labels", "noise"}),
        (BatchNormalisingSystem, {"invariance"}),
        (PaddingSystem, {"invariance"}),
        (TrainsOnTestSystem, {"permuted_labels", "noise"}),
    ],
)
def test_a_planted_leak_is_noticed(canaries, system, noticed_by):
    found = canaries(system)
    assert noticed_by <= {name for name, canary in found.items() if canary.verdict == "fail"}


def test_the_references_projection_recognises_noise_as_its_defect_is_described(canaries):
    """PITFALLS: pure noise through a new projection per batch reaches 96-99 %."""
    noise = canaries(BatchProjectionSystem, "random")["noise"]
    assert noise.facts["uar"] > 0.7
    assert noise.facts["chance"] == 0.25


def test_what_a_canary_says_has_its_numbers(canaries):
    found = canaries(LabelPeekingSystem)
    permuted = found["permuted_labels"]
    assert permuted.facts["within_speakers"]
    assert permuted.facts["n_speakers"] == 4
    assert f"UAR {permuted.facts['uar']:.3f}" in permuted.summary
    assert "the pipeline knows the answers" in permuted.summary
