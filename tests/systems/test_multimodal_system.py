"""The multimodal system on tones: a tiny random Whisper gives each pitch words of its own."""

import gc
import json
import logging
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from fixtures.text import CREDULOUS, save_text_model
from koser.audio.reading import load
from koser.config import resolve_config
from koser.data.corpora.folder import prepare
from koser.data.manifest import Manifest
from koser.errors import CheckpointError, ConfigError, EncoderError
from koser.features.text.encoder import LoadedTextEncoder
from koser.features.text.whisper import LoadedWhisper
from koser.inference.recognizer import load_recognizer
from koser.models.checkpoint import Checkpoint
from koser.models.fusion import FusionNetwork
from koser.systems.multimodal import MultimodalConfig, MultimodalSystem
from koser.systems.system import Part

KINDS = ("concat", "gated", "cross_attention")
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
def configure(whisper_folder, text_folder):
    def make(*overrides):
        whisper = [f"whisper.{key}={value}" for key, value in CREDULOUS.items()]
        names = [f'whisper.name="{whisper_folder}"', f'text.name="{text_folder()}"']
        small = ["train.epochs=4", "fusion.width=8", "fusion.hidden=[12, 8]"]
        return resolve_config(MultimodalConfig, overrides=[*whisper, *names, *small, *overrides])

    return make


def extracted(manifest, config, folder, part=PART):
    return MultimodalSystem.extract(
        manifest, config, train_rows=part.train, store_root=folder / "store"
    )


def fitted(manifest, config, folder, data=None, part=PART, name="last.pth"):
    data = data or extracted(manifest, config, folder, part)
    system = MultimodalSystem(manifest.labels, config)
    return system, data, system.fit(data, part, resume_file=folder / name)


def losses(fit):
    return [each.train_loss for each in fit.history]


@pytest.mark.parametrize("kind", KINDS)
def test_stored_features_and_sound_alone_give_the_same_probabilities(
    kind, manifest, configure, tmp_path
):
    system, data, _ = fitted(manifest, configure(f"fusion.kind={kind}"), tmp_path)
    stored = system.predict_rows(data, np.arange(36))
    np.testing.assert_allclose(stored.sum(axis=1), 1, atol=1e-12)
    system.to_checkpoint({}).write(tmp_path / "model.pth")
    loaded = MultimodalSystem.from_checkpoint(Checkpoint.read(tmp_path / "model.pth"))
    waveforms = [load(path) for path in manifest.table["path"][:6]]
    # The tokens of cross-attention are stored in half precision.
    atol = 5e-3 if kind == "cross_attention" else 1e-5
    np.testing.assert_allclose(loaded.predict_waveforms(waveforms), stored[:6], atol=atol)
    alone = np.concatenate([loaded.predict_waveforms([each]) for each in waveforms])
    np.testing.assert_allclose(alone, loaded.predict_waveforms(waveforms), atol=1e-5)


