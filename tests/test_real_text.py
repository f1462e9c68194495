"""Real Korean speech through a real Whisper-base and a real multilingual-e5-small."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jiwer
import numpy as np
import pytest

from koser.audio.reading import SAMPLING_RATE, load
from koser.data.corpora import prepare
from koser.data.manifest import Manifest
from koser.features.text.encoder import TextExtractor, TextOptions, load_text_encoder
from koser.features.text.guards import Status
from koser.features.text.transcriber import Transcriber
from koser.features.text.whisper import WhisperOptions, find_whisper

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
def few(tmp_path_factory):
    """A manifest of real clips: three speakers, each with two sentences of every label."""
    whole = prepare("emotiontts", EMOTIONTTS, {})
    speakers = whole.table["speaker"].unique().sort()[:3].to_list()
    table = whole.table.filter(whole.table["speaker"].is_in(speakers))
    table = table.group_by("speaker", "label", maintain_order=True).head(2)
    table = table.select(whole.table.columns)
    assert len(table) == 24
    provenance = replace(whole.provenance, n_rows_in=24, left_out=())
    path = tmp_path_factory.mktemp("few") / "m.parquet"
    Manifest(table, provenance).write(path)
    return path


@pytest.fixture(scope="module")
def transcriber():
    options = WhisperOptions(name=str(model_folder("whisper-base-ct2")))
    return Transcriber(find_whisper(options).load(), "ko")


def letters(text):
    return "".join(letter for letter in text if letter.isalnum())


def koser(folder, *arguments):
    result = subprocess.run(
        [sys.executable, "-m", "koser", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "KOSER_CACHE": str(folder / "cache")},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_short_context_hears_korean_as_well_as_full_context(few, transcriber):
    table = Manifest.read(few).table
    waveforms = [load(path) for path in table["path"]]
    options = WhisperOptions(name=str(model_folder("whisper-base-ct2")), context="full")
    full = Transcriber(find_whisper(options).load(), "ko").transcribe(waveforms[:8])
    short = transcriber.transcribe(waveforms)
    assert {each.status for each in short} == {Status.ok}
    said = [letters(text) for text in table["text"]]
    error = jiwer.cer(said, [letters(each.text) for each in short])
    # All 200 clips have 7 %; of these 450 letters a share has a standard error of .012 or more,
    # because errors come in clusters.
    assert error < 0.14
    on_eight = [
        jiwer.cer(said[:8], [letters(each.text) for each in found[:8]]) for found in (short, full)
    ]
    assert on_eight[0] <= on_eight[1] + 0.03


def test_real_whisper_in_a_batch_and_alone_says_the_same(few, transcriber):
    waveforms = [load(path) for path in Manifest.read(few).table["path"][:6]]
    together = transcriber.transcribe(waveforms)
    for waveform, expected in zip(waveforms, together, strict=True):
        (alone,) = transcriber.transcribe([waveform])
        assert alone.text == expected.text
        assert alone.avg_logprob == pytest.approx(expected.avg_logprob, abs=1e-3)


def test_real_whisper_says_nothing_of_silence_and_noise(transcriber):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.02, 3 * SAMPLING_RATE).astype(np.float32)
    for waveform in (np.zeros(2 * SAMPLING_RATE, np.float32), noise):
        (found,) = transcriber.transcribe([waveform])
        assert found.status is Status.no_speech
        assert found.usable_text is None


def test_a_real_text_model_knows_what_is_alike():
    options = TextOptions(
        name=str(model_folder("multilingual-e5-small")), pooling="mean", prefix="query: "
    )
    extractor = TextExtractor(load_text_encoder(options), keep="pooled")
    sentences = ["오늘 정말 기분이 좋아.", "너무 행복한 하루야.", "서버의 전원을 교체했습니다."]
    vectors = np.stack(extractor.extract(sentences))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > likeness[0, 2]
    assert likeness[0, 1] > likeness[1, 2]


def test_the_multimodal_system_is_trained_and_recognises_real_speech(few, tmp_path):
    koser(
        tmp_path, "train", "--model", "multimodal", "--manifest", few, "--split", "speaker",
        "--whisper", model_folder("whisper-base-hf"),
        "--text-model", model_folder("multilingual-e5-small"),
        "--set", "text.pooling=mean", "--set", "train.epochs=20", "--set", "speeds=[]",
        "--val-fraction", "0", "--out", "run",
    )  # fmt: skip
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["features"]["transcripts"] == {"ok": 24}
    assert metrics["features"]["character error rate"] < 0.14
    # Sentences are known here, and each belongs to one emotion: it is the leak that works.
    assert metrics["ablations"]["text only"]["uar"] > 0.9
    assert "scripts" in metrics["shared"]
    texts = json.loads((tmp_path / "run" / "transcriptions.json").read_text(encoding="utf-8"))
    path = Manifest.read(few).table["path"][0]
    assert len(texts) == 24
    (prediction,) = json.loads(koser(tmp_path, "predict", "run", path, "--format", "json"))
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)


def test_an_encoder_fused_with_words_and_stacked_recognises_real_speech(few, tmp_path):
    common = (
        "--manifest", few, "--split", "speaker", "--val-fraction", "0",
        "--encoder", model_folder("whisper-base-hf"),
        "--whisper", model_folder("whisper-base-ct2"),
        "--text-model", model_folder("multilingual-e5-small"), "--set", "text.pooling=mean",
    )  # fmt: skip
    few_epochs = ("train.epochs=20", "speeds=[]")
    koser(
        tmp_path, "train", "--model", "fusion", *common, "--out", "fusion",
        *(part for each in few_epochs for part in ("--set", each)),
    )  # fmt: skip
    metrics = json.loads((tmp_path / "fusion" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["features"]["transcripts"] == {"ok": 24}
    assert metrics["features"]["kind"] == "whisper"
    # Sentences are known here, and each belongs to one emotion: it is the leak that works.
    assert metrics["uar"] > 0.9
    koser(
        tmp_path, "train", "--model", "ensemble", "--members", "wav2vec2,fusion", *common,
        "--out", "ensemble", "--set", "inner.n_folds=2",
        *(
            part
            for name in ("wav2vec2", "fusion")
            for each in few_epochs
            for part in ("--set", f"systems.{name}.{each}")
        ),
    )  # fmt: skip
    metrics = json.loads((tmp_path / "ensemble" / "metrics.json").read_text(encoding="utf-8"))
    (stacking,) = metrics["stacking"]
    assert stacking["weights"]["fusion"] > 0.5, "it is the one that knows the sentences"
    assert metrics["uar"] > 0.9
    path = Manifest.read(few).table["path"][0]
    for run in ("fusion", "ensemble"):
        (prediction,) = json.loads(koser(tmp_path, "predict", run, path, "--format", "json"))
        assert sum(prediction["probabilities"].values()) == pytest.approx(1)
