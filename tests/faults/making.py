"""The inputs of every trial, made once with the commands themselves."""

from __future__ import annotations

from pathlib import Path

from faults.jobs import Inputs, train_mfcc, write_corpus
from faults.launching import Command, Launcher


def make_inputs(folder: Path, launcher: Launcher) -> Inputs:
    """A synthetic corpus, tiny random pretrained models, and two finished runs."""
    from fixtures.encoders import save_encoder
    from fixtures.text import convert, save_text_model, save_whisper

    table = write_corpus(folder / "corpus")
    save_encoder("wav2vec2", folder / "encoder")
    convert(save_whisper(folder / "whisper-original"), folder / "whisper")
    save_text_model(folder / "text")
    (folder / "space.toml").write_text(
        "[train]\nlearning_rate = { low = 1e-3, high = 1e-2, log = true }\n", encoding="utf-8"
    )
    inputs = Inputs(folder)
    prepare = ("prepare", "table", str(table), "--synthetic", "--out", inputs.manifest)
    one = [*train_mfcc(inputs)]
    one[one.index("run")] = "one"
    two = [*one, "--seed", "7"]
    two[two.index("one")] = "two"
    for arguments in (prepare, one, two):
        ending = launcher.run(Command(tuple(arguments), folder))
        if ending.status != 0:
            raise RuntimeError(f"{arguments} ended with {ending.status}: {ending.stderr}")
    return inputs
