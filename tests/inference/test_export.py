"""One ONNX file says what the checkpoint says, and needs neither torch nor transformers."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import onnx
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.recognizers import LABELS, mfcc_checkpoint, speech
from fixtures.speech_systems import speech_system
from koser.audio.activity import ActivityOptions
from koser.errors import CheckpointError, describe_missing_module
from koser.inference import export as export_module
from koser.inference.export import TOLERANCE, export_model
from koser.inference.onnx_model import METADATA_KEY
from koser.inference.recognizer import load_recognizer
from koser.inference.segments import TimelineOptions
from koser.inference.timeline import make_timeline

RATE = 16_000


@pytest.fixture(scope="module")
def sound():
    return speech(31)


@pytest.fixture(autouse=True)
def few_probes(monkeypatch):
    """Here other lengths are compared; what the command compares takes seconds each time."""
    monkeypatch.setattr(export_module, "PROBE_SECONDS", (0.02, 2.0))


@pytest.fixture(scope="module")
def mfcc(tmp_path_factory):
    """A checkpoint, its recognizer, and the exported one's."""
    folder = tmp_path_factory.mktemp("mfcc")
    mfcc_checkpoint(temperature=1.7).write(folder / "a.pth")
    made = export_model(folder / "a.pth", folder / "a.onnx")
    assert made.largest_difference < 1e-6
    assert made.n_bytes == (folder / "a.onnx").stat().st_size
    return folder, load_recognizer(folder / "a.pth"), load_recognizer(folder / "a.onnx")


@settings(max_examples=30, deadline=None)
@given(n_samples=st.integers(1, 31 * RATE), start=st.integers(0, 10 * RATE))
def test_any_length_has_the_checkpoints_probabilities(mfcc, sound, n_samples, start):
    _, trained, exported = mfcc
    piece = sound[start : start + n_samples]
    expected = trained.predict_waveforms([piece])
    actual = exported.predict_waveforms([piece])
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert actual.sum() == pytest.approx(1, abs=1e-12)


def test_silence_has_the_checkpoints_probabilities(mfcc):
    _, trained, exported = mfcc
    for silence in (np.zeros(RATE, np.float32), np.full(RATE, 1e-9, np.float32)):
        expected = trained.predict_waveforms([silence])
        np.testing.assert_allclose(exported.predict_waveforms([silence]), expected, atol=1e-5)


def test_file_array_batch_folder_window_and_onnx_agree(mfcc, sound, tmp_path):
    _, trained, exported = mfcc
    pieces = [sound[place * 30_000 : place * 30_000 + 10_000 + 999 * place] for place in range(12)]
    for place, piece in enumerate(pieces):
        soundfile.write(tmp_path / f"{place:02d}.wav", piece, RATE, subtype="FLOAT")
    paths = sorted(tmp_path.glob("*.wav"))
    options = TimelineOptions(window=60, activity=ActivityOptions(kind="off"))
    for place, recognizer in ((0, trained), (1, exported)):
        ways = {
            "file": [recognizer.predict_file(path) for path in paths],
            "files": recognizer.predict_files(paths),
            "folder": recognizer.predict_folder(tmp_path),
            "array": [recognizer.predict_array(piece, RATE) for piece in pieces],
            "timeline": [make_timeline(recognizer, path, options).segments[0] for path in paths],
        }
        rows = {
            way: np.array([list(each.probabilities.values()) for each in found])
            for way, found in ways.items()
        }
        rows["batch"] = recognizer.predict_waveforms(pieces)
        if place == 0:
            expected = rows["array"]
        for way, found in rows.items():
            np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=way)
    assert np.ptp(expected, axis=0).min() > 0.05


@pytest.mark.parametrize(
    ("kind", "variant"),
    [
        ("wav2vec2", "statistics"),
        ("xls-r", "frames"),
        ("wav2vec2", "last layers"),
        ("hubert-batch-norm", "all layers"),
        ("wavlm", "last layers"),
        ("data2vec", "frames"),
        ("whisper", "statistics"),
        ("whisper", "last layers"),
    ],
)
def test_encoders_are_inside_the_file(kind, variant, encoder_folder, tmp_path, sound):
    system = speech_system(variant, encoder_folder(kind))
    system.to_checkpoint({}).write(tmp_path / "a.pth")
    made = export_model(tmp_path / "a.pth", tmp_path / "a.onnx")
    assert made.largest_difference < 2e-5
    exported = load_recognizer(tmp_path / "a.onnx")
    for n_samples in (1, 399, 400, 8 * RATE, 8 * RATE + 1, 16 * RATE + 1):
        expected = system.predict_waveforms([sound[:n_samples]])
        actual = exported.predict_waveforms([sound[:n_samples]])
        np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_the_metadata_say_what_it_is(mfcc):
    folder, trained, exported = mfcc
    graph = onnx.load(folder / "a.onnx")
    values = json.loads({each.key: each.value for each in graph.metadata_props}[METADATA_KEY])
    assert (values["labels"], values["sampling_rate"]) == (list(LABELS), RATE)
    assert (values["system"], values["temperature"]) == ("mfcc", 1.7)
    assert values["origin"]["split"]["protocol"] == "speaker"
    assert "corpus" in values["licence"]
    assert exported.origin == trained.origin
    assert exported.labels == trained.labels
    (waveform,), (probabilities,) = graph.graph.input, graph.graph.output
    assert (waveform.name, probabilities.name) == ("waveform", "probabilities")


