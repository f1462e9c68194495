"""Models that benchmarks of speed run: the real architecture, RANDOM weights, no training."""

from __future__ import annotations

from pathlib import Path

from koser.audio.reading import load
from koser.demo import corpus_folder
from koser.inference.export import export_model
from koser.labels import EMOTIONS


def random_mfcc(folder: Path) -> tuple[Path, Path]:
    """A run folder with an untrained `mfcc` of default size, and its exported file.

    It is as fast and as large as a trained one; what it recognises means nothing.
    """
    import torch

    from koser.systems.mfcc import MfccConfig, MfccSystem

    run, exported = folder / "run", folder / "model.onnx"
    if not exported.exists():
        run.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        system = MfccSystem(EMOTIONS, MfccConfig())
        clips = sorted(corpus_folder().glob("*.flac"))[::30]
        system._network.standardizer.fit([system._extractor(load(clip)) for clip in clips])
        system.to_checkpoint({"split": "none: random weights"}).write(run / "best_model_mfcc.pth")
        export_model(run, exported)
    return run, exported
