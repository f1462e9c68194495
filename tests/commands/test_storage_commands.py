"""Every command that hears or writes takes a URL where it takes a path, and says the same."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from fixtures.recognizers import mfcc_checkpoint, speech
from fixtures.stores import BUSY, CUT
from koser.data.manifest import Manifest
from koser.data.splits import Split

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def corpus(tone_corpus):
    return tone_corpus(n_speakers=5, n_each=1)


def rows(text, root):
    """Rows of CSV, paths relative to `root`."""
    found = list(csv.DictReader(io.StringIO(text)))
    for row in found:
        row["path"] = row["path"].removeprefix(f"{root}/")
    return found


def relative(manifest, root):
    """A manifest's table, paths relative to `root`."""
    return manifest.table.with_columns(pl.col("path").str.strip_prefix(f"{root}/"))


PATTERN = ["--speaker-pattern", r"(s\d)_"]


def test_a_corpus_in_a_bucket_becomes_the_manifest_that_its_folder_does(koser, make_bucket, corpus):
    bucket = make_bucket(share=0.2, seed=3)
    root = bucket.put_folder(corpus, "tones")
    assert koser("prepare", "folder", corpus, "--out", "here.parquet", *PATTERN)[0] == 0
    out = bucket.url("manifests/there.parquet")
    status, _, err = koser("prepare", "folder", f"{root}/", "--out", out, *PATTERN)
    assert (status, err) == (0, "")
    here, there = Manifest.read(Path("here.parquet")), Manifest.read(out)
    assert relative(there, root).equals(relative(here, corpus))
    assert there.provenance.labels == here.provenance.labels
    assert bucket.network.faults()
    assert koser("info", out) == koser("info", "here.parquet")
    status, _, err = koser("split", out, "--by", "speaker", "--out", bucket.url("s.parquet"))
    assert (status, err) == (0, "")
    split = Split.read(bucket.url("s.parquet"))
    assert koser("split", "here.parquet", "--by", "speaker", "--out", "s.parquet")[0] == 0
    assert split.hash == Split.read(Path("s.parquet")).hash


def test_a_table_names_objects_by_url_or_from_where_it_stands(koser, bucket, corpus):
    root = bucket.put_folder(corpus, "tones")
    files = sorted(corpus.rglob("*.wav"))[:4]
    names = [file.relative_to(corpus).as_posix() for file in files]
    cells = [names[0], f"./{names[1]}", f"{root}/{names[2]}", f"../tones/{names[3]}"]
    table = "path,label\n" + "".join(f"{cell},neutral\n" for cell in [*cells, "none.wav"])
    expected = [f"{root}/{name}" for name in names]
    url = bucket.put("tones/table.csv", table.encode())
    assert koser("prepare", "table", url, "--out", "m.parquet")[0] == 0
    manifest = Manifest.read(Path("m.parquet"))
    assert manifest.table["path"].to_list() == expected
    assert [row.source for row in manifest.provenance.left_out] == ["none"]
    Path("table.csv").write_text(table, encoding="utf-8")
    there = ["--audio-root", root]
    assert koser("prepare", "table", "table.csv", *there, "--out", "m2.parquet")[0] == 0
    assert Manifest.read(Path("m2.parquet")).table["path"].to_list() == expected


def test_features_of_a_bucket_are_those_of_the_folder(koser, bucket, corpus):
    root = bucket.put_folder(corpus, "tones")
    koser("prepare", "folder", corpus, "--out", "here.parquet", *PATTERN)
    koser("prepare", "folder", root, "--out", bucket.url("m.parquet"), *PATTERN)
    how = ["--features", "mfcc", "--workers", "1", "--quiet", "--set", "speeds=[]"]
    assert koser("extract", "here.parquet", *how)[0] == 0
    n_requests = len(bucket.network.requests)
    status, text, err = koser("extract", bucket.url("m.parquet"), *how)
    assert (status, err) == (0, "")
    assert "15" in text
    assert len(bucket.network.requests) - n_requests == 2 + 2 * 15  # the manifest, and the clips


@pytest.fixture
def recordings(tmp_path, write_wav):
    import soundfile

    mfcc_checkpoint().write(tmp_path / "best_model_mfcc.pth")
    folder = tmp_path / "calls"
    (folder / "둘").mkdir(parents=True)
    for name, seed in (("a.wav", 1), ("b.flac", 2), ("둘/c.wav", 3)):
        soundfile.write(folder / name, speech(3, seed=seed), 16_000)
    (folder / "bad.wav").write_bytes(b"not audio")
    return folder