def test_8_bit_weights_are_smaller_and_nearly_the_same(encoder_folder, tmp_path, sound):
    speech_system("statistics", encoder_folder("wav2vec2")).to_checkpoint({}).write(
        tmp_path / "a.pth"
    )
    whole = export_model(tmp_path / "a.pth", tmp_path / "a.onnx")
    small = export_model(tmp_path / "a.pth", tmp_path / "b.onnx", int8=True)
    assert (whole.is_int8, small.is_int8) == (False, True)
    assert whole.largest_difference < small.largest_difference < 0.1
    kinds = {node.op_type for node in onnx.load(tmp_path / "b.onnx").graph.node}
    assert kinds & {"MatMulInteger", "DynamicQuantizeMatMul"}
    one, other = (load_recognizer(tmp_path / name) for name in ("a.onnx", "b.onnx"))
    difference = np.abs(one.predict_waveforms([sound]) - other.predict_waveforms([sound]))
    assert 0 < difference.max() < 0.1


def test_the_front_end_keeps_its_precision_in_8_bits(tmp_path, sound):
    mfcc_checkpoint().write(tmp_path / "a.pth")
    export_model(tmp_path / "a.pth", tmp_path / "a.onnx", int8=True)
    nodes = onnx.load(tmp_path / "a.onnx").graph.node
    assert sum(node.op_type == "ConvInteger" for node in nodes) == 3
    assert not [
        node for node in nodes if node.op_type == "MatMulInteger" and "spectrum" in node.name
    ]
    expected = load_recognizer(tmp_path / "a.pth").predict_waveforms([sound])
    actual = load_recognizer(tmp_path / "a.onnx").predict_waveforms([sound])
    assert np.abs(actual - expected).max() < 0.1


def test_a_file_that_would_differ_is_not_written(tmp_path, monkeypatch):
    from koser.systems import graphs

    mfcc_checkpoint().write(tmp_path / "a.pth")
    wrong = graphs.MfccGraph.forward
    monkeypatch.setattr(graphs.MfccGraph, "forward", lambda self, w: wrong(self, 0.999 * w) * 1.01)
    with pytest.raises(CheckpointError, match="Nothing was written"):
        export_model(tmp_path / "a.pth", tmp_path / "a.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth"]
    assert TOLERANCE == 1e-4


def test_prediction_needs_no_training_stack(mfcc, tmp_path, sound):
    folder, _, exported = mfcc
    soundfile.write(tmp_path / "a.wav", sound[: 5 * RATE], RATE, subtype="FLOAT")
    code = """
        import sys

        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in sys.argv[1].split(","):
                    raise ModuleNotFoundError(f"{name} is blocked", name=name)

        sys.meta_path.insert(0, Blocked())
        from koser.cli import main

        sys.argv = ["koser", "predict", *sys.argv[2:]]
        main()
    """
    blocked = "torch,transformers,polars,matplotlib,onnx,onnxscript,scipy,sklearn,faster_whisper"
    for options in (["--format", "json"], ["--timeline", "--format", "json"]):
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), blocked, folder / "a.onnx",
             tmp_path / "a.wav", *options],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (result.returncode, result.stderr) == (0, "")
        (found,) = json.loads(result.stdout)
        if "--timeline" not in options:
            expected = exported.predict_file(tmp_path / "a.wav").probabilities
            assert found["probabilities"] == pytest.approx(expected, abs=1e-6)
        else:
            assert found["segments"]


def test_a_missing_runtime_is_named_with_its_extra():
    error = ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
    assert "pip install 'koser[onnx]'" in describe_missing_module(error)


def test_what_is_no_exported_model_is_refused(mfcc, tmp_path):
    folder, _, _ = mfcc
    with pytest.raises(CheckpointError, match="No model at"):
        load_recognizer(tmp_path / "none.onnx")
    (tmp_path / "damaged.onnx").write_bytes((folder / "a.onnx").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="is no ONNX model"):
        load_recognizer(tmp_path / "damaged.onnx")
    foreign = onnx.load(folder / "a.onnx")
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(CheckpointError, match="none that koser exported"):
        load_recognizer(tmp_path / "foreign.onnx")
    with pytest.raises(CheckpointError, match="brings its pretrained models along"):
        load_recognizer(folder / "a.onnx", encoder="here")
    with pytest.raises(CheckpointError, match="already"):
        export_model(folder / "a.onnx", tmp_path / "b.onnx")
    with pytest.raises(CheckpointError, match=r"ends in \.onnx"):
        export_model(folder / "a.pth", tmp_path / "b.bin")
    with pytest.raises(CheckpointError, match="Cannot write"):
        export_model(folder / "a.pth", tmp_path / "no" / "b.onnx")
