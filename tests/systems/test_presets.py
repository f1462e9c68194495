"""Presets: what they need of a GPU, computed from configurations alone, and that they train."""

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, WhisperConfig

from fixtures.encoders import KINDS
from koser.data.arrangement import load_arranged
from koser.errors import ConfigError
from koser.experiment.request import resolve_settings
from koser.features.speech.loading import EncoderOptions, load_architecture, load_encoder
from koser.models.checkpoint import Checkpoint
from koser.models.shared import read_shared, write_shared
from koser.systems.presets import MARGIN, PRESETS, describe_preset, preset_memory
from koser.systems.system import Part
from koser.systems.wav2vec2ft import Wav2Vec2FtSystem

LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "conv_bias": True,
}


def whisper(width, n_layers, n_heads):
    return WhisperConfig(
        d_model=width,
        encoder_layers=n_layers,
        encoder_attention_heads=n_heads,
        encoder_ffn_dim=4 * width,
        decoder_layers=1,
        decoder_attention_heads=n_heads,
    )


# As the published models' config.json have them.
ENCODERS = {
    "wav2vec2-base": Wav2Vec2Config(),
    "wav2vec2-large and XLS-R 300M": Wav2Vec2Config(**LARGE),
    "whisper-small": whisper(768, 12, 12),
    "whisper-medium": whisper(1024, 24, 16),
}
N_PARAMETERS = {  # published, in millions; of Whisper half of it and more is the decoder
    "wav2vec2-base": 94.4,
    "wav2vec2-large and XLS-R 300M": 315.4,
    "whisper-small": 88.2,
    "whisper-medium": 307.2,
}


def settings(preset, folder, *overrides):
    return resolve_settings("wav2vec2ft", preset=preset, encoder=str(folder), overrides=overrides)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_preset_fits_every_encoder_with_a_margin_in_both_precisions(encoder, tmp_path):
    ENCODERS[encoder].save_pretrained(tmp_path)
    outline = load_architecture(EncoderOptions(name=str(tmp_path)))
    parameters = list(outline.parameters())
    assert all(parameter.is_meta for parameter in parameters)
    found = sum(parameter.numel() for parameter in parameters) / 1e6
    assert found == pytest.approx(N_PARAMETERS[encoder], rel=0.02)
    needed = {}
    for name, preset in PRESETS.items():
        for bf16 in (True, False):
            memory = preset_memory(settings(name, tmp_path), bf16=bf16)
            assert memory.total <= (1 - MARGIN) * preset.budget, (name, bf16)
            needed[name, bf16] = memory.total
    # A larger GPU is used: its preset would not fit the next smaller one's budget, or trains more.
    trained = [preset_memory(settings(name, tmp_path), bf16=False).parameters for name in PRESETS]
    assert trained == sorted(trained)
    assert trained[0] < trained[1]


def test_what_a_preset_needs_grows_with_what_was_set_beside_it(tmp_path):
    ENCODERS["whisper-small"].save_pretrained(tmp_path)
    plain = preset_memory(settings("24gb", tmp_path), bf16=True)
    longer = preset_memory(settings("24gb", tmp_path, "train.batch_seconds=240"), bf16=True)
    assert longer.activations == pytest.approx(2 * plain.activations, rel=0.01)
    assert longer.parameters == plain.parameters


def test_the_memory_of_an_outline_is_that_of_the_encoder_with_its_weights(encoder_folder):
    from koser.models.speech import FineTunedEncoder
    from koser.systems.memory import training_memory

    for kind in KINDS:
        config = settings("8gb", encoder_folder(kind))
        whole = FineTunedEncoder(
            load_encoder(config.encoder).encoder, 2, config.head, config.tune, from_waveforms=False
        )
        expected = training_memory(whole, config.train.batch_seconds, bf16=True, gpu=True)
        assert preset_memory(config, bf16=True) == expected, kind


