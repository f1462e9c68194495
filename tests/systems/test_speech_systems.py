"""Systems on pretrained encoders: files and stored features agree, the cheap way is the plain."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from fixtures.encoders import save_encoder
from koser.audio.reading import load
from koser.config import resolve_config
from koser.data.arrangement import load_arranged
from koser.errors import CheckpointError, ConfigError, EncoderError, RunError
from koser.inference.recognizer import load_recognizer
from koser.models.checkpoint import Checkpoint
from koser.systems import system_class
from koser.systems.system import Part
from koser.systems.wav2vec2ft import Wav2Vec2FtSystem
from koser.training.tables import WindowTable
from koser.training.waveforms import WaveformTable

QUICK = {
    "wav2vec2": ("train.epochs=3",),
    "wav2vec2ft": ("train.epochs=2", "tune.layers=2", "probe_epochs=2"),
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder("wav2vec2", tmp_path_factory.mktemp("encoder") / "wav2vec2")


@pytest.fixture
def manifest(tone_corpus):
    return load_arranged(tone_corpus(n_speakers=4, seconds=0.4))


def make_config(name, encoder, *overrides):
    chosen = (*QUICK[name], f"encoder.name={encoder}", *overrides)
    return resolve_config(system_class(name).config_class, overrides=chosen)


def make_part(manifest, seed=42):
    rows = np.arange(len(manifest))
    return Part(
        train=rows[rows % 4 > 1], val=rows[rows % 4 == 1], test=rows[rows % 4 == 0], seed=seed
    )


def fitted(manifest, name, encoder, folder, *overrides):
    system = system_class(name)(manifest.labels, make_config(name, encoder, *overrides))
    part = make_part(manifest)
    data = system.extract(
        manifest, system.config, train_rows=part.train, store_root=folder / "store"
    )
    folder.mkdir(exist_ok=True)
    return system, data, system.fit(data, part, resume_file=folder / "last.pth")


def losses(fit):
    return [(epoch.train_loss, epoch.val_loss) for epoch in fit.history]


VARIANTS = [
    ("wav2vec2", ()),
    ("wav2vec2", ("head.pooling=mean+std", "head.hidden=8")),
    ("wav2vec2", ("head.pooling=attentive", "head.layers=last")),
    ("wav2vec2", ("head.pooling=attentive",)),
    ("wav2vec2", ("head.layers=1",)),
    ("wav2vec2ft", ()),
    ("wav2vec2ft", ("head.pooling=attentive", "head.hidden=8", "keep=float32")),
    ("wav2vec2ft", ("tune.lora_rank=2",)),
    ("wav2vec2ft", ("tune.layers=all",)),
    ("wav2vec2ft", ("augment.noise_snr_db=20",)),
]


@pytest.mark.parametrize(("name", "overrides"), VARIANTS)
def test_a_saved_system_says_of_files_what_it_said_of_stored_features(
    manifest, encoder, tmp_path, name, overrides
):
    system, data, _ = fitted(manifest, name, encoder, tmp_path, *overrides)
    rows = make_part(manifest).test
    expected = system.predict_rows(data, rows)
    path = tmp_path / "model.pth"
    system.to_checkpoint({}).write(path)
    paths = [manifest.table["path"][int(row)] for row in rows]
    recognizer = load_recognizer(path)
    together = recognizer.predict_files(paths)
    alone = [recognizer.predict_file(each) for each in paths]
    for predictions in (together, alone):
        got = np.array([list(each.probabilities.values()) for each in predictions])
        np.testing.assert_allclose(got, expected, atol=1e-4)
    assert expected.std(axis=0).max() > 1e-4, "the utterances are told apart at all"


def test_a_checkpoint_holds_what_was_trained_and_not_the_frozen_encoder(
    manifest, encoder, tmp_path
):
    frozen, _, _ = fitted(manifest, "wav2vec2", encoder, tmp_path / "a")
    assert not [name for name in frozen.to_checkpoint({}).state if "layers" in name]
    tuned, _, _ = fitted(manifest, "wav2vec2ft", encoder, tmp_path / "b")
    layers = {name.split(".")[1] for name in tuned.to_checkpoint({}).state if "tuned" in name}
    assert layers == {"0", "1"}  # the last two of three


@pytest.mark.parametrize("name", ["wav2vec2", "wav2vec2ft"])
def test_a_killed_training_resumes_bit_for_bit(manifest, encoder, tmp_path, name):
    overrides = ("train.epochs=4", "train.patience=9")
    _, _, whole = fitted(manifest, name, encoder, tmp_path / "whole", *overrides)

    class KilledError(Exception):
        pass

    def kill(epoch):
        if epoch.epoch == 2:
            raise KilledError

    system = system_class(name)(manifest.labels, make_config(name, encoder, *overrides))
    part = make_part(manifest)
    data = system.extract(
        manifest, system.config, train_rows=part.train, store_root=tmp_path / "store"
    )
    with pytest.raises(KilledError):
        system.fit(data, part, resume_file=tmp_path / "last.pth", on_epoch=kill)
    again = system_class(name)(manifest.labels, make_config(name, encoder, *overrides))
    resumed = again.fit(data, part, resume_file=tmp_path / "last.pth")
    assert losses(resumed) == losses(whole)
    assert not list(tmp_path.glob("last-probe-*"))


def test_training_from_the_stored_trunk_is_the_plain_way_step_for_step(manifest, encoder, tmp_path):
    config = make_config("wav2vec2ft", encoder, "keep=float32", "train.epochs=3", "speeds=[]")
    part = make_part(manifest)
    data = Wav2Vec2FtSystem.extract(
        manifest, config, train_rows=part.train, store_root=tmp_path / "store"
    )
    histories = []
    for way in ("stored", "plain"):
        system = (Wav2Vec2FtSystem if way == "stored" else PlainSystem)(manifest.labels, config)
        (tmp_path / way).mkdir()
        histories.append(losses(system.fit(data, part, resume_file=tmp_path / way / "last.pth")))
    np.testing.assert_allclose(histories[0], histories[1], atol=1e-5)
    assert histories[0][0] != histories[0][-1], "something was learnt"


class PlainSystem(Wav2Vec2FtSystem):
    """The same batches, with the whole encoder run in every step."""

    def _table(self, data):
        stored = super()._table(data)
        assert isinstance(stored, WindowTable)

        class SameBatches(WaveformTable):
            def lengths(self, rows):
                return stored.lengths(rows)  # frames, as the stored trunk's

        return SameBatches(
            data.clips, self._window_samples(), data.targets, data.durations, self.config.augment
        )

    def _plain_tables(self, data):
        return [self._table(data)]

    def _make_network(self, loaded):
        network = super()._make_network(loaded)
        network.from_waveforms = True
        return network


def test_the_plain_way_is_taken_where_it_must_be_and_says_so(manifest, encoder, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="koser"):
        _, data, _ = fitted(manifest, "wav2vec2ft", encoder, tmp_path, "augment.speed=0.1")
    assert data.variants is None
    assert "waveform augmentation" in caplog.text


def test_half_precision_of_the_store_changes_probabilities_little(manifest, encoder, tmp_path):
    results = []
    for keep in ("float16", "float32"):
        overrides = (f"keep={keep}", "train.epochs=1")
        system, data, _ = fitted(manifest, "wav2vec2", encoder, tmp_path / keep, *overrides)
        results.append(system.predict_rows(data, np.arange(len(manifest))))
    np.testing.assert_allclose(results[0], results[1], atol=5e-3)


def test_the_train_part_alone_sets_standardisation_and_penalty(manifest, encoder, tmp_path):
    system, data, _ = fitted(manifest, "wav2vec2", encoder, tmp_path)
    standardizer = system._trained().classifier.standardizer
    table = system._table(data)
    train = np.stack([table.read(row)[:, 0] for row in make_part(manifest).train]).astype(float)
    np.testing.assert_allclose(standardizer.mean, train.mean(0), atol=1e-5)
    assert system._trained().classifier.ridge == pytest.approx(1000 / len(train))


def test_another_encoder_in_the_same_place_is_refused(manifest, encoder, tmp_path):
    system, _, _ = fitted(manifest, "wav2vec2", encoder, tmp_path)
    path = tmp_path / "model.pth"
    system.to_checkpoint({}).write(path)
    other = save_encoder("wav2vec2", tmp_path / "other", seed=1)
    with pytest.raises(EncoderError, match=r"not the encoder that is wanted.*--encoder"):
        load_recognizer(path, encoder=str(other))
    moved = save_encoder("wav2vec2", tmp_path / "moved")
    assert load_recognizer(path, encoder=str(moved)).labels == manifest.labels


def test_a_checkpoint_without_encoder_cannot_be_given_one(tmp_path):
    with pytest.raises(CheckpointError, match="has no pretrained encoder"):
        Checkpoint("mfcc", ("a",), {}, {}, {}).with_encoder("x")


def test_more_layers_than_the_encoder_has_are_refused(manifest, encoder, tmp_path):
    with pytest.raises(ConfigError, match=r"tune.layers = 9: the encoder has 3 layers"):
        fitted(manifest, "wav2vec2ft", encoder, tmp_path, "tune.layers=9")


def test_a_training_that_does_not_fit_into_memory_is_refused_before_it_starts(
    manifest, encoder, tmp_path, monkeypatch
):
    monkeypatch.setattr("koser.systems.memory.free_memory", lambda: 10**8)
    with pytest.raises(RunError, match=r"needs about .* GB of memory .* train.batch_seconds=30"):
        fitted(manifest, "wav2vec2ft", encoder, tmp_path)


def test_facts_for_the_report_name_the_encoder_and_its_weights(manifest, encoder, tmp_path):
    _, data, _ = fitted(manifest, "wav2vec2ft", encoder, tmp_path)
    facts = Wav2Vec2FtSystem.describe_data(data)
    assert facts["encoder"] == str(encoder)
    assert len(facts["fingerprint"]) == 16
    json.dumps(facts)


def test_long_utterances_are_heard_whole(tone_corpus, encoder, tmp_path):
    manifest = load_arranged(tone_corpus(n_speakers=2, seconds=1.3))
    for name in QUICK:
        overrides = ("encoder.window_seconds=0.6",)
        system, data, _ = fitted(manifest, name, encoder, tmp_path / name, *overrides)
        expected = system.predict_rows(data, np.arange(2))
        waveforms = [load(path) for path in manifest.table["path"][:2]]
        np.testing.assert_allclose(system.predict_waveforms(waveforms), expected, atol=1e-4)
        cut = [waveform[: len(waveform) // 3] for waveform in waveforms]
        assert np.abs(system.predict_waveforms(cut) - expected).max() > 1e-4


def test_results_do_not_depend_on_threads_of_the_machine(manifest, encoder, tmp_path):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        _, _, two = fitted(manifest, "wav2vec2", encoder, tmp_path / "two")
        torch.set_num_threads(1)
        _, _, one = fitted(manifest, "wav2vec2", encoder, tmp_path / "one")
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(losses(one), losses(two), rtol=1e-5)


def test_the_final_weights_lie_between_start_and_end_of_fine_tuning(manifest, encoder, tmp_path):
    states = {}
    for average in (1.0, 0.5, 0.25):
        system, _, _ = fitted(
            manifest, "wav2vec2ft", encoder, tmp_path / str(average), f"tune.average={average}"
        )
        states[average] = system.to_checkpoint({}).state
    for name, end in states[1.0].items():
        half, quarter = states[0.5][name], states[0.25][name]
        start = 2 * half - end
        np.testing.assert_allclose(quarter, start + (end - start) / 4, atol=1e-5, err_msg=name)
    assert any((states[1.0][name] - states[0.5][name]).abs().max() > 1e-5 for name in states[1.0])


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_a_second_fit_of_the_same_system_starts_from_the_pretrained_weights(
    manifest, encoder, tmp_path, lora_rank
):
    override = f"tune.lora_rank={lora_rank}"
    system, data, first = fitted(manifest, "wav2vec2ft", encoder, tmp_path, override)
    (tmp_path / "again").mkdir()
    again = system.fit(data, make_part(manifest), resume_file=tmp_path / "again" / "last.pth")
    assert losses(again) == losses(first)


def test_a_run_killed_after_its_last_epoch_ends_with_the_same_weights(manifest, encoder, tmp_path):
    system, data, _ = fitted(manifest, "wav2vec2ft", encoder, tmp_path)
    expected = system.to_checkpoint({}).state
    again = Wav2Vec2FtSystem(manifest.labels, make_config("wav2vec2ft", encoder))
    again.fit(data, make_part(manifest), resume_file=tmp_path / "last.pth")
    for name, tensor in again.to_checkpoint({}).state.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("name", ["wav2vec2", "wav2vec2ft"])
def test_a_model_that_was_trained_on_a_gpu_predicts_without_one(manifest, encoder, tmp_path, name):
    system, _, _ = fitted(manifest, name, encoder, tmp_path)
    made = system.to_checkpoint({})
    train = {**made.config["train"], "device": "cuda"}
    elsewhere = replace(made, config={**made.config, "train": train})
    waveforms = [load(manifest.table["path"][0])]
    got = system_class(name).from_checkpoint(elsewhere).predict_waveforms(waveforms)
    np.testing.assert_allclose(got, system.predict_waveforms(waveforms), atol=1e-6)
