"""Manifests recognised into shards: what one process says of each file, each once."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fixtures.manifests import manifest
from fixtures.recognizers import mfcc_checkpoint
from fixtures.stores import CUT
from koser.audio.reading import Clip
from koser.data.stored import StoredManifest
from koser.engines.local import SERIAL, LocalEngine
from koser.engines.shards import read_shards
from koser.errors import ConfigError, ManifestError, ResultsError
from koser.features.extraction import clips_of
from koser.inference import bulk
from koser.inference.bulk import ModelSource, predict_manifest
from koser.inference.export import export_model
from koser.inference.output import iter_lines
from koser.inference.prediction import Failure, Prediction
from koser.inference.recognizer import load_recognizer

N_ROWS, SHARD = 70, 32


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "best_model_mfcc.pth"
    mfcc_checkpoint().write(path)
    return path


@pytest.fixture
def stored(tmp_path, write_wav):
    """A manifest of sounds, some of them parts; two, of which one is a part, cannot be read."""
    rng = np.random.default_rng(0)
    rows = []
    for i, seconds in enumerate(rng.uniform(0.05, 0.5, size=N_ROWS)):
        path = write_wav(tmp_path / "in" / f"{i:02d}.wav", seconds=seconds, pitch=100 + 9 * i)
        part = {"start": 0.01, "end": 0.04, "duration": 0.03} if i % 5 == 2 else {}
        rows.append({"path": str(path), "speaker": "s", "id": f"문장{i}", **part})
    (tmp_path / "in" / "07.wav").write_bytes(b"not audio at all")
    (tmp_path / "in" / "40.wav").unlink()
    manifest(rows).write(tmp_path / "m.parquet")
    return StoredManifest.open(tmp_path / "m.parquet")


def read(out):
    return pl.read_parquet(out / "part-*.parquet")


@pytest.mark.parametrize("kind", ["pth", "onnx"])
def test_shards_hold_what_one_recognizer_says_of_every_row(model, stored, tmp_path, kind):
    path = model
    if kind == "onnx":
        path = tmp_path / "m.onnx"
        export_model(model, path)
    told = {}
    done = predict_manifest(
        ModelSource(path),
        stored,
        tmp_path / "out",
        SERIAL,
        shard_rows=SHARD,
        on_failure=lambda name, reason: told.update({name: reason}),
    )
    table = read(tmp_path / "out")
    assert table["id"].to_list() == [f"문장{i}" for i in range(N_ROWS)]
    (whole,) = stored.iter_tables(N_ROWS)
    results = list(load_recognizer(path).iter_clips(clips_of(whole)))
    for row, result in zip(table.iter_rows(named=True), results, strict=True):
        if isinstance(result, Failure):
            assert (row["error"], row["label"]) == (result.error, None)
            assert told[row["id"]] == result.error
            is_part = row["id"] == "문장7"
            assert (row["start"], row["duration"]) == ((0.01, 0.03) if is_part else (None, None))
        else:
            # to the last digit: what is computed together is the same
            assert {label: row[label] for label in result.probabilities} == result.probabilities
            assert (row["label"], row["error"], row["start"]) == (result.label, None, result.start)
    assert (done.n_failed, set(told)) == (2, {"문장7", "문장40"})


def test_several_processes_write_the_same_files(model, stored, tmp_path):
    for name, engine in (("one", SERIAL), ("two", LocalEngine(2))):
        predict_manifest(ModelSource(model), stored, tmp_path / name, engine, shard_rows=SHARD)
    for shard in read_shards(tmp_path / "one").done.values():
        one, two = ((tmp_path / name / shard.name).read_bytes() for name in ("one", "two"))
        assert one == two


def test_what_is_done_is_not_done_again(model, stored, tmp_path, monkeypatch):
    out, source = tmp_path / "out", ModelSource(model)
    worked = []
    original = bulk._Recognition.finish

    def interrupted(self, rows):
        if len(worked) == 2:
            raise KeyboardInterrupt
        worked.append(rows[0].id)
        return original(self, rows)

    monkeypatch.setattr(bulk._Recognition, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_manifest(source, stored, out, SERIAL, shard_rows=SHARD)
    monkeypatch.setattr(bulk._Recognition, "finish", original)
    assert len(read_shards(out).done) == 2
    seen = []
    (tmp_path / "in" / "40.wav").write_bytes(b"not audio, but there")
    predict_manifest(
        source, stored, out, SERIAL, shard_rows=SHARD, progress=lambda *each: seen.append(each)
    )
    assert seen == [(N_ROWS - 6, N_ROWS), (N_ROWS, N_ROWS)]
    assert read(out)["id"].to_list() == [f"문장{i}" for i in range(N_ROWS)]
    # Complete: not even a worker is made.
    monkeypatch.setattr(bulk._Recognition, "__init__", pytest.fail)
    predict_manifest(source, stored, out, LocalEngine(2), shard_rows=SHARD)


def test_rows_whose_files_were_not_there_are_tried_again_and_no_others(
    model, stored, tmp_path, write_wav, monkeypatch
):
    out, source = tmp_path / "out", ModelSource(model)
    worked = []
    original = bulk._Recognition.finish

    def watched(self, rows):
        worked.append(rows[0].id)
        return original(self, rows)

    monkeypatch.setattr(bulk._Recognition, "finish", watched)

    def predict():
        worked.clear()
        told = []
        done = predict_manifest(
            source,
            stored,
            out,
            SERIAL,
            shard_rows=SHARD,
            on_failure=lambda *each: told.append(each),
        )
        return [name for name, _ in told], done.n_failed

    assert predict() == (["문장7", "문장40"], 2)
    before = read(out)
    # Still away, and another row of its shard, which had a result: that one stays.
    (tmp_path / "in" / "35.wav").rename(tmp_path / "35.wav")
    assert predict() == (["문장40"], 2)
    assert worked == ["문장32"]  # the file that is no audio will be none
    assert read(out).equals(before)
    (tmp_path / "35.wav").rename(tmp_path / "in" / "35.wav")
    write_wav(tmp_path / "in" / "40.wav", seconds=0.3)
    assert predict() == ([], 1)
    after = read(out)
    is_40 = pl.col("id") == "문장40"
    assert after.filter(is_40)["error"].item() is None
    assert after.filter(~is_40).equals(before.filter(~is_40))
    assert predict() == ([], 1)
    assert worked == []
    predict_manifest(source, stored, tmp_path / "whole", SERIAL, shard_rows=SHARD)
    whole = read(tmp_path / "whole")
    assert whole.filter(is_40).equals(after.filter(is_40))
    # Its neighbours were computed without it: on some CPUs their last digits tell.
    assert_frame_equal(whole, after, rel_tol=1e-5, abs_tol=1e-7)


def test_results_that_were_there_keep_every_digit(model, stored, tmp_path, write_wav, monkeypatch):
    """On a CPU where a sum depends on how many clips are summed together."""
    out, original = tmp_path / "out", bulk._Recognition.finish

    def of_such_a_cpu(self, rows):
        answers = original(self, rows)
        scale = 1 - 1e-9 * sum(isinstance(result, Prediction) for _, result in answers)
        return [(name, scaled(result, scale)) for name, result in answers]

    monkeypatch.setattr(bulk._Recognition, "finish", of_such_a_cpu)
    predict_manifest(ModelSource(model), stored, out, SERIAL, shard_rows=SHARD)
    before = read(out)
    (tmp_path / "in" / "35.wav").unlink()
    predict_manifest(ModelSource(model), stored, out, SERIAL, shard_rows=SHARD)
    assert read(out).equals(before)
    write_wav(tmp_path / "in" / "40.wav", seconds=0.3)
    assert predict_manifest(ModelSource(model), stored, out, SERIAL, shard_rows=SHARD).n_failed == 1
    is_40 = pl.col("id") == "문장40"
    assert read(out).filter(~is_40).equals(before.filter(~is_40))


def scaled(result, scale):
    if isinstance(result, Failure):
        return result
    shares = {label: scale * value for label, value in result.probabilities.items()}
    return replace(result, probabilities=shares)


def test_failures_that_may_pass_are_those_of_bytes_and_not_of_sound(model, make_bucket, tmp_path):
    bucket = make_bucket(always={"cut": CUT})
    urls = [bucket.put(name, b"not audio" * 999) for name in ("cut.wav", "bad.wav")]
    (tmp_path / "bad.wav").write_bytes(b"not audio" * 999)
    local = [str(tmp_path / name) for name in ("bad.wav", "none.wav")]
    clips = [Clip(path) for path in (*urls, f"{urls[0]}-none.wav", *local)]
    results = load_recognizer(model).iter_clips(clips)
    assert [result.may_pass for result in results] == [True, False, True, False, True]


def test_a_row_that_kills_its_process_is_reported_and_the_others_are_there(
    model, stored, tmp_path, monkeypatch
):
    # A worker is another process, so what it does cannot be patched; what it is given can.
    monkeypatch.setattr(bulk, "_Recognition", DeadlyRecognition)
    done = predict_manifest(
        ModelSource(model), stored, tmp_path / "out", LocalEngine(2), shard_rows=SHARD
    )
    table = read(tmp_path / "out")
    assert table["id"].to_list() == [f"문장{i}" for i in range(N_ROWS)]
    assert done.n_failed == 3
    lost = table.filter(pl.col("id") == "문장33")
    assert "ends the process that works on it" in lost["error"].item()
    assert lost["path"].item().endswith("33.wav")


class DeadlyRecognition(bulk._Recognition):
    """A decoder that crashes on one file."""

    def finish(self, rows):
        import os

        if any(row.clip.path.endswith("33.wav") for row in rows):
            os.abort()
        return super().finish(rows)


def test_another_model_or_manifest_needs_another_folder(model, stored, tmp_path):
    out = tmp_path / "out"
    predict_manifest(ModelSource(model), stored, out, SERIAL, shard_rows=SHARD)
    with pytest.raises(ResultsError, match=r"another job \(threshold was 0.0, is 0.5\)"):
        predict_manifest(ModelSource(model, threshold=0.5), stored, out, SERIAL, shard_rows=SHARD)
    mfcc_checkpoint(seed=1).write(tmp_path / "other.pth")
    with pytest.raises(ResultsError, match=r"another job \(model was \w+, is \w+\)"):
        predict_manifest(ModelSource(tmp_path / "other.pth"), stored, out, SERIAL, shard_rows=SHARD)


@pytest.mark.parametrize("shard_rows", [0, -16, 17])
def test_shards_are_whole_batches(model, stored, tmp_path, shard_rows):
    with pytest.raises(ConfigError, match="give a multiple of 16"):
        predict_manifest(
            ModelSource(model), stored, tmp_path / "out", SERIAL, shard_rows=shard_rows
        )


def test_the_command_predicts_a_folder_of_manifests_and_goes_on(koser, model, stored, tmp_path):
    arguments = ("predict", model, "--manifest", stored.path, "--out", "out", "--workers", 1)
    status, out, err = koser(*arguments, "--shard-rows", SHARD)
    assert status == 1
    assert "70 utterances in 3 shards" in out
    assert "Error: 문장7: " in err
    assert "2 of 70 could not be recognised." in err
    assert koser(*arguments, "--shard-rows", SHARD)[0] == 1  # two still fail
    lines = iter_lines([], "csv", load_recognizer(model).labels)
    assert read(tmp_path / "out").columns == ["id", *next(lines).split(",")]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--engine", "ray"), "with a folder as --out"),
        (("--workers", 2, "--out", "a.csv"), "with a folder as --out"),
        (("--out", "a", "--format", "csv"), "holds Parquet"),
        (("--out", "a", "--address", "h:1"), "--address: of a Ray cluster. Add --engine ray"),
        (("--out", "a", "--workers", 0), "--workers 0: give a number above 0"),
    ],
)
def test_options_that_do_nothing_are_refused(koser, model, stored, options, why):
    status, _, err = koser("predict", model, "--manifest", stored.path, *options)
    assert status == 1
    assert why in err
    assert err.count("\n") == 1


def test_a_missing_manifest_is_one_line(koser, model):
    status, _, err = koser("predict", model, "--manifest", "gone.parquet", "--out", "out")
    assert (status, err.count("\n")) == (1, 1)
    assert "No manifest at" in err
    with pytest.raises(ManifestError):
        StoredManifest.open(model.parent / "gone.parquet")