def test_a_prefix_is_recognised_as_its_folder_is(koser, make_bucket, recordings):
    bucket = make_bucket(share=0.2, seed=5, always={"poisoned": CUT})
    root = bucket.put_folder(recordings, "calls")
    status, here, _ = koser("predict", ".", recordings, "--format", "csv")
    assert status == 1  # one is no audio
    out = bucket.url("results/p.csv")
    arguments = ["--format", "csv", "--out", out]
    status, text, err = koser("predict", ".", f"{root}/", *arguments)
    assert (status, text) == (1, "")
    there = rows(bucket.get("results/p.csv").decode(), root)
    for one, other in zip(there, rows(here, recordings), strict=True):
        error, told = (each.pop("error").partition("convert it")[0] for each in (one, other))
        assert error.replace(root, "") == told.replace(str(recordings), "")
        assert one == other
    assert f"Error: '{root}/bad.wav'" in err
    assert "convert it: ffmpeg -i bad.wav -ac 1 -ar 16000 bad_16k.wav" in err


def test_one_poisoned_object_does_not_stop_the_rest(koser, make_bucket, recordings):
    bucket = make_bucket(always={"poisoned": BUSY})
    root = bucket.put_folder(recordings, "calls")
    poisoned = bucket.put("calls/poisoned.wav", (recordings / "a.wav").read_bytes())
    urls = [f"{root}/a.wav", poisoned, bucket.url("calls/none.wav"), f"{root}/둘/c.wav"]
    status, text, err = koser("predict", ".", *urls, "--format", "json")
    assert status == 1
    found = json.loads(text)
    assert [each["path"] for each in found] == urls
    assert ["error" in each for each in found] == [False, True, True, False]
    assert "in 8 attempts" in found[1]["error"]
    assert "No object at" in found[2]["error"]
    assert "2 of 4 could not be recognised" in err
    Path("t.csv").write_text("path,label\n" + "".join(f"{url},neutral\n" for url in urls), "utf-8")
    assert koser("prepare", "table", "t.csv", "--out", "m.parquet")[0] == 0
    left_out = Manifest.read(Path("m.parquet")).provenance.left_out_by_reason()
    assert left_out == {"audio that could not be fetched": 1, "unreadable audio": 1}


def test_a_manifest_of_a_bucket_is_recognised_into_parquet(koser, bucket, recordings):
    root = bucket.put_folder(recordings, "calls")
    table = "path,label\n" + "".join(f"{name},neutral\n" for name in ("a.wav", "둘/c.wav"))
    url = bucket.put("calls/t.csv", table.encode())
    manifest, out = bucket.url("m.parquet"), bucket.url("p.parquet")
    assert koser("prepare", "table", url, "--out", manifest)[0] == 0
    status, _, err = koser(
        "predict", ".", "--manifest", manifest, "--format", "parquet", "--out", out
    )
    assert (status, err) == (0, "")
    found = pl.read_parquet(io.BytesIO(bucket.get("p.parquet")))
    assert found["path"].to_list() == [f"{root}/a.wav", f"{root}/둘/c.wav"]


def test_a_timeline_of_an_object_is_that_of_the_file(koser, bucket, recordings):
    root = bucket.put_folder(recordings, "calls")
    _, here, _ = koser("predict", ".", recordings / "a.wav", "--timeline", "--format", "rttm")
    status, there, err = koser(
        "predict", ".", f"{root}/a.wav", "--timeline", "--format", "rttm", "--out",
        bucket.url("timelines/"),
    )  # fmt: skip
    assert (status, there, err) == (0, "", "")
    assert bucket.get("timelines/a.rttm").decode() == here


def test_the_documents_command_takes_urls(bucket, recordings):
    root = bucket.put_folder(recordings, "calls")
    program = [sys.executable, str(ROOT / "predict.py"), f"{root}/a.wav", "--format", "json"]
    found = subprocess.run(program, cwd=recordings.parent, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)[0]["path"] == f"{root}/a.wav"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["predict", "s3://b/run", "a.wav"], "model"),
        (["extract", "m.parquet", "--features", "mfcc", "--store", "s3://b/store"], "store"),
        (["train", "--model", "mfcc", "--split", "speaker", "--data", "s3://b/data"], "data"),
        (["train", "--model", "mfcc", "--split", "random", "--out", "s3://b/run"], "out"),
        (["compare", "s3://b/run"], "runs"),
    ],
)
def test_what_has_to_be_on_this_machine_says_so(koser, arguments, what):
    status, text, err = koser(*arguments)
    assert (status, text) == (1, "")
    assert "s3://b/" in err
    assert f"is a URL, and {what} has to be on this machine" in err
    assert not Path("s3:").exists()


def test_an_adapter_of_a_corpus_takes_no_url(koser):
    for corpus in ("ravdess", "auto"):
        status, _, err = koser("prepare", corpus, "s3://b/corpus", "--out", "m.parquet")
        assert status == 1
        assert f"'{corpus}' reads a folder of this machine, not 's3://b/corpus'" in err
