"""Settings of fine-tuning by the memory of the GPU: ``koser train --preset 8gb|24gb|80gb``.

What each needs at the peak of a step is computed from an encoder's configuration alone; a margin
is left for what a computation from sizes does not see. Gradients are not recomputed anywhere:
these fit without. ``train.precision`` stays ``auto``, which is bf16 where a GPU computes in it, so
every preset has to fit in float32 too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from koser.config import Config
from koser.errors import ConfigError
from koser.features.speech.loading import EncoderOptions, load_architecture
from koser.models.speech import FineTunedEncoder
from koser.systems.memory import Memory, training_memory

SYSTEM = "wav2vec2ft"
MARGIN = 0.15  # share of the budget that stays free


@dataclass(frozen=True)
class Preset:
    """Settings for a GPU.

    Attributes
    ----------
    budget : float
        Its memory in bytes; 8 GB are 8e9, the smaller of the two meanings.
    what : str
        In a few words.
    settings : Mapping
        Values by section, as in a TOML file.
    """

    budget: float
    what: str
    settings: Mapping[str, Any]


PRESETS = {
    # Adapters start at zero and are few: they want the rate of a head, not of a layer
    # [Hu et al., "LoRA", ICLR 2022, who take 2e-4 to 5e-4 for RoBERTa].
    "8gb": Preset(
        8e9,
        "adapters of rank 16 in all transformer layers",
        {
            "tune": {"layers": "transformer", "lora_rank": 16, "rate": 0.5, "rate_decay": 1.0},
            "train": {"learning_rate": 5e-4, "batch_seconds": 30.0, "accumulate": 4},
        },
    ),
    # 2e-5 for the topmost layer [Devlin et al., "BERT", NAACL 2019], less for those below.
    "24gb": Preset(
        24e9,
        "all transformer layers",
        {
            "tune": {"layers": "transformer", "rate": 0.2},
            "train": {"learning_rate": 1e-4, "batch_seconds": 120.0},
        },
    ),
    # The front-end too, from waveforms that are changed in every epoch.
    "80gb": Preset(
        80e9,
        "the whole encoder, with waveform augmentation",
        {
            "tune": {"layers": "all", "rate": 0.2},
            "augment": {"speed": 0.1, "gain_db": 6.0, "noise_snr_db": 15.0},
            "train": {"learning_rate": 1e-4, "batch_seconds": 240.0},
        },
    ),
}


def preset_settings(name: str | None, system: str) -> Mapping[str, Any]:
    """Values that a configuration starts from; none without a preset.

    Raises
    ------
    ConfigError
        If there is no such preset, or `system` has none.
    """
    if name is None:
        return {}
    if name not in PRESETS:
        raise ConfigError(f"No preset is called '{name}'. Presets: {', '.join(PRESETS)}.")
    if system != SYSTEM:
        raise ConfigError(
            f"--preset {name}: presets are of fine-tuning ({SYSTEM}); '{system}' needs no GPU. "
            f"Leave it out."
        )
    return PRESETS[name].settings


def preset_memory(config: Any, *, bf16: bool) -> Memory:
    """What a training step of a configuration needs on a GPU, computed without weights.

    Parameters
    ----------
    config : Wav2Vec2FtConfig
        A preset's, with whatever was changed of it.
    bf16 : bool
        Whether products are in half precision.

    Raises
    ------
    EncoderError
        If the encoder's configuration cannot be had.
    """
    options: EncoderOptions = config.encoder
    network = FineTunedEncoder(
        load_architecture(options),
        2,  # labels: they weigh nothing
        config.head,
        config.tune,
        from_waveforms=bool(config.why_plain),
    )
    return training_memory(network, config.train.batch_seconds, bf16=bf16, gpu=True)


def describe_preset(name: str, config: Config) -> str:
    """A preset as it was resolved, and what it needs, in one line; raises as `preset_memory`."""
    preset, values = PRESETS[name], config.model_dump(mode="json")
    keys = [(section, key) for section, chosen in preset.settings.items() for key in chosen]
    settings = ", ".join(f"{section}.{key}={values[section][key]}" for section, key in keys)
    half, single = (preset_memory(config, bf16=bf16).total / 1e9 for bf16 in (True, False))
    return (
        f"preset {name} ({preset.what}): {settings}. A step needs about {half:.1f} GB in bf16, "
        f"{single:.1f} in float32, of {preset.budget / 1e9:.0f}."
    )
