"""GPU memory that fine-tuning needs, as koser computes it before it starts.

Architectures without weights: nothing is trained. The presets' figures are checked against a step
counted operation by operation (`step_memory.py`), in windows of 15 s; what a step really takes of
a CPU is measured by 09_finetune_epoch.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperModel,
)

from koser.features.speech.convolutional import ConvolutionalEncoder, WavLmEncoder
from koser.features.speech.encoder import SpeechEncoder
from koser.features.speech.whisper import WhisperEncoder
from koser.models.heads import HeadOptions
from koser.models.speech import FineTunedEncoder, TuneOptions
from koser.systems.memory import Memory, training_memory
from koser.systems.presets import MARGIN, PRESETS, Preset
from koser.systems.wav2vec2ft import FineTuneTrain
from measuring import new_parser, print_heading, print_table, print_verdict
from step_memory import count_step

BATCH_SECONDS = 60.0
LIMIT = 8.0  # GiB
WINDOW_SECONDS = 15.0
# A GPU's attention draws its dropout again; a CPU's would keep the matrix for it.
NO_MATRIX = 0.0
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "conv_bias": True,
}


def main() -> None:
    arguments = new_parser(__doc__).parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    encoders: dict[str, Callable[[], SpeechEncoder]] = {
        "wav2vec2-base": lambda: wav2vec2(),
        "XLS-R 300M": lambda: wav2vec2(**LARGE),
        "whisper-base": lambda: whisper(512, 6, 8),
        "whisper-small": lambda: whisper(768, 12, 12),
        "whisper-medium": lambda: whisper(1024, 24, 16),
        "WavLM-base": lambda: wavlm(),
    }
    print_settings(encoders)
    print_presets(dict(list(encoders.items())[:1]) if arguments.quick else encoders)


def print_settings(encoders: Mapping[str, Callable[[], SpeechEncoder]]) -> None:
    """What is computed for one batch of `BATCH_SECONDS`."""
    settings = (
        "4 layers (default)",
        "4 layers, waveform augmentation",
        "all transformer layers",
        "everything",
        "LoRA of rank 8, all layers",
    )
    rows = [(f"GiB in bf16 / float32, {BATCH_SECONDS:g} s a batch", *encoders)]
    defaults = []
    for setting in settings:
        cells = []
        for make in encoders.values():
            halves = [needed(make(), setting, bf16=bf16) for bf16 in (True, False)]
            cells.append(" / ".join(f"{each:.1f}" for each in halves))
            if setting == settings[0]:
                defaults += halves
        rows.append((setting, *cells))
    print_table(rows)
    worst = max(defaults)
    print_verdict(
        f"defaults need {worst:.1f} GiB at most", f"<= {LIMIT:g} GiB", is_met=worst <= LIMIT
    )


def print_presets(encoders: Mapping[str, Callable[[], SpeechEncoder]]) -> None:
    """What is computed for each preset, and what its step was counted to take."""
    rows = [("GB in bf16 / float32", "computed", "counted", "of")]
    ratios, shares = [], []
    for name, preset in PRESETS.items():
        for encoder, make in encoders.items():
            pairs = [compare(make(), preset, bf16=bf16) for bf16 in (True, False)]
            ratios += [computed.total / counted for computed, counted in pairs]
            shares += [counted / preset.budget for _, counted in pairs]
            computed, counted = (
                " / ".join(f"{each / 1e9:.1f}" for each in column)
                for column in zip(*[(one.total, other) for one, other in pairs], strict=True)
            )
            rows.append((f"{name}, {encoder}", computed, counted, f"{preset.budget / 1e9:g}"))
    print_table(rows)
    # WavLM's is computed for windows of 20 s.
    print_verdict(
        f"computed is {min(ratios):.2f} to {max(ratios):.2f} times what was counted",
        "1 to 1.6",
        is_met=min(ratios) >= 1 and max(ratios) <= 1.6,
    )
    print_verdict(
        f"counted is {max(shares):.0%} of a preset's memory at most",
        f"<= {1 - MARGIN:.0%}",
        is_met=max(shares) <= 1 - MARGIN,
    )


def compare(encoder: SpeechEncoder, preset: Preset, *, bf16: bool) -> tuple[Memory, int]:
    """A step's memory as computed, and as counted with the GPU's own; bytes."""
    tune = TuneOptions(**preset.settings["tune"])
    options = FineTuneTrain(**preset.settings["train"])
    from_waveforms = "augment" in preset.settings
    network = FineTunedEncoder(encoder, 7, HeadOptions(), tune, from_waveforms=from_waveforms)
    computed = training_memory(network, options.batch_seconds, bf16=bf16, gpu=True)
    return computed, count_step(network, options, WINDOW_SECONDS, bf16=bf16) + computed.overhead


def needed(encoder: SpeechEncoder, setting: str, *, bf16: bool) -> float:
    tune = {
        "all transformer layers": TuneOptions(layers=encoder.n_layers),
        "everything": TuneOptions(layers="all"),
        "LoRA of rank 8, all layers": TuneOptions(layers=encoder.n_layers, lora_rank=8),
    }.get(setting, TuneOptions())
    from_waveforms = setting in ("everything", "4 layers, waveform augmentation")
    network = FineTunedEncoder(encoder, 7, HeadOptions(), tune, from_waveforms=from_waveforms)
    return training_memory(network, BATCH_SECONDS, bf16=bf16, gpu=True).total / 2**30


def wav2vec2(**settings: object) -> SpeechEncoder:
    with torch.device("meta"):
        model = Wav2Vec2Model(Wav2Vec2Config(**settings, attention_dropout=NO_MATRIX))
        return ConvolutionalEncoder(model, normalize=True)


def wavlm(**settings: object) -> SpeechEncoder:
    with torch.device("meta"):
        return WavLmEncoder(WavLMModel(WavLMConfig(**settings)), normalize=True)


def whisper(width: int, n_layers: int, n_heads: int) -> SpeechEncoder:
    config = WhisperConfig(
        d_model=width,
        encoder_layers=n_layers,
        encoder_attention_heads=n_heads,
        encoder_ffn_dim=4 * width,
        decoder_layers=1,
        decoder_attention_heads=n_heads,
    )
    with torch.device("meta"):
        model = WhisperModel(config)
    return WhisperEncoder(model.encoder, np.zeros((201, 80)))


if __name__ == "__main__":
    main()
