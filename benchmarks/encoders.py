"""Which encoders the benchmarks measure: random weights for speed, real ones for scores."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HEARING = ("wav2vec2", "wav2vec2ft", "fusion")  # through a pretrained encoder
READING = ("multimodal", "fusion")
MEMBERS = ("wav2vec2", "fusion")  # of an ensemble, as by default
# Where the integration tests keep what they downloaded.
_KEPT = Path.home() / ".cache" / "koser-tests" / "models"


def random_wav2vec2(folder: Path) -> Path:
    """A checkpoint with the architecture of facebook/wav2vec2-base-960h and RANDOM weights.

    It is as fast and as large as the real one; a score measured with it means nothing.
    """
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        Wav2Vec2Model(Wav2Vec2Config(vocab_size=32)).save_pretrained(folder)
        extractor = Wav2Vec2FeatureExtractor(sampling_rate=16_000, do_normalize=True)
        extractor.save_pretrained(folder)
    return folder


def real_whisper_base(given: str | None) -> str:
    """Whisper-base with its real weights: what was given, else a kept copy, else the hub's."""
    kept = _KEPT / "whisper-base-hf"
    return given or (str(kept) if (kept / "config.json").exists() else "openai/whisper-base")


def real_whisper_ct2(given: str | None) -> str:
    """Whisper-base for CTranslate2 with its real weights: given, else kept, else the hub's."""
    kept = _KEPT / "whisper-base-ct2"
    return given or (str(kept) if (kept / "model.bin").exists() else "base")


def real_text_model(given: str | None) -> tuple[str, ...]:
    """Settings of multilingual-e5-small with its real weights: given, else kept, else the hub's.

    e5 is trained for the mean over tokens, and for this prefix.
    """
    kept = _KEPT / "multilingual-e5-small"
    name = given or (
        str(kept) if (kept / "config.json").exists() else "intfloat/multilingual-e5-small"
    )
    return (f'text.name="{name}"', "text.pooling=mean", 'text.prefix="query: "')


@dataclass(frozen=True)
class Pretrained:
    """What a system is given to train with."""

    encoder: str | None
    whisper: str | None
    overrides: tuple[str, ...]


def add_pretrained_options(parser: argparse.ArgumentParser) -> None:
    """The real models, for `pretrained_of`."""
    parser.add_argument("--encoder", help="hub id or folder; Whisper-base if not given")
    parser.add_argument("--whisper", help="folder or size; Whisper-base if not given")
    parser.add_argument("--text-model", help="hub id or folder; multilingual-e5-small if not given")


def pretrained_of(
    system: str, arguments: argparse.Namespace, members: Sequence[str] = MEMBERS
) -> Pretrained:
    """The real models that a system uses, an ensemble through its members."""
    used = set(members if system == "ensemble" else [system])
    hears, reads = not used.isdisjoint(HEARING), not used.isdisjoint(READING)
    return Pretrained(
        real_whisper_base(arguments.encoder) if hears else None,
        real_whisper_ct2(arguments.whisper) if reads else None,
        real_text_model(arguments.text_model) if reads else (),
    )
