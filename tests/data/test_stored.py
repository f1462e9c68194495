"""Manifests read in windows: the rows of the whole, in order, in the memory of a few."""

from dataclasses import replace

import polars as pl
import pytest

from fixtures.manifests import manifest
from koser.data import stored as stored_module
from koser.data.manifest import Manifest
from koser.data.stored import StoredManifest
from koser.errors import ManifestError


@pytest.fixture
def whole():
    labels = ("angry", "neutral", "sadness")
    rows = [
        {"label": labels[i % 3], "speaker": f"s{i % 4}", "text": f"문장 {i}"} for i in range(50)
    ]
    return manifest(rows)


def write_shards(whole, folder, sizes):
    first = 0
    for number, size in enumerate(sizes):
        rows = whole.table[first : first + size]
        own = replace(whole.provenance, n_rows_in=size)
        Manifest(rows, own).write(folder / f"{number:03d}.parquet")
        first += size


@pytest.mark.parametrize("sizes", [None, (50,), (20, 7, 0, 23), (1,) * 50])
@pytest.mark.parametrize("n_rows", [1, 7, 20, 50, 1000])
@pytest.mark.parametrize("n_read", [3, 2**16])
def test_windows_hold_all_rows_in_order(whole, tmp_path, monkeypatch, sizes, n_rows, n_read):
    monkeypatch.setattr(stored_module, "_READ_ROWS", n_read)
    path = tmp_path / "m.parquet"
    if sizes is None:
        whole.write(path)
    else:
        path = tmp_path / "shards"
        write_shards(whole, path, sizes)
    stored = StoredManifest.open(path)
    assert len(stored) == 50
    windows = list(stored.iter_manifests(n_rows))
    assert all(len(window) == n_rows for window in windows[:-1])
    assert pl.concat([window.table for window in windows]).equals(whole.table)
    assert {window.labels for window in windows} == {whole.labels}


def test_what_was_left_out_of_the_corpus_is_no_concern_of_a_window(whole, tmp_path):
    from koser.data.manifest import LeftOut

    left_out = (LeftOut("x", "no audio file"),)
    provenance = replace(whole.provenance, n_rows_in=51, left_out=left_out)
    Manifest(whole.table, provenance).validate().write(tmp_path / "m.parquet")
    stored = StoredManifest.open(tmp_path / "m.parquet")
    assert stored.provenance.left_out == left_out
    assert sum(len(window.validate()) for window in stored.iter_manifests(20)) == 50


def test_labels_of_all_files_are_the_same(whole, tmp_path):
    write_shards(whole, tmp_path / "shards", (25, 25))
    rows = [{"label": "angry", "speaker": "s9", "id": "z1"}, {"label": "fear", "speaker": "s9"}]
    manifest(rows).write(tmp_path / "shards" / "002.parquet")
    with pytest.raises(ManifestError, match=r"002\.parquet' has the labels angry, fear"):
        StoredManifest.open(tmp_path / "shards")


def test_what_is_no_manifest_is_refused_before_a_row_is_read(whole, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="No Parquet file in"):
        StoredManifest.open(tmp_path / "empty")
    with pytest.raises(ManifestError, match="No manifest at"):
        StoredManifest.open(tmp_path / "m.parquet")
    write_shards(whole, tmp_path / "shards", (50,))
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "shards" / "other.parquet")
    with pytest.raises(ManifestError, match=r"other\.parquet' is a Parquet file, but not"):
        StoredManifest.open(tmp_path / "shards")


def test_rows_are_checked_when_it_is_their_turn(whole, tmp_path):
    wrong = whole.table.with_columns(
        pl.when(pl.col("id") == "u00030").then(-1.0).otherwise("duration").alias("duration")
    )
    Manifest(wrong, whole.provenance).write(tmp_path / "m.parquet")
    windows = StoredManifest.open(tmp_path / "m.parquet").iter_tables(20)
    assert next(windows).height == 20
    with pytest.raises(ManifestError, match=r"1 rows do not last longer.*u00030"):
        next(windows)


def test_the_digest_is_of_the_content(whole, tmp_path):
    whole.write(tmp_path / "a.parquet")
    whole.write(tmp_path / "b.parquet")
    manifest([{"label": "angry", "speaker": "s"}]).write(tmp_path / "c.parquet")
    a, b, c = (StoredManifest.open(tmp_path / f"{name}.parquet").digest() for name in "abc")
    assert a == b != c


def test_a_flipped_bit_is_noticed_before_a_row_is_read(whole, tmp_path):
    write_shards(whole, tmp_path, (25, 25))
    path = tmp_path / "001.parquet"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ManifestError, match=r"001\.parquet' is damaged"):
        StoredManifest.open(tmp_path)
