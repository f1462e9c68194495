"""Commands that messages advise can be pasted, whatever the names of folders are."""

import re
import shlex

import numpy as np
import polars as pl
import pytest

from koser.data import corpora
from koser.data.manifest import Manifest
from koser.data.splits import Split
from koser.doctor import examine
from koser.errors import KoserError
from koser.features.store import FeatureStore
from koser.models.checkpoint import find_checkpoint
from koser.reporting.runs import check_sum

DESCRIPTION = {"extractor": "noise", "width": 3}
KEY = bytes(range(16))


def damaged_store(folder):
    store = FeatureStore(folder, DESCRIPTION)
    with store.writer() as writer:
        writer.append(KEY, np.ones(3, np.float32))
    path = store.folder / "data.bin"
    path.write_bytes(bytes(path.stat().st_size))
    return store.folder


def reading_a_damaged_store(folder):
    damaged_store(folder)
    FeatureStore(folder, DESCRIPTION).read(KEY)


def a_missing_manifest(folder):
    Manifest.read(folder / "M.parquet")


def another_table(folder):
    pl.DataFrame({"a": [1]}).write_parquet(folder / "M.parquet")
    Manifest.read(folder / "M.parquet")


def a_missing_split(folder):
    Split.read(folder / "s.parquet")


def an_unknown_corpus(folder):
    corpora.prepare("auto", folder)


def a_corpus_that_someone_sorted(folder):
    for name in ("angry/F1_S1_1_a.wav", "sad/F1_S1_2_a.wav"):
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(b"")
    corpora.prepare("auto", folder)


def a_folder_without_a_model(folder):
    find_checkpoint(folder)


def a_changed_result(folder):
    (folder / "results.json").write_text("{}", encoding="utf-8")
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  results.json\n", encoding="utf-8")
    check_sum(folder / "results.json")


@pytest.mark.parametrize(
    "meet",
    [
        reading_a_damaged_store,
        a_missing_manifest,
        another_table,
        a_missing_split,
        an_unknown_corpus,
        a_corpus_that_someone_sorted,
        a_folder_without_a_model,
        a_changed_result,
    ],
)
def test_an_advised_command_names_the_folder_as_one_word(tmp_path, meet):
    # AI Hub 263 comes in a folder called so.
    folder = tmp_path / "감정 분류를 위한 대화 음성 데이터셋"
    folder.mkdir()
    with pytest.raises(KoserError) as refused:
        meet(folder)
    commands = re.findall(r"koser (?:doctor|prepare|split) [^;,`]+", str(refused.value))
    with_folder = [shlex.split(each) for each in commands if folder.name in each]
    assert with_folder, str(refused.value)
    for words in with_folder:
        assert any(word.startswith(str(folder)) for word in words), words


def test_the_way_to_repair_names_the_store_as_one_word(tmp_path):
    store = damaged_store(tmp_path / "my features")
    (way_out,) = (each.way_out for each in examine(store).findings if each.way_out)
    assert shlex.split(way_out)[:4] == ["Run:", "koser", "doctor", str(store)]
