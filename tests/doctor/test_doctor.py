"""``koser doctor`` on what is whole, and on everything that can be wrong with it."""

import json
import shutil
import struct
import zipfile

import numpy as np
import polars as pl
import pytest

from fixtures.audits import clean_manifest
from koser.data.corpora.folder import prepare
from koser.data.splits import make_split
from koser.doctor import examine, installation
from koser.errors import ConfigError
from koser.experiment.request import TrainRequest
from koser.experiment.run import run_experiment
from koser.features.records import RECORD
from koser.features.store import FeatureStore
from koser.hashes import write_sums

QUICK = ("train.epochs=1", "train.batch_size=8", "cnn.channels=[4, 6]", "cnn.hidden_size=8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of several folds, with its manifest and its stores."""
    import soundfile

    root = tmp_path_factory.mktemp("finished")
    rng = np.random.default_rng(0)
    for label in ("angry", "sadness"):
        (root / "corpus" / label).mkdir(parents=True)
        for speaker in range(3):
            sound = 0.1 * rng.standard_normal(4000)
            soundfile.write(root / "corpus" / label / f"s{speaker}_0.wav", sound, 16_000)
    prepare(root / "corpus", speaker_pattern=r"(s\d)_").write(root / "m.parquet")
    request = TrainRequest(
        "mfcc", "leave_one_speaker_out", manifest=root / "m.parquet", overrides=QUICK
    )
    run_experiment(request.resolve(), root / "run", store_root=root / "store")
    return root


@pytest.fixture
def work(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "work")
    return tmp_path / "work"


def verdicts(path, **options):
    return {each.check: each.verdict.value for each in examine(path, **options).findings}


def found(path, check):
    (finding,) = [each for each in examine(path).findings if each.check == check]
    return finding


def test_a_whole_run_passes_every_check(work):
    assert verdicts(work / "run") == {
        "files": "ok",
        "hashes": "ok",
        "checkpoint": "ok",
        "trainings": "ok",
        "split": "ok",
        "predictions": "ok",
        "scores": "ok",
    }


@pytest.mark.parametrize(
    "name", ["metrics.json", "predictions.parquet", "split.parquet", "best_model_mfcc.pth"]
)
def test_a_flipped_bit_in_a_run_is_found(work, name):
    raw = bytearray((work / "run" / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (work / "run" / name).write_bytes(raw)
    finding = found(work / "run", "hashes")
    assert (finding.verdict.value, finding.what) == ("fail", f"changed: {name}")


def test_scores_that_do_not_follow_from_the_predictions_are_found(work):
    path = work / "run" / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    right = metrics["uar"]
    path.write_text(json.dumps({**metrics, "uar": right + 0.01}), encoding="utf-8")
    (work / "run" / "SHA256SUMS").unlink()  # as if it had been written so
    finding = found(work / "run", "scores")
    assert finding.verdict.value == "fail"
    assert finding.what.endswith(f"uar {right + 0.01:.6f} instead of {right:.6f}")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda table: table[1:], "of 6 tested utterances 1 are missing, 0 are there twice"),
        (lambda table: pl.concat([table, table[:2]]), "0 are missing, 2 are there twice"),
        (lambda table: table.with_columns(seed=pl.lit(7, pl.Int64)), "and 6 were not to be tested"),
    ],
)
def test_predictions_that_are_not_those_of_the_split_are_found(work, change, what):
    path = work / "run" / "predictions.parquet"
    change(pl.read_parquet(path)).write_parquet(path)
    (work / "run" / "SHA256SUMS").unlink()
    finding = found(work / "run", "predictions")
    assert finding.verdict.value == "fail"
    assert what in finding.what


