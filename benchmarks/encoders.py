"""Which encoders the benchmarks measure: random weights for speed, real ones for scores."""

from __future__ import annotations

from pathlib import Path

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
