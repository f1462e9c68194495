from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import soundfile
import torch
from sklearn.linear_model import LogisticRegression

from fixtures.voices import noise, vowel
from koser.audio.reading import load
from koser.config import resolve_config
from koser.data.corpora.folder import prepare
from koser.data.manifest import Manifest
from koser.errors import CheckpointError, ConfigError
from koser.features.prosody.extractor import DEFINITION
from koser.models.checkpoint import Checkpoint
from koser.systems.prosody import ProsodyConfig, ProsodySystem
from koser.systems.system import Part

QUICK = resolve_config(ProsodyConfig, overrides=["train.epochs=20", "train.batch_size=8"])
PART = Part(np.arange(0, 18), np.arange(18, 24), np.arange(24, 30), seed=3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Five speakers: anger is high and loud, sadness low and breathy, the rest a whisper."""
    root = tmp_path_factory.mktemp("voices")
    rng = np.random.default_rng(0)
    for speaker in range(5):
        base = 110 * 1.1**speaker
        for number in range(2):
            bend = rng.uniform(0.9, 1.1)
            sounds = {
                "angry": vowel(lambda t, b=base * bend: b * 2 ** (0.8 - 0.4 * t), seconds=0.4),
                "neutral": 0.2 * noise(0.4, seed=10 * speaker + number),
                "sadness": 0.1 * vowel(base * bend, seconds=0.5, tilt=2.5)
                + noise(0.5, seed=number, level=0.003),
            }
            for label, waveform in sounds.items():
                path = root / label / f"s{speaker}_{number}.wav"
                path.parent.mkdir(exist_ok=True)
                soundfile.write(path, waveform, 16_000, "FLOAT")
    return root


@pytest.fixture
def manifest(corpus):
    made = prepare(corpus, speaker_pattern=r"(s\d)_")
    # Speaker by speaker, so that parts are of speakers.
    return Manifest(made.table.sort("speaker", "id"), made.provenance)


def fitted(manifest, folder, config=QUICK, part=PART):
    store = folder.parent / "store"
    data = ProsodySystem.extract(manifest, config, train_rows=part.train, store_root=store)
    system = ProsodySystem(manifest.labels, config)
    folder.mkdir(exist_ok=True)
    return system, data, system.fit(data, part, resume_file=folder / "last.pth")


def test_it_learns_and_stored_functionals_and_waveforms_give_the_same(manifest, tmp_path):
    config = resolve_config(ProsodyConfig, overrides=["train.epochs=60"])
    system, data, _ = fitted(manifest, tmp_path / "a", config)
    rows = np.arange(30)
    stored = system.predict_rows(data, rows)
    labels = np.array(manifest.labels)[stored.argmax(axis=1)]
    assert (labels[PART.test] == manifest.table["label"].to_numpy()[PART.test]).all()
    waveforms = [load(path) for path in manifest.table["path"]]
    np.testing.assert_allclose(system.predict_waveforms(waveforms), stored, atol=1e-6)
    alone = np.concatenate([system.predict_waveforms([each]) for each in waveforms])
    np.testing.assert_allclose(alone, stored, atol=1e-6)
    np.testing.assert_allclose(stored.sum(axis=1), 1, atol=1e-6)


def test_a_checkpoint_is_the_system_and_names_the_detector(manifest, tmp_path):
    system, data, _ = fitted(manifest, tmp_path / "a")
    system.to_checkpoint({"seed": 3}).write(tmp_path / "model.pth")
    checkpoint = Checkpoint.read(tmp_path / "model.pth")
    loaded = ProsodySystem.from_checkpoint(checkpoint)
    assert loaded.labels == manifest.labels
    assert loaded.config.pitch.detector.startswith("swift-f0 ")
    np.testing.assert_array_equal(
        loaded.predict_rows(data, PART.test), system.predict_rows(data, PART.test)
    )
    checkpoint.config["pitch"]["detector"] = "swift-f0 0.2.0 000000000000"
    with pytest.raises(CheckpointError, match=r"pip install 'swift-f0==0\.2\.0'"):
        ProsodySystem.from_checkpoint(checkpoint)


@pytest.mark.parametrize("earlier", [None, DEFINITION - 1, DEFINITION + 1])
def test_a_model_of_another_definition_is_refused(manifest, tmp_path, koser, earlier):
    """Those of the first one do not name it."""
    system, _, _ = fitted(manifest, tmp_path / "a")
    made = system.to_checkpoint({})
    state = {name: tensor for name, tensor in made.state.items() if name != "definition"}
    if earlier is not None:
        state["definition"] = torch.tensor(earlier)
    replace(made, state=state).write(tmp_path / "model.pth")
    status, out, err = koser("predict", "model.pth", manifest.table["path"][0])
    assert (status, out) == (1, "")
    assert err == (
        f"Error: This model was trained on definition {earlier or 1} of the prosodic functionals, "
        f"and this koser computes definition {DEFINITION}: its features would differ. Train it "
        f"again.\n"
    )


def test_a_run_of_another_definition_is_not_gone_on_with(corpus, koser, monkeypatch, tmp_path):
    """Its folds would have learnt from other features than the rest."""
    pattern = ("--speaker-pattern", r"(s\d)_")
    koser("prepare", "folder", corpus, "--out", "m.parquet", *pattern)
    command = (
        "train", "--model", "prosody", "--manifest", "m.parquet", "--split", "speaker",
        "--out", "run", "--workers", "1", "--set", "train.epochs=2", "--set", "speeds=[]",
    )  # fmt: skip
    with monkeypatch.context() as then:
        for module in ("koser.features.prosody.extractor", "koser.systems.prosody"):
            then.setattr(f"{module}.DEFINITION", DEFINITION - 1)
        assert koser(*command)[0] == 0
    (tmp_path / "run" / "report.html").unlink()  # killed before its end
    status, _, err = koser(*command, "--resume")
    assert status == 1
    assert "was trained on other features" in err
    assert f'"definition": {DEFINITION - 1}' in err
    assert len(err.splitlines()) == 1


def test_nothing_of_the_test_part_reaches_the_training(manifest, tmp_path):
    """Other sound and labels in test: what was learnt stays the same."""
    part = Part(np.arange(18), np.arange(0), np.arange(18, 30), seed=3)
    system, _, _ = fitted(manifest, tmp_path / "a", part=part)
    table = manifest.table
    changed = table.with_columns(
        path=pl.when(pl.int_range(30) < 18).then("path").otherwise(pl.lit(table["path"][0])),
        label=pl.when(pl.int_range(30) < 18).then("label").otherwise(pl.lit("angry")),
    )
    other, _, _ = fitted(Manifest(changed, manifest.provenance), tmp_path / "b", part=part)
    for name, tensor in system.to_checkpoint({}).state.items():
        assert (tensor == other.to_checkpoint({}).state[name]).all(), name


def test_a_resumed_training_is_an_undisturbed_one(manifest, tmp_path):
    class KilledError(Exception):
        pass

    def die(epoch, *_):
        if epoch.epoch == 7:
            raise KilledError

    whole, data, _ = fitted(manifest, tmp_path / "a")
    system = ProsodySystem(manifest.labels, QUICK)
    with pytest.raises(KilledError):
        system.fit(data, PART, resume_file=tmp_path / "last.pth", on_epoch=die)
    again = ProsodySystem(manifest.labels, QUICK)
    again.fit(data, PART, resume_file=tmp_path / "last.pth")
    for name, tensor in whole.to_checkpoint({}).state.items():
        assert torch.equal(tensor, again.to_checkpoint({}).state[name]), name


def test_the_training_finds_the_solution_of_another_library(manifest, tmp_path):
    """Convex: multinomial logistic regression with scikit-learn's penalty 1 / C."""
    overrides = [
        "train.epochs=200", "train.batch_size=64", "train.learning_rate=0.05",
        "train.label_smoothing=0", "train.weight_decay=0", "speeds=[]", "head.ridge=2",
    ]  # fmt: skip
    config = resolve_config(ProsodyConfig, overrides=overrides)
    part = Part(np.arange(24), np.arange(0), np.arange(24, 30), seed=0)
    system, data, _ = fitted(manifest, tmp_path / "a", config, part)
    stored = np.stack([data.table().read(row) for row in range(30)]).astype(np.float64)
    known = np.ma.masked_array(stored[:, 0], stored[:, 1] == 0)
    mean, spread = known[:24].mean(axis=0), known[:24].std(axis=0)
    scaled = ((known - mean) / spread)[:, spread.filled(0) > 1e-6].filled(0).clip(-5, 5)
    labels = manifest.table["label"].to_numpy()
    oracle = LogisticRegression(C=0.5, max_iter=10_000, tol=1e-10).fit(scaled[:24], labels[:24])
    assert tuple(oracle.classes_) == tuple(sorted(manifest.labels)) == manifest.labels
    found = system.predict_rows(data, np.arange(30))
    # Adam ends near the optimum, not in it.
    np.testing.assert_allclose(found, oracle.predict_proba(scaled), atol=0.01)


def test_silence_and_a_20_ms_clip_get_probabilities(manifest, tmp_path):
    system, _, _ = fitted(manifest, tmp_path / "a")
    clips = [np.zeros(16_000, np.float32), np.full(320, 0.1, np.float32), np.zeros(1, np.float32)]
    probabilities = system.predict_waveforms(clips)
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_the_commands_know_it(corpus, koser, tmp_path):
    pattern = ("--speaker-pattern", r"(s\d)_")
    assert koser("prepare", "folder", corpus, "--out", "m.parquet", *pattern)[0] == 0
    status, _, err = koser(
        "train", "--model", "prosody", "--manifest", "m.parquet", "--split", "speaker",
        "--out", "run", "--workers", "1", "--set", "train.epochs=5", "--set", "speeds=[]",
    )  # fmt: skip
    assert status == 0, err
    status, out, err = koser("predict", "run", corpus / "angry" / "s0_0.wav", "--format", "csv")
    assert status == 0, err
    assert "angry" in out
    status, _, err = koser("export", "run", "--out", "model.onnx")
    assert status == 1
    assert err.startswith("Error: A model of 'prosody' cannot be exported to one ONNX file")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "model.onnx").exists()


def test_it_is_no_graph(manifest):
    with pytest.raises(ConfigError, match="searches that are no graph"):
        ProsodySystem(manifest.labels, QUICK).to_graph()
