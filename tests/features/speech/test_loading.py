import re
import shutil

import huggingface_hub
import pytest
import torch

from fixtures.encoders import CONVOLUTIONAL, N_LAYERS, WIDTH, save_encoder
from koser.errors import EncoderError
from koser.features.speech.convolutional import ConvolutionalEncoder, WavLmEncoder
from koser.features.speech.loading import SUPPORTED, EncoderOptions, load_encoder
from koser.features.speech.whisper import WhisperEncoder

KINDS = {kind: ConvolutionalEncoder for kind in CONVOLUTIONAL}
KINDS |= {"wavlm": WavLmEncoder, "wavlm-large": WavLmEncoder, "whisper": WhisperEncoder}


def refusal(name, **options):
    with pytest.raises(EncoderError) as caught:
        load_encoder(EncoderOptions(name=str(name), **options))
    message = str(caught.value)
    assert "\n" not in message
    assert str(name) in message
    assert message.endswith((".", ")", "`", "FOLDER"))
    return message


@pytest.mark.parametrize(("kind", "expected"), KINDS.items())
def test_an_encoder_is_loaded_frozen_in_single_precision_and_for_evaluation(
    kind, expected, load_kind
):
    loaded = load_kind(kind)
    encoder = loaded.encoder
    assert type(encoder) is expected
    assert (encoder.n_layers, encoder.width) == (N_LAYERS, WIDTH)
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert loaded.kind in SUPPORTED


def test_weights_kept_in_half_precision_are_computed_with_in_single(tmp_path):
    from transformers import AutoModel

    folder = save_encoder("wav2vec2", tmp_path / "half")
    AutoModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    encoder = load_encoder(EncoderOptions(name=str(folder))).encoder
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_a_model_with_a_head_is_loaded_without_it(tmp_path, load_kind):
    from transformers import Wav2Vec2ForCTC

    folder = save_encoder("wav2vec2", tmp_path / "ctc")
    Wav2Vec2ForCTC.from_pretrained(folder, vocab_size=12).save_pretrained(folder)
    loaded = load_encoder(EncoderOptions(name=str(folder)))
    assert loaded.options.fingerprint == load_kind("wav2vec2").options.fingerprint


def test_what_was_loaded_says_what_it_is(load_kind, encoder_folder):
    loaded = load_kind("hubert", window_seconds=7.0)
    assert loaded.options.name == str(encoder_folder("hubert"))
    assert loaded.describe() == {
        "kind": "hubert",
        "fingerprint": loaded.options.fingerprint,
        "window_seconds": 7.0,
    }
    assert load_encoder(loaded.options).describe() == loaded.describe()


def test_fingerprints_of_all_encoders_differ(load_kind):
    prints = {load_kind(kind).options.fingerprint for kind in KINDS}
    assert len(prints) == len(KINDS)
    assert all(len(bytes.fromhex(each)) == 8 for each in prints)


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("bert", r"no speech encoder that koser knows.*'bert'.*wav2vec2.*whisper"),
        ("no config", r"holds no model that can be loaded .*Give a folder with config\.json"),
        ("no weights", r"holds no model .*model\.safetensors"),
        ("no front-end", r"no readable preprocessor_config\.json.*Save the model's feature"),
        ("incomplete", r"lacks 1 of .*weights.*output_dense\.bias.*give a complete checkpoint"),
        ("mismatched", r"do not fit its config\.json\. Download or save"),
        ("damaged", r"damaged, or do not fit.*Download or save"),
        ("8 kHz", r"wants sound at 8000 Hz; koser's is at 16000\. Give another"),
        ("other bands", r"of another kind of model .*128 Mel bands.*, not 80.* \(whisper\)"),
        ("other n_fft", r"of another kind of model .*n_fft = 512, not 400.* \(whisper\)"),
        ("other hop", r"of another kind of model .*hop_length = 80, not 160.* \(whisper\)"),
    ],
)
def test_a_wrong_folder_is_refused_in_one_line(kind, pattern, encoder_folder):
    message = refusal(encoder_folder(kind))
    assert re.search(pattern, message), message


def test_a_damaged_config_is_refused(encoder_folder, tmp_path):
    folder = shutil.copytree(encoder_folder("wav2vec2"), tmp_path / "copy")
    (folder / "config.json").write_text("{broken", encoding="utf-8")
    assert "holds no model that can be loaded" in refusal(folder)


def test_damaged_pickled_weights_are_refused(encoder_folder, tmp_path):
    folder = shutil.copytree(encoder_folder("no weights"), tmp_path / "copy")
    (folder / "pytorch_model.bin").write_bytes(b"no weights at all")
    assert "damaged" in refusal(folder)


@pytest.mark.parametrize("name", ["./nowhere", "some/where/else"])
def test_a_missing_folder_is_refused(name):
    assert f"There is no folder '{name}'. Check the path." in refusal(name)


def test_an_absolute_path_that_is_missing_is_refused(tmp_path):
    assert "There is no folder" in refusal(tmp_path / "gone")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """As with HF_HUB_OFFLINE=1, which the hub's client reads when it is imported."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("offline")
def test_an_unreachable_hub_is_reported_with_the_way_around_it():
    message = refusal("invented-lab/invented-encoder")
    assert "hub cannot be reached" in message
    assert "--encoder FOLDER" in message


def test_another_encoder_than_the_pinned_one_is_refused(encoder_folder, load_kind):
    wanted = load_kind("wav2vec2").options.fingerprint
    message = refusal(encoder_folder("hubert"), fingerprint=wanted)
    assert f"not {wanted}" in message
    assert "--encoder" in message
    assert load_kind("wav2vec2", fingerprint=wanted).options.fingerprint == wanted


def test_windows_longer_than_whisper_takes_are_refused(encoder_folder, load_kind):
    message = refusal(encoder_folder("whisper"), window_seconds=30.5)
    assert "encoder.window_seconds = 30.5" in message
    assert "at most 30 s" in message
    assert load_kind("whisper", window_seconds=30.0).encoder.max_seconds == 30.0
    assert load_kind("wav2vec2", window_seconds=300.0).encoder.max_seconds is None