def flip_a_bit_of_the_largest_record(path):
    """Not of the padding between records, which means nothing and has no checksum."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
    raw = bytearray(path.read_bytes())
    names = struct.unpack_from("<HH", raw, largest.header_offset + 26)
    raw[largest.header_offset + 30 + sum(names) + largest.file_size // 2] ^= 1
    path.write_bytes(raw)


def test_a_damaged_training_of_an_unfinished_run_is_found_and_can_be_done_anew(work):
    run = work / "run"
    (run / "report.html").unlink()
    outcome = run / "parts" / "seed42-fold01" / "outcome.pth"
    flip_a_bit_of_the_largest_record(outcome)
    diagnosis = examine(run)
    assert [each.verdict.value for each in diagnosis.findings] == ["warn", "fail"]
    assert diagnosis.findings[1].what == "damaged: parts/seed42-fold01/outcome.pth"
    assert "--resume" in diagnosis.findings[0].way_out
    before = pl.read_parquet(run / "predictions.parquet")
    outcome.unlink()
    request = TrainRequest(
        "mfcc", "leave_one_speaker_out", manifest=work / "m.parquet", overrides=QUICK
    )
    run_experiment(request.resolve(), run, store_root=work / "store", resume=True)
    assert examine(run).verdict.value == "ok"
    assert pl.read_parquet(run / "predictions.parquet").equals(before)


def test_a_run_of_koser_0_1_has_no_hashes_and_that_is_no_failure(work):
    (work / "run" / "SHA256SUMS").unlink()
    assert found(work / "run", "hashes").verdict.value == "note"
    assert examine(work / "run").verdict.value == "note"


def test_hashes_of_another_files_name_what_is_missing(work):
    run = work / "run"
    write_sums(run, ["metrics.json", "history.json"])
    (run / "history.json").unlink()
    assert found(run, "hashes").what == "missing: history.json"


def test_a_store_is_whole_until_an_array_is_damaged_and_after_its_repair(work):
    assert set(verdicts(work / "store").values()) == {"ok"}
    folder = min(work.glob("store/mfcc-*"))
    with (folder / "data.bin").open("r+b") as file:
        file.seek(100)
        file.write(b"\x55\xaa\x55\xaa")
    diagnosis = examine(folder)
    assert diagnosis.verdict.value == "fail"
    assert "1 damaged arrays" in diagnosis.findings[0].what
    assert "--repair" in diagnosis.findings[0].way_out
    n_left = (folder / "index.bin").stat().st_size // RECORD.itemsize - 1
    assert f"{n_left} arrays are whole" in diagnosis.findings[0].what
    assert "1 are extracted anew" in examine(folder, repair=True).findings[0].way_out
    assert examine(folder).findings[0].what.startswith(f"{n_left} arrays, every")


def test_a_moved_corpus_is_a_failure_that_counts_its_files(work, finished):
    manifest = clean_manifest(n_speakers=4, n_each=6)
    manifest.write(work / "gone.parquet")
    finding = found(work / "gone.parquet", "sound")
    assert finding.verdict.value == "fail"
    n_files = manifest.table["path"].n_unique()
    assert finding.what.startswith(f"{n_files} of {n_files} files are missing")
    assert verdicts(finished / "m.parquet") == {"manifest": "ok", "sound": "ok"}


def test_a_split_and_a_damaged_manifest_are_told_apart(work):
    make_split(clean_manifest(n_speakers=4, n_each=6), "random").write(work / "s.parquet")
    assert verdicts(work / "s.parquet") == {"split": "ok"}
    (work / "m.parquet").write_bytes((work / "m.parquet").read_bytes()[:-100])
    assert verdicts(work / "m.parquet") == {"manifest": "fail"}


def test_what_is_none_of_these_or_cannot_be_repaired_is_refused(work):
    (work / "empty").mkdir()
    with pytest.raises(ConfigError, match="is none of these"):
        examine(work / "empty")
    with pytest.raises(ConfigError, match="Nothing at"):
        examine(work / "missing")
    for path in (work / "run", work / "m.parquet", None):
        with pytest.raises(ConfigError, match="cannot be repaired"):
            examine(path, repair=True)


def test_a_checkpoint_alone_is_checked(work):
    path = work / "run" / "best_model_mfcc.pth"
    assert verdicts(path) == {"checkpoint": "ok"}
    path.write_bytes(path.read_bytes()[:-1])
    assert verdicts(path) == {"checkpoint": "fail"}


def test_the_command_prints_json_and_its_status_is_the_verdict(work, koser):
    status, out, _ = koser("doctor", work / "run", "--format", "json")
    assert status == 0
    values = json.loads(out)
    assert (values["subject"], values["verdict"]) == ("run", "ok")
    (work / "run" / "metrics.json").write_text("{}", encoding="utf-8")
    status, out, err = koser("doctor", work / "run")
    assert status == 1
    assert "changed: metrics.json" in out
    assert err == ""


def test_an_installation_is_examined_package_by_package(monkeypatch, tmp_path):
    """One that does not load, one that kills Python, one that is missing, one that is well."""
    for name, code in {
        "polars": "",
        "onnx": "raise ImportError('libfoo.so is missing')",
        "av": "import os; os.kill(os.getpid(), 9)",
        "torchaudio": "",
    }.items():
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    present = {"polars", "onnx", "av", "torchaudio"}
    monkeypatch.setattr(installation, "find_spec", lambda name: name in present or None)
    monkeypatch.setenv("KOSER_CACHE", str(tmp_path / "cache"))
    findings = {each.check: each for each in installation.examine_installation().findings}
    assert findings["polars"].verdict.value == "ok"
    assert findings["numpy"].verdict.value == "fail"  # nothing works without
    assert findings["onnx"].verdict.value == "fail"
    assert "ImportError: libfoo.so is missing" in findings["onnx"].what
    assert "signal 9" in findings["av"].what
    assert findings["faster_whisper"].verdict.value == "note"
    assert "koser[stt]" in findings["faster_whisper"].way_out
    assert findings["torchaudio"].verdict.value == "warn"
    assert findings["cache"].verdict.value == "ok"
    assert findings["libsndfile"].verdict.value == "ok"


def test_the_store_that_doctor_calls_whole_is_the_one_that_is_read(work):
    """The two read the layout independently of each other."""
    folder = min(work.glob("store/mfcc-*"))
    description = json.loads((folder / "extractor.json").read_text(encoding="utf-8"))
    dtype = description.pop("dtype")
    store = FeatureStore(work / "store", description, dtype=dtype)
    assert f"{len(store)} arrays" in examine(folder).findings[0].what
