"""A speech encoder and words: all layers heard, one model at a time, and nothing else new.

What `fusion` shares with `multimodal` is tested there.
"""

import gc
import weakref

import numpy as np
import pytest
import torch

from fixtures.text import CREDULOUS
from koser.audio.reading import load
from koser.config import resolve_config
from koser.data.corpora.folder import prepare
from koser.errors import ConfigError, EncoderError
from koser.features.speech.loading import LoadedEncoder
from koser.features.text.encoder import LoadedTextEncoder
from koser.features.text.whisper import LoadedWhisper
from koser.inference.recognizer import load_recognizer
from koser.models.checkpoint import Checkpoint
from koser.models.fusion import FusionNetwork
from koser.systems.fusion import FusionConfig, FusionSystem
from koser.systems.system import Part
from koser.systems.wav2vec2 import Wav2Vec2Config, Wav2Vec2System
from koser.training.pairs import PairTable

# Of six speakers with two clips of each of three labels, the fifth is val and the sixth test.
SPEAKER = np.arange(36) % 12 // 2
PART = Part(*(np.flatnonzero(each) for each in (SPEAKER < 4, SPEAKER == 4, SPEAKER == 5)), seed=3)


@pytest.fixture(autouse=True)
def store(tmp_path, shared_store):
    """Every test hears the same clips; whoever is first extracts them."""
    (tmp_path / "store").symlink_to(shared_store)


@pytest.fixture
def manifest(tone_corpus):
    return prepare(tone_corpus(), speaker_pattern=r"(s\d)_")


@pytest.fixture
def configure(encoder_folder, whisper_folder, text_folder):
    def make(*overrides, encoder="wav2vec2"):
        whisper = [f"whisper.{key}={value}" for key, value in CREDULOUS.items()]
        names = [
            f'encoder.name="{encoder_folder(encoder)}"',
            f'whisper.name="{whisper_folder}"',
            f'text.name="{text_folder()}"',
        ]
        small = ["train.epochs=3", "fusion.width=8", "fusion.hidden=[12, 8]", "speeds=[1.1]"]
        return resolve_config(FusionConfig, overrides=[*whisper, *names, *small, *overrides])

    return make


def extracted(manifest, config, folder):
    return FusionSystem.extract(
        manifest, config, train_rows=PART.train, store_root=folder / "store"
    )


def fitted(manifest, config, folder, data=None, name="last.pth"):
    data = data or extracted(manifest, config, folder)
    system = FusionSystem(manifest.labels, config)
    return system, data, system.fit(data, PART, resume_file=folder / name)


@pytest.mark.parametrize(
    ("kind", "encoder"),
    [("concat", "whisper"), ("gated", "wav2vec2"), ("cross_attention", "hubert")],
)
def test_stored_features_and_sound_alone_give_the_same_probabilities(
    kind, encoder, manifest, configure, tmp_path
):
    config = configure(f"fusion.kind={kind}", encoder=encoder)
    system, data, _ = fitted(manifest, config, tmp_path)
    stored = system.predict_rows(data, np.arange(36))
    system.to_checkpoint({}).write(tmp_path / "model.pth")
    loaded = FusionSystem.from_checkpoint(Checkpoint.read(tmp_path / "model.pth"))
    waveforms = [load(path) for path in manifest.table["path"][:5]]
    # States and tokens are stored in half precision.
    np.testing.assert_allclose(loaded.predict_waveforms(waveforms), stored[:5], atol=5e-3)
    alone = np.concatenate([loaded.predict_waveforms([each]) for each in waveforms])
    np.testing.assert_allclose(alone, loaded.predict_waveforms(waveforms), atol=1e-4)


def test_one_large_model_is_alive_at_a_time_and_none_while_training(
    manifest, configure, tmp_path, monkeypatch
):
    alive, order, most = weakref.WeakSet(), [], []

    def watched(kind):
        original = kind.__init__

        def made(self, *arguments, **options):
            original(self, *arguments, **options)
            gc.collect()
            alive.add(self)
            order.append(kind.__name__)
            most.append(len(alive))

        monkeypatch.setattr(kind, "__init__", made)

    for kind in (LoadedEncoder, LoadedWhisper, LoadedTextEncoder, FusionNetwork):
        watched(kind)
    fitted(manifest, configure(), tmp_path / "own")
    assert order == ["LoadedEncoder", "LoadedWhisper", "LoadedTextEncoder", "FusionNetwork"]
    assert most == [1, 1, 1, 1], "what came before was still in memory"


