"""Real Korean recordings through full-size encoders in ONNX, and through Silero's detector.

wav2vec2-base has random weights here, and no head is trained: what is compared is
arithmetic, not recognition.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import SHARED
from fixtures.speech_systems import speech_system
from koser.audio.activity import ActivityOptions, find_speech
from koser.audio.reading import SAMPLING_RATE, load
from koser.data.corpora import prepare
from koser.inference import export as export_module
from koser.inference.export import TOLERANCE, export_model
from koser.inference.recognizer import load_recognizer

pytestmark = pytest.mark.integration

EMOTIONTTS = SHARED / "corpora" / "emotiontts_open_db"
MODELS = Path(
    os.environ.get("KOSER_TEST_MODELS") or Path.home() / ".cache" / "koser-tests" / "models"
)


@pytest.fixture(scope="module")
def clips():
    table = prepare("emotiontts", EMOTIONTTS, {}).table
    assert len(table) == 200
    return [load(path) for path in table.sort("duration")["path"]]


def test_speech_is_found_in_every_clip(clips):
    shares = []
    for clip in clips:
        speech = find_speech(clip, ActivityOptions())
        assert speech
        shares.append(sum(end - start for start, end in speech) / len(clip))
    # Read sentences, cut with some silence around them.
    assert 0.6 < np.mean(shares) < 1.0
    assert min(shares) > 0.3


@pytest.mark.parametrize(
    ("encoder", "variant"),
    [
        ("wav2vec2-base-random", "statistics"),
        ("wav2vec2-base-random", "last layers"),
        ("whisper-base-hf", "statistics"),
        ("whisper-base-hf", "last layers"),
    ],
)
def test_full_size_encoders_are_inside_the_file(clips, encoder, variant, tmp_path, monkeypatch):
    folder = (MODELS / encoder).resolve()
    assert (folder / "config.json").is_file(), f"No model in '{folder}'."
    monkeypatch.setattr(export_module, "PROBE_SECONDS", (0.02, 3.0))
    system = speech_system(variant, folder, window_seconds=20)
    system.to_checkpoint({}).write(tmp_path / "a.pth")
    made = export_model(tmp_path / "a.pth", tmp_path / "a.onnx")
    assert made.largest_difference < TOLERANCE
    exported = load_recognizer(tmp_path / "a.onnx")
    long = np.concatenate(clips)[: 30 * SAMPLING_RATE]
    for piece in (long[:320], clips[0], clips[150], long):
        expected = system.predict_waveforms([piece])
        np.testing.assert_allclose(exported.predict_waveforms([piece]), expected, atol=TOLERANCE)
    small = export_model(tmp_path / "a.pth", tmp_path / "b.onnx", int8=True)
    assert small.n_bytes < 0.6 * made.n_bytes
    assert small.largest_difference < 0.3


def test_a_korean_conversation_becomes_a_timeline_without_torch(clips, tmp_path):
    from fixtures.recognizers import mfcc_checkpoint

    rng = np.random.default_rng(0)
    pieces, places, position = [], [], 0
    for clip in clips[::20]:
        pause = rng.normal(scale=1e-4, size=SAMPLING_RATE).astype(np.float32)
        pieces += [pause, clip]
        places.append((position + len(pause), position + len(pause) + len(clip)))
        position = places[-1][1]
    soundfile.write(tmp_path / "대화.wav", np.concatenate(pieces), SAMPLING_RATE, "PCM_16")
    mfcc_checkpoint().write(tmp_path / "a.pth")
    export_model(tmp_path / "a.pth", tmp_path / "a.onnx")
    code = (
        "import sys; sys.argv = ['koser', *sys.argv[1:]]; from koser.cli import main; main(); "
        "assert not {'torch', 'transformers', 'polars'} & set(sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "predict", tmp_path / "a.onnx", tmp_path / "대화.wav",
         "--timeline", "--format", "json"],
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    (timeline,) = json.loads(result.stdout)
    heard = np.zeros(position, bool)
    for segment in timeline["segments"]:
        heard[round(segment["start"] * SAMPLING_RATE) : round(segment["end"] * SAMPLING_RATE)] = 1
    for start, end in places:
        assert heard[start:end].mean() > 0.4
        # Between sentences nobody speaks.
        assert heard[start - SAMPLING_RATE * 3 // 5 : start - SAMPLING_RATE * 2 // 5].mean() < 0.1
