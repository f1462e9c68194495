"""GPU memory that fine-tuning needs, as koser computes it before it starts (60 s a batch).

Architectures without weights: nothing is trained. What a step really takes is measured
by 09_finetune_epoch.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model, WhisperConfig, WhisperModel

from koser.features.speech.convolutional import ConvolutionalEncoder
from koser.features.speech.encoder import SpeechEncoder
from koser.features.speech.whisper import WhisperEncoder
from koser.models.heads import HeadOptions
from koser.models.speech import FineTunedEncoder, TuneOptions
from koser.systems.memory import training_memory
from measuring import new_parser, print_heading, print_table, print_verdict

BATCH_SECONDS = 60.0
LIMIT = 8.0  # GiB
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
    }
    settings = (
        "4 layers (default)",
        "4 layers, waveform augmentation",
        "all transformer layers",
        "everything",
        "LoRA of rank 8, all layers",
    )
    rows = [("GiB in bf16 / float32", *encoders)]
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
        return ConvolutionalEncoder(Wav2Vec2Model(Wav2Vec2Config(**settings)), normalize=True)


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
