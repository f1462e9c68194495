"""Systems with speaker enrolment: nothing changes without, much where speakers are what differs."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from fixtures.encoders import save_encoder
from fixtures.manifests import manifest
from koser.audio.reading import load
from koser.config import resolve_config
from koser.data.corpora.folder import prepare
from koser.data.enrolment import Enrolment
from koser.data.manifest import Manifest
from koser.errors import ConfigError, SplitError
from koser.evaluation.metrics import unweighted_average_recall
from koser.features.speech.loading import EncoderOptions
from koser.features.store import FeatureStore
from koser.features.voices import SpeakerPrior
from koser.models.checkpoint import Checkpoint
from koser.systems import system_class
from koser.systems.dimensions import DimensionalSystem
from koser.systems.speech import SpeechData
from koser.systems.system import Part, target_distributions
from koser.systems.variants import StoredVariants
from koser.systems.wav2vec2 import Wav2Vec2System
from koser.training.corpora import Origins

QUICK = {
    "mfcc": ("train.epochs=3", "train.batch_size=8", "cnn.channels=[4, 6]", "cnn.hidden_size=8"),
    "wav2vec2": ("train.epochs=3",),
    "frames": ("train.epochs=3", 'head.pooling="attentive"', "head.layers=1"),
}
ENROLLED = ("enrolment.k=2", "enrolment.pool=2")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder("wav2vec2", tmp_path_factory.mktemp("encoder") / "wav2vec2")


@pytest.fixture
def corpus(tone_corpus):
    return prepare(tone_corpus(seconds=0.4), speaker_pattern=r"(s\d)_")


def part_of(corpus):
    speakers = corpus.table["speaker"].to_numpy()
    rows = np.arange(len(corpus))
    return Part(rows[speakers < "s4"], rows[speakers == "s4"], rows[speakers == "s5"], seed=3)


def fitted(kind, corpus, encoder, folder, *overrides):
    name = "mfcc" if kind == "mfcc" else "wav2vec2"
    chosen = [*QUICK[kind], *overrides]
    chosen += [] if name == "mfcc" else [f"encoder.name={encoder}"]
    config = resolve_config(system_class(name).config_class, overrides=chosen)
    system, part = system_class(name)(corpus.labels, config), part_of(corpus)
    store = folder.parent / "store"
    data = system.extract(corpus, config, train_rows=part.train, store_root=store)
    folder.mkdir()
    system.fit(data, part, resume_file=folder / "last.pth")
    return system, data


@pytest.mark.parametrize("kind", QUICK)
def test_without_utterances_nothing_changes_bit_for_bit(kind, corpus, encoder, tmp_path):
    plain, plain_data = fitted(kind, corpus, encoder, tmp_path / "plain")
    none, none_data = fitted(kind, corpus, encoder, tmp_path / "none", "enrolment.k=0")
    rows = part_of(corpus).test
    np.testing.assert_array_equal(
        none.predict_rows(none_data, rows), plain.predict_rows(plain_data, rows)
    )
    states = [each.to_checkpoint({}).state for each in (plain, none)]
    assert set(states[0]) == set(states[1])
    assert all((states[0][name] == states[1][name]).all() for name in states[0])
    assert plain.prior is none.prior is None


def exaggerate(system):
    """Let voices differ as utterances do, and a network that has hardly learnt be sure."""
    prior = system._enroller.prior
    loud = SpeakerPrior(prior.mean, prior.within, prior.within)
    system._enroller = replace(system._enroller, prior=loud)
    with torch.no_grad():
        for name, parameter in system.network.named_parameters():
            if name.endswith(("classifier.weight", "maps")):
                parameter.mul_(30)


@pytest.mark.parametrize("kind", QUICK)
def test_an_enrolled_voice_is_recognised_as_in_the_test(kind, corpus, encoder, tmp_path):
    """From the store, and from sound in any company, as loaded from the checkpoint."""
    system, data = fitted(kind, corpus, encoder, tmp_path / "a", *ENROLLED)
    exaggerate(system)
    system.to_checkpoint({}).write(tmp_path / "model.pth")
    loaded = type(system).from_checkpoint(Checkpoint.read(tmp_path / "model.pth"))
    part, waveforms = part_of(corpus), [load(path) for path in corpus.table["path"]]
    enrolment = Enrolment.draw(corpus, system.config.enrolment)
    heard = enrolment.heard(int(enrolment.speakers[part.test[0]]), 2)
    voice = loaded.prior.hear(loaded.summarise([waveforms[row] for row in heard]))
    stored = system.predict_rows(data, part.test)
    tested = [waveforms[row] for row in part.test]
    np.testing.assert_allclose(
        loaded.predict_enrolled(tested, [voice] * len(tested)), stored, atol=1e-3
    )
    mixed = loaded.predict_enrolled([tested[0], *tested], [None, *[voice] * len(tested)])
    np.testing.assert_allclose(mixed[1:], stored, atol=1e-3)
    np.testing.assert_allclose(mixed[0], loaded.predict_waveforms(tested[:1])[0], atol=1e-3)
    assert np.abs(loaded.predict_waveforms(tested) - stored).max() > 0.02


def test_no_label_of_a_tested_person_is_looked_at(corpus, encoder, tmp_path):
    part = part_of(corpus)
    is_tested = pl.int_range(len(corpus)).is_in(part.test.tolist())
    dealt = corpus.table.with_columns(
        pl.when(is_tested).then(pl.col("label").reverse()).otherwise("label").alias("label")
    )
    assert (dealt["label"] != corpus.table["label"]).any()
    found = []
    for number, each in enumerate((corpus, Manifest(dealt, corpus.provenance))):
        system, data = fitted("mfcc", each, encoder, tmp_path / f"{number}", *ENROLLED)
        found.append(system.predict_rows(data, part.test))
    np.testing.assert_array_equal(found[0], found[1])


def planted(folder, *, k, shift):
    """UAR on new speakers where a label is an offset, and a speaker a `shift` times larger one."""
    rng = np.random.default_rng(0)
    n_speakers, n_each, labels = 24, 12, ("angry", "neutral", "sadness")
    speakers = np.repeat(np.arange(n_speakers), n_each)
    label_ids = np.tile(np.arange(n_each) % 3, n_speakers)
    statistics = rng.normal(size=(len(speakers), 3, 2, 8)) * 0.5
    statistics += rng.normal(size=(3, 3, 2, 8))[label_ids]
    statistics += shift * rng.normal(size=(n_speakers, 3, 2, 8))[speakers]
    made = manifest(
        [
            {"label": labels[label], "speaker": f"s{speaker:02d}"}
            for label, speaker in zip(label_ids, speakers, strict=True)
        ]
    )
    store = FeatureStore(folder, {"extractor": "invented", "shift": shift}, dtype="float16")
    keys = np.array([[f"{row}".encode() for row in range(len(speakers))]], "S16")
    with store.writer() as writer:
        for row, key in enumerate(keys[0]):
            writer.append(bytes(key), statistics[row].astype(np.float16))
    config = resolve_config(
        Wav2Vec2System.config_class,
        overrides=[f"enrolment.k={k}", "head.ridge=30", "train.epochs=25"],
    )
    description = {"extractor": "invented", "shift": shift}
    data = SpeechData(
        StoredVariants(folder, (description,), keys, "float16"),
        target_distributions(made),
        EncoderOptions(),
        {},
        Origins.of(made),
        enrolment=Enrolment.draw(made, config.enrolment) if k else None,
    )
    system = Wav2Vec2System(made.labels, config)
    is_drawn = Enrolment.draw(made, config.enrolment).is_drawn
    rows = np.arange(len(speakers))
    part = Part(rows[speakers < 16], rows[:0], rows[(speakers >= 16) & ~is_drawn], seed=1)
    system.fit(data, part, resume_file=folder / f"last{k}.pth")
    answers = np.array(made.labels)[system.predict_rows(data, part.test).argmax(axis=1)]
    y_true = made.table["label"].to_numpy()[part.test]
    return unweighted_average_recall(y_true, answers, labels=made.labels)


def test_enrolment_recovers_what_speakers_differences_hide(tmp_path):
    """SYNTHETIC features: large differences of speakers, in all directions that labels have."""
    hidden = [planted(tmp_path / f"{k}", k=k, shift=7.0) for k in (0, 1, 10)]
    assert hidden[0] < 0.7
    assert hidden[1] > hidden[0]
    assert hidden[2] > 0.9
    clear = [planted(tmp_path / f"clear{k}", k=k, shift=0.0) for k in (0, 10)]
    assert min(clear) > 0.95


def test_what_cannot_be_enrolled_is_refused(corpus, encoder, tmp_path):
    corpora = pl.when(pl.int_range(len(corpus)) % 2 == 0).then(pl.lit("a")).otherwise(pl.lit("b"))
    two = Manifest(corpus.table.with_columns(corpus=corpora), corpus.provenance)
    with pytest.raises(ConfigError, match=r"corpora.normalise = corpus and enrolment.k = 2"):
        fitted("mfcc", two, encoder, tmp_path / "a", *ENROLLED, "corpora.normalise=corpus")
    system, _ = fitted("mfcc", corpus, encoder, tmp_path / "b", *ENROLLED)
    with pytest.raises(ConfigError, match="enrolment cannot be exported to ONNX"):
        system.to_graph()
    nobody = Manifest(
        corpus.table.with_columns(speaker=pl.lit(None, pl.String)),
        replace(corpus.provenance, grouping=None),
    )
    with pytest.raises(SplitError, match="Enrolment needs to know who speaks"):
        system.extract(
            nobody, system.config, train_rows=np.arange(6), store_root=tmp_path / "store"
        )
    with pytest.raises(ConfigError, match=r"enrolment\.k is for labels"):
        DimensionalSystem("mfcc", system.config)
