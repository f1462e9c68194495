"""Fine-tuning: what resumes, what the probe is told, and recordings of any length."""

import numpy as np
import pytest
import torch

from fixtures.encoders import KINDS, N_LAYERS, save_encoder
from fixtures.speech_systems import speech_system
from koser.audio.reading import load
from koser.config import resolve_config
from koser.data.arrangement import load_arranged
from koser.errors import RunError
from koser.models.checkpoint import load_tensors
from koser.systems import wav2vec2ft
from koser.systems.speech import HeadTrain
from koser.systems.system import Part
from koser.systems.wav2vec2ft import FineTuneTrain, Wav2Vec2FtConfig, Wav2Vec2FtSystem

QUICK = ("train.epochs=2", "tune.layers=1", "probe_epochs=2", "speeds=[]")
PLAIN_WAY = "augment.gain_db=6"


@pytest.fixture
def manifest(tone_corpus):
    return load_arranged(tone_corpus(n_speakers=4, seconds=0.4))


def make_part(manifest):
    rows = np.arange(len(manifest))
    return Part(rows[rows % 4 > 1], rows[rows % 4 == 1], rows[rows % 4 == 0], seed=42)


def begun(manifest, encoder, folder, *overrides):
    """An untrained system, and what it is trained on."""
    config = resolve_config(
        Wav2Vec2FtConfig, overrides=[*QUICK, f"encoder.name={encoder}", *overrides]
    )
    part = make_part(manifest)
    data = Wav2Vec2FtSystem.extract(
        manifest, config, train_rows=part.train, store_root=folder / "store"
    )
    folder.mkdir(exist_ok=True)
    return Wav2Vec2FtSystem(manifest.labels, config), data


def fitted(manifest, encoder, folder, *overrides, **how):
    system, data = begun(manifest, encoder, folder, *overrides)
    return (
        system,
        data,
        system.fit(data, make_part(manifest), resume_file=folder / "last.pth", **how),
    )


def losses(fit):
    return [(epoch.train_loss, epoch.val_loss) for epoch in fit.history]


@pytest.mark.parametrize("way", [PLAIN_WAY, "tune.layers=all", "tune.layers=1"])
def test_a_training_does_not_go_on_with_another_encoder(manifest, tmp_path, way):
    class KilledError(Exception):
        pass

    def kill(epoch):
        raise KilledError

    encoder = save_encoder("wav2vec2", tmp_path / "encoder", seed=0)
    with pytest.raises(KilledError):
        fitted(manifest, encoder, tmp_path / "run", way, on_epoch=kill)
    save_encoder("wav2vec2", encoder, seed=1)
    with pytest.raises(RunError, match="another"):
        fitted(manifest, encoder, tmp_path / "run", way)


PROBED = ("weight_decay", "label_smoothing", "class_weights", "draws", "precision", "device")


def probe_options(manifest, encoder, folder, monkeypatch, *overrides):
    """With which settings the head was trained alone."""
    seen = []
    fit = wav2vec2ft.fit

    def noted(network, source, val_batches, options, **how):
        seen.append(options)
        return fit(network, source, val_batches, options, **how)

    monkeypatch.setattr(wav2vec2ft, "fit", noted)
    fitted(manifest, encoder, folder, *overrides)
    probe, _ = seen
    return probe


def test_the_head_learns_alone_as_the_user_has_set(manifest, encoder_folder, tmp_path, monkeypatch):
    chosen = {
        "weight_decay": 0.5,
        "label_smoothing": 0.0,
        "class_weights": False,
        "draws": "row",
        "precision": "float32",
        "device": "cpu",
    }
    assert set(chosen) == set(PROBED)
    defaults = FineTuneTrain().model_dump()
    assert not [name for name, value in chosen.items() if defaults[name] == value]
    overrides = [f"train.{name}={str(value).lower()}" for name, value in chosen.items()]
    encoder = encoder_folder("wav2vec2")
    probe = probe_options(manifest, encoder, tmp_path, monkeypatch, *overrides)
    assert {name: getattr(probe, name) for name in PROBED} == chosen


def test_the_defaults_of_the_probe_are_those_of_a_head_alone(
    manifest, encoder_folder, tmp_path, monkeypatch
):
    probe = probe_options(manifest, encoder_folder("wav2vec2"), tmp_path, monkeypatch)
    assert probe.model_dump() == HeadTrain(epochs=2, n_threads=1).model_dump()


def test_label_smoothing_reaches_what_fine_tuning_starts_from(manifest, encoder_folder, tmp_path):
    starts = []
    for smoothing in (0.0, 0.3):
        folder = tmp_path / str(smoothing)
        override = f"train.label_smoothing={smoothing}"
        fitted(manifest, encoder_folder("wav2vec2"), folder, override)
        starts.append(load_tensors(folder / "last-start.pth"))
    assert not torch.equal(starts[0]["classifier.maps"], starts[1]["classifier.maps"])


