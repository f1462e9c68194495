"""`koser train --preset` and `--init` as typed, with adapters on a tiny encoder."""

import json
from dataclasses import replace

import polars as pl

from koser.data.manifest import Manifest
from koser.models.checkpoint import Checkpoint


def arguments(encoder, manifest, out, *more):
    return [
        "train", "--model", "wav2vec2ft", "--preset", "8gb", "--encoder", encoder,
        "--manifest", manifest, "--split", "speaker", "--out", out, "--workers", 1, "--quiet",
        "--set", "train.epochs=2", "--set", "probe_epochs=2", "--set", "speeds=[]", *more,
    ]  # fmt: skip


def test_adapters_of_a_preset_start_from_those_of_another_corpus(
    koser, manifest, encoder_folder, tmp_path
):
    encoder = encoder_folder("wav2vec2")
    status, printed, err = koser(*arguments(encoder, manifest, "before", "--set", "tune.rate=0.4"))
    assert status == 0, err
    line = " ".join(printed.split())
    assert "preset 8gb (adapters of rank 16 in all transformer layers): " in line
    assert "tune.lora_rank=16, tune.rate=0.4" in line
    one = Manifest.read(tmp_path / manifest)
    table = one.table.with_columns(pl.lit("other").alias("corpus"))
    Manifest(table, replace(one.provenance)).write(tmp_path / "other.parquet")

    init = ("--init", "before/best_model_wav2vec2ft.pth")
    status, _, err = koser(*arguments(encoder, "other.parquet", "after", *init))
    assert status == 0, err
    log = next((tmp_path / "after" / "parts").glob("*/train.log")).read_text(encoding="utf-8")
    assert "started from best_model_wav2vec2ft.pth: outputs kept for angry, neutral" in log
    assert "the head alone" not in log  # it comes trained
    run = json.loads((tmp_path / "after" / "run.json").read_text(encoding="utf-8"))
    assert run["experiment"]["init"]["corpus"] == ["tones"]
    made = Checkpoint.read(tmp_path / "after" / "best_model_wav2vec2ft.pth")
    assert any("lora_B" in name and tensor.any() for name, tensor in made.state.items())
    assert koser("predict", "after", "--manifest", "other.parquet")[0] == 0

    # The same start under other layers, and as another system, is refused in one line.
    status, _, err = koser(
        *arguments(encoder, "other.parquet", "x", *init, "--set", "tune.lora_rank=2")
    )
    assert status == 1
    assert "was trained with tune.lora_rank = 16, and this training has 2" in " ".join(err.split())
    status, _, err = koser(
        "train", "--model", "mfcc", "--manifest", "other.parquet", "--split", "speaker", *init
    )
    assert status == 1
    assert "is a model of 'wav2vec2ft', and 'mfcc' is to be trained" in " ".join(err.split())
    # What it has learnt from may not be tested.
    status, _, err = koser(*arguments(encoder, manifest, "y", *init, "--split-seed", 5))
    assert status == 1
    assert "has learnt from" in err
