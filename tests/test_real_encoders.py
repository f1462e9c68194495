"""Real speech through real encoders: Whisper-base, and wav2vec2-base at full size.

The former's weights are real. The latter's are random: it is there for sizes and arithmetic,
and what it recognises means nothing.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
import torch
from torch.nn import functional
from transformers import WhisperFeatureExtractor, WhisperModel

from koser.audio.reading import SAMPLING_RATE, load
from koser.data.corpora import prepare
from koser.data.manifest import Manifest
from koser.data.splits import Split, SplitOptions, make_split
from koser.features.speech.encoder import pad_waveforms
from koser.features.speech.extractors import StatisticsExtractor, TrunkExtractor
from koser.features.speech.loading import EncoderOptions, load_encoder
from koser.models.heads import HeadOptions
from koser.models.speech import FineTunedEncoder, TuneOptions
from koser.training.batches import pad_windows

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[1]
EMOTIONTTS = ROOT / ".." / "shared" / "corpora" / "emotiontts_open_db"
DEFAULT_MODELS = Path.home() / ".cache" / "koser-tests" / "models"
MODELS = Path(os.environ.get("KOSER_TEST_MODELS") or DEFAULT_MODELS).resolve()


def model_folder(name):
    folder = MODELS / name
    assert (folder / "config.json").is_file(), (
        f"No model in '{folder}'. Build it as .ci/run does, or say where it is "
        f"with KOSER_TEST_MODELS."
    )
    return folder


@pytest.fixture(scope="module")
def whisper():
    return load_encoder(EncoderOptions(name=str(model_folder("whisper-base-hf"))))


@pytest.fixture(scope="module")
def wav2vec2():
    return load_encoder(EncoderOptions(name=str(model_folder("wav2vec2-base-random"))))


@pytest.fixture(scope="module")
def emotiontts():
    manifest = prepare("emotiontts", EMOTIONTTS, {})
    assert len(manifest) == 200
    return manifest


@pytest.fixture(scope="module")
def waveforms(emotiontts):
    """Eight real clips, of other lengths."""
    table = emotiontts.table.sort("duration")[::25]
    return [load(path) for path in table["path"]]


@pytest.fixture
def koser(tmp_path):
    """Call the command in an empty folder, on one core; returns what it prints."""

    def call(*arguments):
        result = subprocess.run(
            [sys.executable, "-m", "koser", *map(str, arguments)],
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    return call


def environment(folder):
    return {**os.environ, "KOSER_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


def largest_difference(actual, expected):
    """Of a row as a whole: Whisper has a value of hundreds among hundreds of about one."""
    return float(((actual - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


def states_of(loaded, waveforms):
    """All states of each waveform, computed side by side: (n_states, n_frames, width)."""
    padded, n_samples = pad_waveforms(waveforms)
    with torch.inference_mode():
        states, n_frames = loaded.encoder(padded, n_samples)
    stacked = torch.stack(states, 1)
    return [each[:, :n] for each, n in zip(stacked, n_frames.tolist(), strict=True)]


# --- Whisper-base, real weights


def test_whisper_hears_a_clip_as_transformers_does(whisper, waveforms):
    folder = model_folder("whisper-base-hf")
    front_end = WhisperFeatureExtractor.from_pretrained(folder)
    model = WhisperModel.from_pretrained(folder, dtype=torch.float32).encoder.eval()
    clip = waveforms[4]
    full = np.concatenate(waveforms)[: 30 * SAMPLING_RATE]
    assert len(full) == 30 * SAMPLING_RATE
    for waveform, n_states in ((clip, 1), (full, 7)):
        # Of a clip, its last layers differ by design: theirs attend to silence up to 30 s.
        mel = front_end(waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt")
        with torch.inference_mode():
            expected = model(mel.input_features, output_hidden_states=True).hidden_states
        (actual,) = states_of(whisper, [waveform])
        assert actual.shape[:1] == (7,) == (len(expected),)
        for ours, theirs in zip(actual[:n_states], expected, strict=False):
            assert largest_difference(ours, theirs[0, : len(ours)]) < 1e-4


def test_whisper_hears_a_clip_in_a_batch_as_alone(whisper, waveforms):
    together = states_of(whisper, waveforms)
    for waveform, batched in zip(waveforms, together, strict=True):
        (alone,) = states_of(whisper, [waveform])
        for ours, expected in zip(batched, alone, strict=True):
            assert largest_difference(ours, expected) < 1e-4


def test_frozen_whisper_generalises_to_unheard_voices_and_sentences(koser, emotiontts, tmp_path):
    options = SplitOptions(n_folds=5, n_script_folds=5, val_fraction=0.0)
    whole = make_split(emotiontts, "speaker+script", options)
    # Of all 25 pairs of speakers and sentences left out, ten: each part of either twice.
    chosen = sorted(5 * each + (each + shift) % 5 for each in range(5) for shift in (0, 1))
    numbers = {str(fold): number for number, fold in enumerate(chosen)}
    table = whole.table.filter(pl.col("fold").is_in(chosen)).with_columns(
        pl.col("fold").cast(pl.String).replace_strict(numbers, return_dtype=pl.Int32)
    )
    split = Split(table, whole.protocol, whole.grouping, whole.options, whole.notes)
    split.write(tmp_path / "s.parquet")
    emotiontts.write(tmp_path / "m.parquet")
    printed = koser(
        "train", "--model", "wav2vec2", "--encoder", model_folder("whisper-base-hf"),
        "--manifest", "m.parquet", "--split", "s.parquet", "--set", "speeds=[]", "--out", "run",
    )  # fmt: skip
    assert "speakers none" in " ".join(printed.split())
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["n"], len(metrics["folds"])) == (80, 10)
    assert metrics["shared"]["scripts"] == "none"
    # All 25 folds give .87. Of 80 utterances, .87 has a standard error of .038: this is three
    # below. Chance is .25, and ComParE with a linear SVM reaches .69 on this protocol.
    assert metrics["uar"] > 0.75


def test_whisper_is_fine_tuned_and_recognises(koser, emotiontts, tmp_path):
    table = emotiontts.table
    speakers = table["speaker"].unique().sort()[:3]
    table = table.filter(pl.col("speaker").is_in(speakers.implode()))
    table = table.group_by("speaker", "label", maintain_order=True).head(2)
    table = table.select(emotiontts.table.columns)
    assert len(table) == 24
    provenance = replace(emotiontts.provenance, n_rows_in=24, left_out=())
    Manifest(table, provenance).write(tmp_path / "m.parquet")
    koser(
        "train", "--model", "wav2vec2ft", "--encoder", model_folder("whisper-base-hf"),
        "--manifest", "m.parquet", "--split", "speaker",
        "--set", "speeds=[]", "--set", "train.epochs=1", "--set", "probe_epochs=5",
        "--out", "run",
    )  # fmt: skip
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["features"]["trained layers"] == 4
    # 4 of 6 layers of a 20-million encoder, without the rest.
    assert 45e6 < (tmp_path / "run" / "best_model_wav2vec2ft.pth").stat().st_size < 60e6
    predicted = pl.read_parquet(tmp_path / "run" / "predictions.parquet")
    row = predicted.row(0, named=True)
    path = table.filter(pl.col("id") == row["id"])["path"][0]
    (prediction,) = json.loads(koser("predict", "run", path, "--format", "json"))
    assert prediction["label"] in emotiontts.labels
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)


# --- wav2vec2-base, full size, random weights


def test_full_size_statistics_hardly_change_in_half_precision(wav2vec2, waveforms):
    assert (wav2vec2.encoder.n_layers, wav2vec2.encoder.width) == (12, 768)
    whole, half = (
        StatisticsExtractor(wav2vec2, dtype=dtype).extract(waveforms[:3])
        for dtype in ("float32", "float16")
    )
    for expected, actual in zip(whole, half, strict=True):
        assert expected.shape == actual.shape == (13, 2, 768)
        assert actual.dtype == np.float16
        # Half a unit in the last of 11 bits; of numbers too small for that, of the smallest step.
        np.testing.assert_allclose(actual, expected, rtol=2**-11, atol=2**-25)


def test_full_size_training_from_the_stored_trunk_has_the_plain_ways_gradients(wav2vec2, waveforms):
    clips = [waveform[: 2 * SAMPLING_RATE - 1000 * n] for n, waveform in enumerate(waveforms[:3])]
    targets = torch.eye(4)[:3]
    tune, steps = TuneOptions(layers=4), []
    for from_waveforms in (False, True):
        torch.manual_seed(0)
        network = FineTunedEncoder(
            wav2vec2.encoder, 4, HeadOptions(), tune, from_waveforms=from_waveforms
        )
        network.train()
        network.zero_grad(set_to_none=True)
        # It starts at zero, and would pass no gradient on.
        for parameter in network.classifier.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        if from_waveforms:
            arrays = [clip[None] for clip in clips]
        else:
            arrays = TrunkExtractor(wav2vec2, network.first, dtype="float32").extract(clips)
        torch.manual_seed(1)  # the same dropout
        loss = functional.cross_entropy(network(*pad_windows(arrays)), targets)
        loss.backward()
        gradients = {
            name: parameter.grad.clone()
            for name, parameter in network.named_parameters()
            if parameter.grad is not None
        }
        steps.append((loss.detach(), gradients))
    wav2vec2.encoder.requires_grad_(False).eval()
    (stored_loss, stored), (plain_loss, plain) = steps
    torch.testing.assert_close(stored_loss, plain_loss, rtol=1e-5, atol=0)
    assert stored.keys() == plain.keys()
    assert len([name for name in plain if name.startswith("tuned.")]) == 4 * 16
    for name, expected in plain.items():
        # The gradient of a key's bias is zero but for rounding: softmax does not see it.
        if not name.endswith("k_proj.bias"):
            assert float((stored[name] - expected).norm() / expected.norm()) < 1e-4, name


def test_a_full_size_fine_tuning_is_killed_resumed_and_recognises(koser, emotiontts, tmp_path):
    for speaker, label in ((s, e) for s in range(3) for e in emotiontts.labels):
        rows = emotiontts.table.filter(
            (pl.col("label") == label)
            & (pl.col("speaker") == emotiontts.table["speaker"].unique().sort()[speaker])
        )
        (tmp_path / "clips" / label).mkdir(parents=True, exist_ok=True)
        soundfile.write(
            tmp_path / "clips" / label / f"s{speaker}.wav",
            load(rows["path"][0])[: 2 * SAMPLING_RATE],
            SAMPLING_RATE,
        )
    koser("prepare", "folder", "clips", "--speaker-pattern", r"(s\d)", "--out", "m.parquet")
    command = [
        "train", "--model", "wav2vec2ft", "--encoder", str(model_folder("wav2vec2-base-random")),
        "--manifest", "m.parquet", "--split", "random", "--test-fraction", "0.34",
        "--val-fraction", "0.33", "--set", "speeds=[]", "--set", "train.epochs=3",
        "--set", "probe_epochs=2", "--out", "run",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "koser", *command], cwd=tmp_path, env=environment(tmp_path)
    )
    log = tmp_path / "run" / "train.log"
    with_val = re.compile(r'"epoch": (\d).*"val_uar": \d')  # the head alone has none
    while not (log.exists() and with_val.search(log.read_text(encoding="utf-8"))):
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    koser(*command, "--resume")
    assert with_val.findall(log.read_text(encoding="utf-8")) == ["1", "2", "3"]
    wav = next((tmp_path / "clips").rglob("*.wav"))
    (prediction,) = json.loads(koser("predict", "run", wav, "--format", "json"))
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)
