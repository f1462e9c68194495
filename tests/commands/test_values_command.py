"""`koser predict` with a model of `koser regress`: values of files, on tones (SIMULATED)."""

import csv
import io
import json
import shutil

import numpy as np
import polars as pl
import pytest
import soundfile

from fixtures.values import CENTRES, regress
from koser import load_recognizer, load_regressor
from koser.audio.reading import load
from koser.data.manifest import Manifest
from koser.errors import ConfigError
from koser.inference.prediction import Failure
from koser.systems.dimensions import DimensionalSystem

RATE = 16_000
DIMENSIONS = ["valence", "arousal"]
COLUMNS = ["path", "start", "duration", *DIMENSIONS, "error"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Where the run lies that tests have copies of, once one of them has trained it."""
    return tmp_path_factory.mktemp("trained") / "run"


@pytest.fixture
def run(koser, rated, trained):
    """One training, in ``run``."""
    if not trained.exists():
        status, _, err = regress(koser, "mfcc", "--out", trained, split=("--split", "speaker"))
        assert status == 0, err
    shutil.copytree(trained, rated / "run")
    return rated


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def values_of(rows):
    return np.array([[float(row[name]) for name in DIMENSIONS] for row in rows])


def test_a_manifest_is_given_the_values_that_the_model_was_tested_with(koser, run):
    status, out, err = koser("predict", "run", "--manifest", "m.parquet", "--format", "csv")
    assert (status, err) == (0, "")
    rows, table = rows_of(out), Manifest.read(run / "m.parquet").table
    assert list(rows[0]) == COLUMNS
    assert [row["path"] for row in rows] == table["path"].to_list()
    assert all(row["start"] == row["error"] == "" for row in rows)
    assert koser("predict", "run", "--manifest", "m.parquet", "--out", "/dev/null")[0] == 0
    waveforms = [load(path) for path in table["path"]]
    durations = [len(waveform) / RATE for waveform in waveforms]
    assert [float(row["duration"]) for row in rows] == pytest.approx(durations)
    values = values_of(rows)
    system = DimensionalSystem.read(run / "run")
    alone = np.concatenate([system.predict_waveforms([waveform]) for waveform in waveforms])
    np.testing.assert_allclose(values, alone, atol=1e-4)
    # In the raters' units: nearer to what its pitch was rated with than to another's.
    centres = np.array(list(CENTRES.values()))
    nearest = np.abs(values[:, None] - centres).sum(axis=2).argmin(axis=1)
    assert np.mean(np.array(list(CENTRES))[nearest] == table["label"].to_numpy()) > 0.8

    tested = pl.read_parquet(run / "run" / "predictions.parquet")
    place = {name: row for row, name in enumerate(table["id"])}
    expected = tested.select("predicted_valence", "predicted_arousal").to_numpy()
    assert 0 < len(expected) < len(rows)
    np.testing.assert_allclose(values[[place[name] for name in tested["id"]]], expected, atol=1e-4)


def test_every_format_has_a_row_for_each_file_and_names_failures(koser, run):
    (run / "bad.wav").write_bytes(b"not audio")
    paths = ["tones/angry/s0_0.wav", "bad.wav", "tones/sadness/s1_0.wav", "gone.wav"]
    found = {}
    for format in ("table", "json", "csv", "parquet"):
        out = f"o.{format}"
        status, printed, err = koser("predict", "run", *paths, "--format", format, "--out", out)
        assert (status, printed) == (1, "")
        assert [line.startswith("Error: ") for line in err.splitlines()] == [True, True, False]
        assert err.splitlines()[-1] == "2 of 4 could not be recognised."
        if format != "parquet":
            found[format] = (run / out).read_text(encoding="utf-8")
            assert koser("predict", "run", *paths, "--format", format)[1] == found[format]
    rows, objects = rows_of(found["csv"]), json.loads(found["json"])
    table = pl.read_parquet(run / "o.parquet")
    assert [row["path"] for row in rows] == paths
    assert [each["path"] for each in objects] == table["path"].to_list() == paths
    assert table.columns == COLUMNS
    assert table.schema["valence"] == table.schema["start"] == pl.Float64
    for row, each, cells in zip(rows, objects, table.iter_rows(named=True), strict=True):
        if "error" in each:
            assert row["error"] == each["error"] == cells["error"]
            assert row["valence"] == ""
            assert cells["valence"] is None
        else:
            assert list(each) == COLUMNS[:-1]
            assert [float(row[name]) for name in DIMENSIONS] == [each[name] for name in DIMENSIONS]
            assert {**each, "error": None} == cells
    lines = found["table"].splitlines()
    assert lines[0].split() == [*DIMENSIONS, "file"]
    assert [line.split()[-1] for line in lines[1:]] == [paths[0], paths[2]]
    assert lines[1].split()[:2] == [f"{objects[0][name]:.3f}" for name in DIMENSIONS]


def test_segments_of_a_recording_have_the_values_of_their_sound(koser, run):
    names = ["angry/s0_0", "sadness/s2_1", "neutral/s1_0"]
    pieces = [load(run / "tones" / f"{name}.wav") for name in names]
    soundfile.write(run / "long.wav", np.concatenate(pieces), RATE, "FLOAT")
    borders = np.cumsum([0, *map(len, pieces)]) / RATE
    table = pl.DataFrame(
        {"path": "long.wav", "label": "neutral", "start": borders[:-1], "end": borders[1:]}
    )
    table.write_csv(run / "segments.csv")
    assert koser("prepare", "table", "segments.csv", "--out", "s.parquet")[0] == 0
    status, out, err = koser("predict", "run", "--manifest", "s.parquet", "--format", "json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert [each["start"] for each in found] == pytest.approx(borders[:-1])
    assert [each["duration"] for each in found] == pytest.approx(np.diff(borders), abs=1e-3)
    expected = DimensionalSystem.read(run / "run").predict_waveforms(pieces)
    np.testing.assert_allclose(values_of(found), expected, atol=1e-3)
    assert np.ptp(expected, axis=0).min() > 0.5
    _, out, _ = koser("predict", "run", "--manifest", "s.parquet")
    assert out.splitlines()[2].endswith(f"long.wav from {borders[1]:.2f} s")


def test_a_folder_is_given_the_values_that_its_files_have_alone_and_in_python(koser, run):
    rng = np.random.default_rng(1)
    (run / "in").mkdir()
    for number, seconds in enumerate(rng.uniform(0.05, 3, size=20)):
        sound = rng.normal(0, 0.1, round(seconds * RATE))
        soundfile.write(run / "in" / f"{number:02d}.wav", sound, RATE, "FLOAT")
    status, out, _ = koser("predict", "run", "in", "--format", "csv")
    assert status == 0
    rows = rows_of(out)
    assert [row["path"] for row in rows] == [f"in/{number:02d}.wav" for number in range(20)]
    regressor = load_regressor("run")
    alone = [regressor.predict_files([row["path"]])[0] for row in rows]
    expected = np.array([[each.valence, each.arousal] for each in alone])
    np.testing.assert_allclose(values_of(rows), expected, atol=1e-4)
    (run / "in" / "20.wav").write_bytes(b"not audio")
    together = regressor.predict_files(sorted((run / "in").iterdir()))
    assert [isinstance(each, Failure) for each in together] == [False] * 20 + [True]


def test_values_are_written_to_a_store(koser, run, bucket):
    out = bucket.url("values.parquet")
    wav = "tones/angry/s0_0.wav"
    assert koser("predict", "run", wav, "--format", "parquet", "--out", out)[0] == 0
    assert koser("predict", "run", wav, "--format", "parquet", "--out", "here.parquet")[0] == 0
    assert pl.read_parquet(bucket.get("values.parquet")).equals(pl.read_parquet("here.parquet"))


OF_LABELS = {
    "--threshold": ["--threshold", "0.5"],
    "--labels": ["--labels", "angry,neutral"],
    "--timeline": ["--timeline"],
    "--set": ["--timeline", "--set", "hop=1"],
    "--picture": ["--picture", "a.png"],
    "--speakers": ["--speakers", "s.rttm"],
    "--enrol": ["--enrol", "tones"],
    "--whisper": ["--whisper", "tiny"],
    "--text-model": ["--text-model", "gone"],
    "--shard-rows": ["--shard-rows", "16"],
    "--workers": ["--workers", "0"],
    "--engine ray": ["--engine", "ray"],
    "--address": ["--address", "here:1"],
    "--worker-cpus": ["--worker-cpus", "1"],
    "--worker-gpus": ["--worker-gpus", "1"],
    "--batch-rows": ["--batch-rows", "1"],
    "--format srt": ["--format", "srt"],
    "--out shards/": ["--out", "shards/"],
    "--out shards": ["--out", "shards"],
    "--out run": ["--out", "run"],
    "--out s3://b/shards": ["--out", "s3://b/shards"],
}


def test_options_of_labels_are_refused_before_any_work_in_one_line(koser, run):
    before = sorted(path for path in run.rglob("*") if "cache" not in path.parts)
    for name, given in OF_LABELS.items():
        # A manifest that is not there would be missed by whoever looked for it first.
        status, out, err = koser("predict", "run", "--manifest", "gone.parquet", *given)
        assert (status, out) == (1, ""), name
        assert len(err.splitlines()) == 1
        assert err.startswith("Error: ")
        assert name in err
        assert "for models of labels, and 'run' is one of valence and arousal" in err
    status, _, err = koser("predict", "run", "a.wav", "--threshold", "0.5", "--labels", "a,b")
    assert err.startswith("Error: --threshold, --labels: for models of labels")
    assert err.endswith("Leave them out.\n")
    status, _, err = koser("predict", "run", "a.wav", "--format", "parquet")
    assert "Give --out FILE.parquet" in err
    assert sorted(path for path in run.rglob("*") if "cache" not in path.parts) == before


def test_a_moved_encoder_is_found_again_and_another_one_is_refused(koser, rated, encoder_folder):
    shutil.copytree(encoder_folder("wav2vec2"), rated / "old")
    arguments = ["--out", "run", "--encoder", "old"]
    status, _, err = regress(koser, "wav2vec2", *arguments, split=("--split", "speaker"))
    assert status == 0, err
    command = ["predict", "run", "--manifest", "m.parquet", "--format", "csv"]
    status, before, _ = koser(*command)
    assert status == 0
    tested = pl.read_parquet(rated / "run" / "predictions.parquet")
    ids = Manifest.read(rated / "m.parquet").table["id"].to_list()
    values = values_of(rows_of(before))[[ids.index(name) for name in tested["id"]]]
    expected = tested.select("predicted_valence", "predicted_arousal").to_numpy()
    assert np.ptp(expected, axis=0).min() > 0.01
    np.testing.assert_allclose(values, expected, atol=1e-5)
    (rated / "old").rename(rated / "new")
    status, out, err = koser(*command)
    assert (status, out) == (1, "")
    assert "say where it is: --encoder FOLDER" in err
    assert koser(*command, "--encoder", "new") == (0, before, "")
    status, out, err = koser(*command, "--encoder", encoder_folder("hubert"))
    assert (status, out) == (1, "")
    assert "is not the encoder that is wanted" in err
    assert len(err.splitlines()) == 1


def test_an_encoder_for_a_model_without_one_and_a_model_of_labels_are_refused(koser, run):
    status, _, err = koser("predict", "run", "tones", "--encoder", "new")
    assert (status, err.count("\n")) == (1, 1)
    assert "has no pretrained encoder. Leave --encoder out" in err
    with pytest.raises(ConfigError, match="`koser predict` and `koser serve` take it"):
        load_recognizer("run")