def test_one_large_model_is_alive_at_a_time_and_none_while_training(
    manifest, configure, tmp_path, monkeypatch, caplog
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

    for kind in (LoadedWhisper, LoadedTextEncoder, FusionNetwork):
        watched(kind)
    with caplog.at_level(logging.INFO, logger="koser"):
        system, _, _ = fitted(manifest, configure(), tmp_path / "own")
    assert order == ["LoadedWhisper", "LoadedTextEncoder", "FusionNetwork"]
    assert most == [1, 1, 1], "what came before was still in memory"
    steps = [record.message for record in caplog.records if record.message.startswith("memory:")]
    assert [(step.split()[1], " in;" in step) for step in steps] == [
        ("Whisper", True), ("Whisper", False), ("text", True), ("text", False),
    ]  # fmt: skip
    assert all("GB resident" in step and "at most" in step for step in steps)
    first_epoch = next(r for r in caplog.records if r.message.startswith("training on"))
    assert caplog.records.index(first_epoch) > max(
        place for place, r in enumerate(caplog.records) if r.message.startswith("memory:")
    )
    assert isinstance(system._network, FusionNetwork)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_training_goes_on_bit_for_bit(kind, manifest, configure, tmp_path):
    config = configure(f"fusion.kind={kind}")
    _, data, whole = fitted(manifest, config, tmp_path, name="whole.pth")

    class KilledError(Exception):
        pass

    def kill(epoch):
        if epoch.epoch == 2:
            raise KilledError

    system = MultimodalSystem(manifest.labels, config)
    with pytest.raises(KilledError):
        system.fit(data, PART, resume_file=tmp_path / "last.pth", on_epoch=kill)
    _, _, resumed = fitted(manifest, config, tmp_path, data)
    assert losses(resumed) == losses(whole)


def test_the_train_part_alone_sets_the_standardisation_of_either(manifest, configure, tmp_path):
    system, data, _ = fitted(manifest, configure(), tmp_path)
    table = data.table(system.config)
    pairs = [table.read(row) for row in PART.train]
    for modality, values in (
        (system._network.audio, [pair.audio for pair in pairs]),
        (system._network.text, [pair.text for pair in pairs if pair.text is not None]),
    ):
        train = np.stack(values).astype(np.float64)
        np.testing.assert_allclose(modality.standardizer.mean, train.mean(0), atol=1e-5)


def test_nothing_of_val_and_test_reaches_the_training(manifest, configure, tmp_path):
    part = replace(PART, val=np.zeros(0, np.int64))
    config = configure()
    _, data, before = fitted(manifest, config, tmp_path, part=part, name="a.pth")
    targets, keys = data.targets.copy(), data.transcript_keys.copy()
    others = SPEAKER >= 4
    targets[others], keys[:, others] = np.roll(targets[others], 1, axis=1), b""
    changed = replace(data, targets=targets, transcript_keys=keys)
    # What the resume file is checked by names the train part only.
    _, _, after = fitted(manifest, config, tmp_path, changed, part=part, name="b.pth")
    assert losses(before) == losses(after)


def test_texts_with_errors_are_made_of_the_train_part_alone(manifest, configure, tmp_path):
    config = configure("errors.variants=3", "errors.rate=0.5")
    data = extracted(manifest, config, tmp_path)
    assert data.transcript_keys.shape == (4, 36)
    assert (data.transcript_keys[0] != b"").all()
    assert (data.transcript_keys[1:, SPEAKER >= 4] == b"").all()
    spoiled = data.transcript_keys[1:, PART.train]
    assert (spoiled != data.transcript_keys[0, PART.train]).mean() > 0.9
    assert (spoiled != b"").mean() > 0.9


def test_a_clip_without_a_believable_transcript_has_no_text(manifest, configure, tmp_path):
    config = configure("whisper.min_speech_seconds=0.5")  # tones are no voice
    system, data, _ = fitted(manifest, config, tmp_path)
    assert (data.transcript_keys == b"").all()
    assert set(data.transcriptions) == {None}
    assert data.facts["transcripts"] == {"no_speech": 36}
    predicted = system.predict_rows(data, np.arange(36))
    assert np.isfinite(predicted).all()
    system.write_extras(manifest, data, tmp_path)
    written = json.loads((tmp_path / "transcriptions.json").read_text(encoding="utf-8"))
    assert written == dict.fromkeys(manifest.table["id"])


def with_text(manifest):
    """The manifest with a text of its own that names the label."""
    spoken = {"angry": "a a a", "neutral": "b b", "sadness": "c"}
    texts = [spoken[label] for label in manifest.table["label"]]
    table = manifest.table.with_columns(text=np.array(texts, object))
    return Manifest(table.select(manifest.table.columns), manifest.provenance).validate()


def test_the_corpuss_own_text_is_an_ablation_and_a_source(manifest, configure, tmp_path):
    easy = ("train.epochs=60", "fusion.hidden=[32, 16]", "errors.variants=0", "speeds=[]")
    config = configure(*easy)
    data = extracted(with_text(manifest), config, tmp_path)
    assert data.facts["character error rate"] > 0.5  # a random Whisper
    ablations = MultimodalSystem.ablations(config, data)
    assert set(ablations) == {"audio only", "text only", "oracle text", "oracle text only"}
    own, own_data = ablations["oracle text only"]
    system, _, _ = fitted(with_text(manifest), own, tmp_path, own_data)
    best = system.predict_rows(own_data, PART.test).argmax(1)
    assert (best == data.targets[PART.test].argmax(1)).all(), "the text names the label"
    plain = extracted(manifest, config, tmp_path)
    assert set(MultimodalSystem.ablations(config, plain)) == {"audio only", "text only"}
    with pytest.raises(ConfigError, match="this manifest has no text"):
        extracted(manifest, configure("text_source=manifest"), tmp_path)


def rolled(sound):
    """Everybody's sound, dealt to others."""
    keys = np.roll(sound.variants.keys, 5, axis=1)
    return replace(sound, variants=replace(sound.variants, keys=keys))


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_an_ablation_depends_on_its_modality_alone(modality, manifest, configure, tmp_path):
    config = configure()
    data = extracted(manifest, config, tmp_path)
    alone, _ = MultimodalSystem.ablations(config, data)[f"{modality} only"]
    system, _, _ = fitted(manifest, alone, tmp_path, data)
    before = system.predict_rows(data, PART.test)
    other = (
        replace(data, transcript_keys=np.roll(data.transcript_keys, 5, axis=1))
        if modality == "audio"
        else replace(data, sound=rolled(data.sound))
    )
    np.testing.assert_array_equal(system.predict_rows(other, PART.test), before)


def test_permuted_labels_are_not_recognised(manifest, configure, tmp_path):
    """The canary: with labels that mean nothing, unheard speakers are guessed at chance."""
    config = configure("train.epochs=8", "speeds=[]")
    data = extracted(manifest, config, tmp_path)
    rng, n_right, n = np.random.default_rng(0), 0, 0
    for draw in range(6):
        shuffled = replace(data, targets=data.targets[rng.permutation(36)])
        test = np.flatnonzero(SPEAKER >= 4)
        part = Part(PART.train, np.zeros(0, np.int64), test, seed=draw)
        system, _, _ = fitted(manifest, config, tmp_path, shuffled, part, f"{draw}.pth")
        best = system.predict_rows(shuffled, part.test).argmax(1)
        n_right += int((best == shuffled.targets[part.test].argmax(1)).sum())
        n += len(best)
    # 72 guesses at 1/3 have a standard error of .056; this is three of them.
    assert abs(n_right / n - 1 / 3) < 0.17


def test_a_model_that_was_moved_is_found_and_another_refused(
    manifest, configure, tmp_path, whisper_folder, text_folder
):
    system, _, _ = fitted(manifest, configure(), tmp_path)
    path = tmp_path / "model.pth"
    system.to_checkpoint({}).write(path)
    recognizer = load_recognizer(path, whisper=str(whisper_folder), text_model=str(text_folder()))
    assert recognizer.labels == manifest.labels
    other = save_text_model(tmp_path / "other", seed=1)
    with pytest.raises(EncoderError, match=r"not the text model that is wanted.*--text-model"):
        load_recognizer(path, text_model=str(other))
    with pytest.raises(EncoderError, match=r"There is no folder '/gone/whisper'.*--whisper"):
        load_recognizer(path, whisper="/gone/whisper")
    with pytest.raises(CheckpointError, match=r"has no pretrained encoder\. Leave --encoder out"):
        load_recognizer(path, encoder="x")
    with pytest.raises(CheckpointError, match=r"has no Whisper\. Leave --whisper out"):
        Checkpoint("mfcc", ("a",), {}, {}, {}).with_model("whisper", "x")


def test_a_model_that_was_trained_on_a_gpu_predicts_without_one(manifest, configure, tmp_path):
    system, _, _ = fitted(manifest, configure(), tmp_path)
    made = system.to_checkpoint({})
    changed = {key: {**made.config[key], "device": "cuda"} for key in ("train", "whisper")}
    elsewhere = replace(made, config={**made.config, **changed})
    waveforms = [load(manifest.table["path"][0])]
    got = MultimodalSystem.from_checkpoint(elsewhere).predict_waveforms(waveforms)
    np.testing.assert_allclose(got, system.predict_waveforms(waveforms), atol=1e-6)


def test_heads_that_do_not_divide_the_width_are_refused(manifest, configure):
    with pytest.raises(ConfigError, match=r"fusion.width = 9 cannot be shared"):
        MultimodalSystem(manifest.labels, configure("fusion.width=9", "fusion.n_heads=2"))


def test_results_do_not_depend_on_threads_of_the_machine(manifest, configure, tmp_path):
    config, before = configure(), torch.get_num_threads()
    data, found = extracted(manifest, config, tmp_path), []
    try:
        for n_threads in (2, 1):
            torch.set_num_threads(n_threads)
            _, _, fit = fitted(manifest, config, tmp_path, data, name=f"{n_threads}.pth")
            found.append(losses(fit))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