@pytest.mark.parametrize("kind", ["wav2vec2", "wavlm", "whisper"])
@pytest.mark.parametrize("way", [(), (PLAIN_WAY,)])
def test_adapters_in_all_layers_are_those_in_the_transformer(
    manifest, encoder_folder, tmp_path, kind, way
):
    found = []
    for layers in ("all", "transformer"):
        chosen = (f"tune.layers={layers}", "tune.lora_rank=2", *way)
        system, data, fit = fitted(manifest, encoder_folder(kind), tmp_path / layers, *chosen)
        assert (data.variants is None) == bool(way)
        assert data.facts["trained layers"] == N_LAYERS
        found.append((losses(fit), system.to_checkpoint({}).state))
    assert found[0][0] == found[1][0]
    assert found[0][1].keys() == found[1][1].keys()
    for name, tensor in found[0][1].items():
        assert torch.equal(tensor, found[1][1][name]), name


def noise(*seconds):
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1 + 0.05 * i, round(16_000 * s)) for i, s in enumerate(seconds)]


def largest_batch(system, monkeypatch):
    """Seconds of sound that the trained layers are given at once, noted while it predicts."""
    seen = []
    encoder = system._trained().encoder
    run = encoder.run

    def noted(hidden, n_frames, *args, **kwargs):
        if "last" not in kwargs:  # the trunk's, which stored features are made with
            seen.append(hidden.shape[0] * hidden.shape[1] / 50)
        return run(hidden, n_frames, *args, **kwargs)

    monkeypatch.setattr(encoder, "run", noted)
    return seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "overrides",
    [
        ("tune.layers=2", PLAIN_WAY),
        ("tune.layers=2", 'head.pooling="attentive"'),
        ("tune.layers=all", 'head.pooling="mean+std"'),
    ],
)
def test_a_long_recording_is_computed_in_pieces_with_the_same_result(
    kind, overrides, encoder_folder, monkeypatch
):
    waveforms = [each.astype(np.float32) for each in noise(7.3, 0.4, 2.1)]
    results = {}
    for batch_seconds in (1000, 2):
        system = speech_system(
            "last layers",
            encoder_folder(kind),
            window_seconds=0.75,
            overrides=[*overrides, f"train.batch_seconds={batch_seconds}"],
        )
        seen = largest_batch(system, monkeypatch)
        results[batch_seconds] = system.predict_waveforms(waveforms)
        assert (max(seen) > 5) == (batch_seconds == 1000)
        if batch_seconds == 2:
            assert max(seen) <= 2.1, "frames count to the next one"
    # float32: a product's order of summation depends on the shape of its batch.
    np.testing.assert_allclose(results[2], results[1000], atol=1e-5)
    assert results[2].std(axis=0).max() > 1e-3, "the recordings are told apart at all"


@pytest.mark.parametrize("way", [(), (PLAIN_WAY,)])
def test_rows_longer_than_a_batch_are_predicted_in_pieces_too(
    manifest, encoder_folder, tmp_path, monkeypatch, way
):
    chosen = ("encoder.window_seconds=0.51", "train.batch_seconds=0.3", *way)
    system, data, _ = fitted(manifest, encoder_folder("wav2vec2"), tmp_path, *chosen)
    longest = data.durations.argmax()
    assert data.durations[longest] > 0.51
    seen = largest_batch(system, monkeypatch)
    got = system.predict_rows(data, np.array([longest]))
    assert len(seen) >= 2
    assert max(seen) <= 0.3
    expected = system.predict_waveforms([load(data.clips[longest].path)])
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("rows", r"of this machine ended at train\.batch_seconds=60, .*train\.batch_seconds=30"),
        ("probe", r"of this machine ended at train\.batch_seconds=60, .*train\.batch_seconds=30"),
        ("waveforms", r"of this machine ended\. .*koser predict --timeline"),
    ],
)
def test_a_lack_of_memory_is_explained_wherever_the_encoder_runs(
    manifest, encoder_folder, tmp_path, monkeypatch, where, message
):
    system, data = begun(manifest, encoder_folder("wav2vec2"), tmp_path)
    part = make_part(manifest)
    runs = {
        "probe": lambda: system.fit(data, part, resume_file=tmp_path / "last.pth"),
        "rows": lambda: system.predict_rows(data, part.test),
        "waveforms": lambda: system.predict_waveforms([load(data.clips[0].path)]),
    }
    if where != "probe":
        runs["probe"]()

    def run_out(*args, **kwargs):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't ...")

    monkeypatch.setattr(wav2vec2ft.FineTunedEncoder, "pool", run_out)
    with pytest.raises(RunError, match=message) as caught:
        runs[where]()
    assert "\n" not in str(caught.value)