def test_set_and_a_file_go_before_a_preset(tmp_path):
    (tmp_path / "c.toml").write_text("[tune]\nlora_rank = 4\n", encoding="utf-8")
    config = resolve_settings(
        "wav2vec2ft", preset="8gb", file=tmp_path / "c.toml", overrides=["tune.rate=0.25"]
    )
    assert (config.tune.lora_rank, config.tune.rate, config.tune.rate_decay) == (4, 0.25, 1.0)
    assert config.tune.layers == "transformer"
    assert config.train.accumulate == 4


def test_unknown_presets_and_other_systems_are_refused():
    with pytest.raises(ConfigError, match=r"No preset is called '12gb'. Presets: 8gb, 24gb, 80gb"):
        resolve_settings("wav2vec2ft", preset="12gb")
    with pytest.raises(ConfigError, match="presets are of fine-tuning"):
        resolve_settings("mfcc", preset="8gb")


def has_learnt(state, before):
    """Whether an adapter adds something, or a layer has other weights than the encoder's."""
    for name, tensor in state.items():
        rest = name.removeprefix("tuned.")
        was = before.get(rest, before.get(f"layers.{rest}"))
        if was is None and "lora_B" in name and tensor.any():
            return True
        if was is not None and not torch.equal(was, tensor):
            return True
    return False


@pytest.mark.parametrize(
    ("preset", "kind"),
    [
        *(("8gb", kind) for kind in KINDS),
        *(("24gb", kind) for kind in KINDS),
        *(("80gb", kind) for kind in ("xls-r", "wavlm", "whisper")),
    ],
)
def test_every_preset_trains_saves_shares_and_predicts_with_every_architecture(
    preset, kind, encoder_folder, tone_corpus, tmp_path
):
    manifest = load_arranged(tone_corpus(n_speakers=2, n_each=1, seconds=0.2))
    # Epochs of one step, the last of them at a rate of 0. Before the head has learnt alone it is
    # zero, and would send no gradient into an adapter.
    quick = ("train.epochs=2", "probe_epochs=3", "speeds=[]")
    config = settings(preset, encoder_folder(kind), *quick)
    rows = np.arange(len(manifest))
    part = Part(rows[::2], np.zeros(0, np.int64), rows[1::2], seed=0)
    system = Wav2Vec2FtSystem(manifest.labels, config)
    data = system.extract(manifest, config, train_rows=part.train, store_root=tmp_path / "store")
    before = {
        name: tensor.clone()
        for name, tensor in load_encoder(config.encoder).encoder.state_dict().items()
    }
    fit = system.fit(data, part, resume_file=tmp_path / "last.pth")
    assert len(fit.history) == 2
    expected = system.predict_rows(data, part.test)
    checkpoint = system.to_checkpoint({"split": {"protocol": "none"}})
    checkpoint.write(tmp_path / "model.pth")
    is_adapted = any("lora_" in name for name in checkpoint.state)
    assert is_adapted == (preset == "8gb")
    assert has_learnt(checkpoint.state, before)
    (tmp_path / "shared").mkdir()
    write_shared(checkpoint, tmp_path / "shared")
    for loaded in (Checkpoint.read(tmp_path / "model.pth"), read_shared(tmp_path / "shared")):
        again = Wav2Vec2FtSystem.from_checkpoint(loaded)
        torch.testing.assert_close(again.predict_rows(data, part.test), expected)
    # What is on the disk is as it was: training changed a copy.
    for name, tensor in load_encoder(config.encoder).encoder.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_a_preset_is_described_with_its_settings_and_needs(tmp_path):
    ENCODERS["wav2vec2-base"].save_pretrained(tmp_path)
    line = describe_preset("8gb", settings("8gb", tmp_path, "tune.lora_rank=8"))
    assert line.startswith("preset 8gb (adapters of rank 16 in all transformer layers): ")
    assert "tune.lora_rank=8" in line
    assert line.endswith(" in float32, of 8.")
