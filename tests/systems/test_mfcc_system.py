import numpy as np
import polars as pl
import pytest

from koser.audio.reading import load
from koser.config import resolve_config
from koser.data.corpora.folder import prepare
from koser.data.manifest import Manifest
from koser.errors import ConfigError
from koser.models.checkpoint import Checkpoint
from koser.models.cnn import MfccCnn
from koser.systems import SYSTEM_NAMES, system_class
from koser.systems.mfcc import MfccConfig, MfccSystem
from koser.systems.system import Part, target_distributions

QUICK = resolve_config(
    MfccConfig,
    overrides=["train.epochs=4", "train.batch_size=8", "cnn.channels=[4, 6]", "cnn.hidden_size=8"],
)
PART = Part(np.arange(0, 24), np.arange(24, 30), np.arange(30, 36), seed=3)


@pytest.fixture
def manifest(tone_corpus):
    return prepare(tone_corpus(), speaker_pattern=r"(s\d)_")


def fitted(manifest, folder, config=QUICK, part=PART):
    data = MfccSystem.extract(manifest, config, train_rows=part.train, store_root=folder / "store")
    system = MfccSystem(manifest.labels, config)
    folder.mkdir(exist_ok=True)
    result = system.fit(data, part, resume_file=folder / "last.pth")
    return system, data, result


def test_stored_features_and_waveforms_give_the_same_probabilities(manifest, tmp_path):
    system, data, _ = fitted(manifest, tmp_path / "a")
    rows = np.arange(36)
    stored = system.predict_rows(data, rows)
    waveforms = [load(path) for path in manifest.table["path"]]
    np.testing.assert_allclose(system.predict_waveforms(waveforms), stored, atol=1e-5)
    alone = np.concatenate([system.predict_waveforms([waveform]) for waveform in waveforms])
    np.testing.assert_allclose(alone, stored, atol=1e-5)
    np.testing.assert_allclose(stored.sum(axis=1), 1, atol=1e-12)


def test_a_checkpoint_is_the_system(manifest, tmp_path):
    system, data, _ = fitted(manifest, tmp_path / "a")
    system.to_checkpoint({"seed": 3}).write(tmp_path / "model.pth")
    loaded = MfccSystem.from_checkpoint(Checkpoint.read(tmp_path / "model.pth"))
    assert loaded.labels == manifest.labels
    assert loaded.config == QUICK
    np.testing.assert_array_equal(
        loaded.predict_rows(data, PART.test), system.predict_rows(data, PART.test)
    )


def test_nothing_of_the_test_part_reaches_the_training(manifest, tmp_path):
    """Other sound, labels and lengths in val and test: the standardisation stays the same,
    and without a val part so does everything that was learnt."""
    part = Part(np.arange(24), np.arange(0), np.arange(24, 36), seed=3)
    system, _, _ = fitted(manifest, tmp_path / "a", part=part)
    table = manifest.table
    changed = table.with_columns(
        path=pl.when(pl.int_range(36) < 24).then("path").otherwise(pl.lit(table["path"][0])),
        label=pl.when(pl.int_range(36) < 24).then("label").otherwise(pl.lit("angry")),
    )
    other, _, _ = fitted(Manifest(changed, manifest.provenance), tmp_path / "b", part=part)
    for name, tensor in system.to_checkpoint({}).state.items():
        assert (tensor == other.to_checkpoint({}).state[name]).all(), name


def test_only_the_train_part_is_heard_at_other_speeds(manifest, tmp_path):
    _, data, _ = fitted(manifest, tmp_path / "a")
    stores = data.variants.open()
    assert [len(store) for store in stores] == [36, 24, 24]
    assert [each["speed"] for each in data.variants.descriptions] == [1.0, 0.9, 1.1]
    plain, slow, fast = (
        store.shapes(keys[:1])[0, 1] for store, keys in zip(stores, data.variants.keys, strict=True)
    )
    assert slow > plain > fast


def test_files_in_any_order_give_the_same_features_for_the_same_utterance(manifest, tmp_path):
    shuffled = Manifest(
        manifest.table.sample(fraction=1.0, shuffle=True, seed=1), manifest.provenance
    )
    tables = []
    for name, each in {"a": manifest, "b": shuffled}.items():
        data = MfccSystem.extract(each, QUICK, train_rows=np.arange(2), store_root=tmp_path / name)
        table = data.table()
        tables.append({i: table.read(row) for row, i in enumerate(each.table["id"])})
    for identifier, features in tables[0].items():
        np.testing.assert_array_equal(features, tables[1][identifier])


def test_targets_are_one_hot_or_the_raters_distribution(manifest):
    table = manifest.table.with_columns(
        distribution=pl.when(pl.int_range(36) == 1).then(pl.lit([0.25, 0.0, 0.75])).otherwise(None)
    )
    targets = target_distributions(Manifest(table, manifest.provenance))
    assert targets[0].tolist() == [1, 0, 0]
    assert targets[1].tolist() == [0.25, 0, 0.75]
    assert targets[35].tolist() == [0, 0, 1]


def test_an_unknown_system_or_setting_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="Systems: mfcc"):
        system_class("mfc")
    with pytest.raises(ConfigError, match=r"unknown key 'train\.epoch' .*train\.epochs"):
        resolve_config(MfccConfig, overrides=["train.epoch=3"])
    assert [system_class(name).name for name in SYSTEM_NAMES] == list(SYSTEM_NAMES)


def test_silence_and_a_20_ms_clip_get_probabilities(manifest, tmp_path):
    system, _, _ = fitted(manifest, tmp_path / "a")
    clips = [np.zeros(16_000, np.float32), np.full(320, 0.1, np.float32), np.zeros(1, np.float32)]
    probabilities = system.predict_waveforms(clips)
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_utterances_are_trained_on_in_stretches_and_tested_whole(tone_corpus, tmp_path):
    manifest = prepare(tone_corpus(n_speakers=2, n_each=1, seconds=1.0))
    config = resolve_config(
        MfccConfig, base=QUICK.model_dump(mode="json"), overrides=["crop_seconds=0.32"]
    )
    part = Part(np.arange(6), np.arange(0), np.arange(6), seed=0)
    seen = []

    class Spy(MfccCnn):
        def forward(self, features, n_frames):
            seen.append((self.training, features.shape[2]))
            return super().forward(features, n_frames)

    data = MfccSystem.extract(manifest, config, train_rows=part.train, store_root=tmp_path / "s")
    system = MfccSystem(manifest.labels, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("koser.systems.mfcc.MfccCnn", Spy)
        system.fit(data, part, resume_file=tmp_path / "last.pth")
    system.predict_rows(data, part.test)
    assert {n for is_training, n in seen if is_training} == {round(0.32 * 16_000 / 256)}
    assert min(n for is_training, n in seen if not is_training) > 45
