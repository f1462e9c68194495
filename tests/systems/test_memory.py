"""Memory of fine-tuning: what is counted, what is refused, and what the refusal advises."""

import re

import pytest
import torch
from transformers import AutoModel, Wav2Vec2Config, WavLMConfig, WhisperConfig

from fixtures.benchmarks import load_benchmark
from fixtures.encoders import N_LAYERS
from koser.config import resolve_config
from koser.errors import RunError
from koser.features.speech.convolutional import ConvolutionalEncoder
from koser.features.speech.loading import EncoderOptions, load_architecture
from koser.models.heads import HeadOptions
from koser.models.speech import FineTunedEncoder, TuneOptions
from koser.systems.ensemble import EnsembleSystem
from koser.systems.ensemble_config import EnsembleConfig
from koser.systems.memory import check_memory, training_memory
from koser.systems.wav2vec2ft import FineTuneTrain, Wav2Vec2FtConfig
from koser.training.devices import explained_memory_errors

CPU = torch.device("cpu")
SIZES = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "conv_dim": (64,) * 7,
    "attention_dropout": 0.0,
}
step_memory = load_benchmark("step_memory")


@pytest.fixture
def free(monkeypatch):
    """Let the machine have as much free memory as is said."""

    def have(n_bytes):
        monkeypatch.setattr("koser.systems.memory.free_memory", lambda: n_bytes)

    return have


def network_of(encoder, head=HeadOptions(), *, from_waveforms=False, **tune):  # noqa: B008
    return FineTunedEncoder(encoder, 4, head, TuneOptions(**tune), from_waveforms=from_waveforms)


def base_needs(**tune):
    """Of a step of wav2vec2-base from waveforms."""
    with torch.device("meta"):
        encoder = ConvolutionalEncoder(AutoModel.from_config(Wav2Vec2Config()), normalize=True)
        network = network_of(encoder, from_waveforms=True, **tune)
    return training_memory(network, 60, bf16=True, gpu=True)


def test_the_front_end_counts_as_trained_only_where_it_is():
    eleven, twelve, every, whole = (
        base_needs(layers=each).activations for each in (11, 12, "transformer", "all")
    )
    assert twelve == every
    # What one layer more keeps, and nothing of the convolutions below it.
    assert twelve - eleven == pytest.approx(2999 * 768 * 55, rel=1e-3)
    # Three outputs of each convolution of 60 s in float32, 512 channels wide, and a gradient.
    frames = sum(960_000 // stride for stride in (5, 10, 20, 40, 80, 160, 320))
    frozen = 4 * 512 * (2 * 960_000 // 5 + 960_000 // 10)
    gradient = 4 * 512 * 960_000 // 5
    assert whole - every == 3 * 4 * 512 * frames + gradient - frozen


OUTLINES = {
    "wav2vec2": Wav2Vec2Config(**SIZES),
    "xls-r": Wav2Vec2Config(
        **SIZES, do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True
    ),
    "wavlm": WavLMConfig(**SIZES),
    "whisper": WhisperConfig(
        d_model=128,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=512,
        decoder_layers=1,
        decoder_attention_heads=4,
        attention_dropout=0.0,
    ),
}


@pytest.mark.parametrize(
    ("tune", "precision"),
    [
        ({"layers": "transformer"}, "bf16"),
        ({"layers": "transformer"}, "float32"),
        ({"layers": "all"}, "float32"),
        ({"layers": "transformer", "lora_rank": 4}, "bf16"),
    ],
)
@pytest.mark.parametrize("kind", OUTLINES)
def test_no_step_was_counted_to_take_more_than_is_computed(kind, tune, precision, tmp_path):
    OUTLINES[kind].save_pretrained(tmp_path)
    encoder = load_architecture(EncoderOptions(name=str(tmp_path)))
    is_bf16, from_waveforms = precision == "bf16", tune.get("layers") == "all"
    network = network_of(encoder, from_waveforms=from_waveforms, **tune)
    options = FineTuneTrain(batch_seconds=60.0, accumulate=2)
    computed = training_memory(network, 60.0, bf16=is_bf16, gpu=True)
    counted = step_memory.count_step(network, options, 20.0, bf16=is_bf16)
    assert counted <= computed.total - computed.overhead <= 2 * counted


def test_the_head_alone_advises_what_can_be_set():
    config = Wav2Vec2FtConfig()
    with (
        pytest.raises(RunError, match="head was learning alone") as caught,
        explained_memory_errors(config.probe),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    advised = re.findall(r"--set ([\w.]+=\w+)", str(caught.value))
    assert advised == ["probe_epochs=0", "head.layers=last"]
    for override in advised:
        assert resolve_config(Wav2Vec2FtConfig, overrides=[override]) != config


def test_adapters_in_all_layers_leave_the_front_end_frozen():
    assert base_needs(layers="all", lora_rank=8) == base_needs(layers="transformer", lora_rank=8)


@pytest.mark.parametrize(
    ("layers", "head", "advised"),
    [
        (3, "weighted", 2),
        (2, "weighted", 1),
        (1, "weighted", None),
        ("transformer", "weighted", 2),
        ("all", "weighted", 2),
        # A head on a lower state has to be trained with the layer below it.
        (3, 2, 2),
        (3, 1, None),
        ("all", 1, 3),
        ("all", 0, None),
    ],
)
def test_what_is_advised_trains_less_and_is_no_error_itself(layers, head, advised, load_kind, free):
    encoder = load_kind("wav2vec2").encoder
    head = HeadOptions(layers=head)
    free(10**8)
    with pytest.raises(RunError) as caught:
        check_memory(network_of(encoder, head, layers=layers), FineTuneTrain(), 60.0, CPU)
    found = re.search(r"; or train fewer layers: --set tune\.layers=(\d)$", str(caught.value))
    assert (int(found[1]) if found else None) == advised
    if found:
        network_of(encoder, head, layers=advised)
        assert advised < N_LAYERS or layers == "all"


def test_trainings_at_once_have_a_share_of_the_memory_each(load_kind, free):
    network, options = network_of(load_kind("wav2vec2").encoder, layers=2), FineTuneTrain()
    needed = training_memory(network, 60.0, bf16=False, gpu=False).total
    free(10 * needed)
    check_memory(network, options, 60.0, CPU, share=needed)
    with pytest.raises(RunError, match=r"GB are free for each training.*--workers 1"):
        check_memory(network, options, 60.0, CPU, share=needed - 1)
    # Others have begun and taken theirs: what is left now is not all of its own share.
    free(needed // 2)
    check_memory(network, options, 60.0, CPU, share=needed)
    with pytest.raises(RunError, match=r"GB are free\. Halve") as caught:
        check_memory(network, options, 60.0, CPU)
    assert "--workers" not in str(caught.value)


def test_an_ensemble_passes_its_share_of_the_memory_on():
    ensemble = EnsembleSystem(("a", "b"), EnsembleConfig(members=("mfcc", "wav2vec2ft")))
    ensemble.memory_share = 10**9
    assert ensemble._make("wav2vec2ft").memory_share == 10**9