def test_the_means_of_all_states_are_heard_each_with_a_map_and_a_weight(
    manifest, configure, tmp_path
):
    system, data, _ = fitted(manifest, configure("fusion.kind=gated"), tmp_path)
    # What wav2vec2 keeps of the same encoder, state after state.
    shared = resolve_config(
        Wav2Vec2Config, overrides=[f'encoder.name="{system.config.encoder.name}"', "speeds=[1.1]"]
    )
    own = Wav2Vec2System.extract(
        manifest, shared, train_rows=PART.train, store_root=tmp_path / "store"
    )
    assert own.variants.descriptions == data.sound.variants.descriptions, "not extracted again"
    store = own.variants.open()[0]
    means = np.stack([store.read(bytes(key))[:, 0] for key in own.variants.keys[0]])
    n_states, width = means.shape[1:]
    assert data.sound.shape == (n_states, width)
    train = means[PART.train].astype(np.float64)
    audio = system._network.audio
    standard = (means - train.mean(0)) / train.std(0)
    maps = audio.states.maps.detach().numpy()
    weights = np.exp(audio.states.scores.detach().numpy())
    gains = np.sqrt(n_states * weights / weights.sum())
    expected = np.einsum("nsw,swo,s->no", standard, maps, gains)
    expected += audio.states.bias.detach().numpy()
    values = torch.from_numpy(means.reshape(36, -1).astype(np.float32))
    with torch.inference_mode():
        got = audio(values, torch.tensor([True] * 35 + [False])).numpy()
    np.testing.assert_allclose(got[:35], expected[:35], atol=1e-3)
    np.testing.assert_array_equal(got[35], audio.missing.detach().numpy())
    assert np.ptp(weights) > 0, "the weights are learned"


@pytest.mark.parametrize("layers", ["last", "1"])
def test_one_state_alone_can_be_heard(layers, manifest, configure, tmp_path):
    system, data, _ = fitted(manifest, configure(f"layers={layers}"), tmp_path)
    (state,) = data.sound.states
    store = data.sound.variants.open()[0]
    expected = store.read(bytes(data.sound.variants.keys[0, 7]))[state, 0]
    np.testing.assert_array_equal(data.table(system.config).read(7).audio, expected)


def test_a_state_that_the_encoder_lacks_is_refused(manifest, configure, tmp_path):
    with pytest.raises(ConfigError, match="the encoder's states are 0 to"):
        extracted(manifest, configure("layers=99"), tmp_path)


def test_a_killed_training_goes_on_bit_for_bit(manifest, configure, tmp_path):
    config = configure("fusion.kind=gated")
    _, data, whole = fitted(manifest, config, tmp_path, name="whole.pth")

    class KilledError(Exception):
        pass

    def kill(epoch):
        if epoch.epoch == 2:
            raise KilledError

    system = FusionSystem(manifest.labels, config)
    with pytest.raises(KilledError):
        system.fit(data, PART, resume_file=tmp_path / "last.pth", on_epoch=kill)
    _, _, resumed = fitted(manifest, config, tmp_path, data)
    assert [each.train_loss for each in resumed.history] == [
        each.train_loss for each in whole.history
    ]


def test_an_encoder_that_was_moved_is_found_and_another_refused(
    manifest, configure, tmp_path, encoder_folder
):
    config = configure("modalities=audio")
    system, _, _ = fitted(manifest, config, tmp_path)
    path = tmp_path / "model.pth"
    system.to_checkpoint({}).write(path)
    recognizer = load_recognizer(path, encoder=str(encoder_folder("wav2vec2")))
    assert recognizer.labels == manifest.labels
    with pytest.raises(EncoderError, match="not the encoder that is wanted"):
        load_recognizer(path, encoder=str(encoder_folder("hubert")))


@pytest.mark.parametrize("kind", ["cross_attention", "gated"])
def test_batches_of_frames_are_bounded_by_sound_and_vectors_are_not(
    kind, manifest, configure, tmp_path, monkeypatch
):
    shapes = []
    collate = PairTable.collate

    def note(table, pairs):
        inputs = collate(table, pairs)
        shapes.append(tuple(inputs[0].shape))
        return inputs

    monkeypatch.setattr(PairTable, "collate", note)
    # The clips have 9 to 14 frames: two or three fit into the 30 of 0.6 s.
    config = configure(f"fusion.kind={kind}", "train.batch_seconds=0.6")
    system, data, _ = fitted(manifest, config, tmp_path)
    system.predict_rows(data, np.arange(36))
    if kind == "gated":
        assert max(n for n, *_ in shapes) == 32
        return
    assert max(n * n_frames for n, _, n_frames in shapes) <= 30
    assert max(n for n, *_ in shapes) in (2, 3)
