"""The split itself: what it says, what it shares, how it is kept, and published lists."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fixtures.manifests import manifest
from koser.config import build_config
from koser.data.corpora import emotiontts
from koser.data.manifest import Manifest
from koser.data.scripts import cluster_scripts
from koser.data.splits import PARTS, Leak, Split, SplitOptions, make_split
from koser.errors import ConfigError, SplitError

CORPORA = Path(__file__).resolve().parents[2] / ".." / "shared" / "corpora"


def speakers(n_utterances: int = 60, n_speakers: int = 12) -> Manifest:
    return manifest(
        [
            {"speaker": f"화자{i % n_speakers:02d}", "label": ("angry", "fear", "sadness")[i % 3]}
            for i in range(n_utterances)
        ]
    )


def by_hand(parts: list[str], protocol: str = "by hand") -> Split:
    """A split of one fold of the first utterances."""
    table = pl.DataFrame(
        {"id": [f"u{i:05d}" for i in range(len(parts))], "fold": 0, "part": parts},
        schema={"id": pl.String, "fold": pl.Int32, "part": pl.String},
    )
    return Split(table, protocol, "utterance", SplitOptions())


def test_a_split_is_read_back_as_it_was_written(tmp_path):
    data = speakers()
    split = make_split(data, "leave_one_speaker_out", SplitOptions(seed=3, val_fraction=0.2))
    split.write(tmp_path / "new" / "split.parquet")
    read = Split.read(tmp_path / "new" / "split.parquet")
    assert read.table.equals(split.table)
    assert read.describe() == split.describe()
    assert read.options == SplitOptions(seed=3, val_fraction=0.2)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["split.parquet"]


def test_the_description_survives_json():
    split = make_split(speakers(), "kfold")
    described = split.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["protocol"] == "kfold"
    assert described["n_folds"] == 5
    assert described["seed"] == split.seed == 42


def test_the_hash_is_that_of_protocol_and_parts():
    split = by_hand(["train", "test", "train", "val"])
    digest = hashlib.blake2b(b'"by hand"', digest_size=16)
    for part, ids in (("test", ["u00001"]), ("train", ["u00000", "u00002"]), ("val", ["u00003"])):
        digest.update(json.dumps([0, part, ids]).encode())
    assert split.hash == digest.hexdigest()


def test_the_hash_sees_every_change_and_no_order():
    split = by_hand(["train", "test", "train", "val"])
    reversed_rows = Split(split.table.reverse(), "by hand", "speaker", SplitOptions(seed=1))
    assert reversed_rows.hash == split.hash
    others = [
        by_hand(["train", "test", "val", "train"]),
        by_hand(["train", "test", "train", "left_out"]),
        by_hand(["train", "test", "train"]),
        by_hand(["train", "test", "train", "val"], protocol="random"),
        Split(split.table.with_columns(pl.col("fold") + 1), "by hand", "", SplitOptions()),
    ]
    assert len({split.hash, *(other.hash for other in others)}) == 6


def test_a_split_is_the_same_in_every_process():
    code = (
        "import sys; sys.path[:0] = ['tests', 'tests/data']\n"
        "from test_splits import speakers\n"
        "from koser.data.splits import make_split\n"
        "print(*(make_split(speakers(), p).hash for p in ('random', 'speaker', 'kfold')))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    here = " ".join(make_split(speakers(), p).hash for p in ("random", "speaker", "kfold"))
    assert outputs == {f"{here}\n"}


def test_ids_and_counts_agree():
    split = make_split(speakers(), "kfold")
    for counts in split.counts().iter_rows(named=True):
        fold = counts.pop("fold")
        assert counts == {part: len(split.ids(fold, part)) for part in PARTS}
    assert split.ids(0, "test") == sorted(split.ids(0, "test"))


@pytest.mark.parametrize(
    ("fold", "part", "message"),
    [
        (5, "test", "No fold 5: the split has 5, counted from 0"),
        (-1, "test", "No fold -1"),
        (0, "dev", "No part 'dev'. Parts are train, val, test, left_out"),
    ],
)
def test_a_part_that_does_not_exist_is_refused(fold, part, message):
    with pytest.raises(SplitError, match=message):
        make_split(speakers(), "kfold").ids(fold, part)


def test_a_split_of_other_utterances_is_refused():
    split = make_split(speakers(60), "speaker")
    assert split.check(speakers(60)) is split
    with pytest.raises(SplitError, match="7 utterances are not in the split, the first: u00060, "):
        split.check(speakers(67))
    with pytest.raises(SplitError, match="2 utterances are not in the manifest, the first: u00058"):
        split.check(speakers(58))


def test_a_split_that_contradicts_itself_is_refused():
    split = make_split(speakers(), "kfold")
    twice = pl.concat([split.table, split.table.head(3)])
    with pytest.raises(SplitError, match="3 utterances are more than once in a fold"):
        Split(twice, "kfold", "speaker", SplitOptions()).check(speakers())
    with pytest.raises(SplitError, match="299 rows, not 5 folds × 60 utterances"):
        Split(split.table[1:], "kfold", "speaker", SplitOptions()).check(speakers())


def test_a_changed_file_is_refused(tmp_path):
    path = tmp_path / "split.parquet"
    make_split(speakers(), "speaker").write(path)
    metadata = pl.read_parquet_metadata(path)
    table = pl.read_parquet(path).with_columns(part=pl.lit("train"))
    table.write_parquet(path, metadata={"koser.split": metadata["koser.split"]})
    with pytest.raises(SplitError, match="was changed after it was written"):
        Split.read(path)
    table.write_parquet(path, metadata={"koser.split": "{}"})
    with pytest.raises(SplitError, match="is not readable"):
        Split.read(path)


def test_files_that_are_no_splits_are_refused(tmp_path):
    with pytest.raises(SplitError, match=r"No split at .* koser split"):
        Split.read(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no parquet", encoding="utf-8")
    with pytest.raises(SplitError, match="is not a Parquet file"):
        Split.read(tmp_path / "text.parquet")
    pl.DataFrame({"id": ["a"]}).write_parquet(tmp_path / "table.parquet")
    with pytest.raises(SplitError, match=r"not a split of koser.*fixed:"):
        Split.read(tmp_path / "table.parquet")
    with pytest.raises(SplitError, match="Cannot write the split"):
        by_hand(["train"]).write(tmp_path / "text.parquet" / "split.parquet")


def test_leakage_counts_what_test_shares_with_train_and_val():
    data = manifest(
        [
            {"speaker": "a", "session": "1", "text": "강아지가 아파서 밤새 못 잤어"},
            {"speaker": "b", "session": "1", "text": "월급이 올라서 정말 기뻐"},
            {"speaker": "a", "session": "2", "text": "강아지가 아파서 밤새 못 잤어요"},
            {"speaker": "c", "session": "2", "text": "월급이 올라서 정말 기뻐"},
            {"speaker": "a", "session": "3", "text": None},
            {"speaker": "d", "session": "4", "text": "우산을 깜빡 두고 왔다"},
        ]
    )
    split = by_hand(["train", "val", "test", "test", "test", "left_out"])
    assert split.leakage(data) == (
        Leak("speaker", 1, 2),  # a tests twice
        Leak("group", None),
        Leak("session", 0, 0),
        Leak("script", 2, 2),
        Leak("text", 1, 1),  # the other differs in its ending
    )


def test_leakage_is_that_of_the_worst_fold():
    data = speakers(6, 3)  # speakers 0 1 2 0 1 2
    folds = [
        ["train"] * 3 + ["test"] * 3,
        ["train", "test", "test"] * 2,
        ["test"] * 2 + 4 * ["val"],
    ]
    table = pl.concat(
        [
            by_hand(parts).table.with_columns(fold=pl.lit(i, pl.Int32))
            for i, parts in enumerate(folds)
        ]
    )
    leak = Split(table, "by hand", "utterance", SplitOptions()).leakage(data)[0]
    assert leak == Leak("speaker", 3, 3, 0)


def test_a_random_split_shares_speakers_and_a_speaker_split_does_not():
    data = speakers()
    assert make_split(data, "random").leakage(data)[0].n_shared > 0
    assert make_split(data, "speaker").leakage(data)[0] == Leak("speaker", 0)


def test_the_summary_counts_labels_and_names_absent_ones():
    data = manifest(
        [{"speaker": "a", "label": "angry"}, {"speaker": "a", "label": "fear"}]
        + [{"speaker": "b", "label": "fear"}] * 3
    )
    rows = list(by_hand(["train", "train", "test", "test", "left_out"]).summary_rows(data))
    assert rows == [
        ("split", "protocol", "by hand"),
        ("split", "kept apart", "utterance"),
        ("split", "seed", "42"),
        ("split", "utterances", "5"),
        ("parts", "train", "2 of 1 speakers: angry 1, fear 1"),
        ("parts", "test", "2 of 1 speakers: fear 2; absent: angry"),
        ("parts", "left_out", "1 of 1 speakers: fear 1"),
        ("test shares with train and val", "speakers", "none"),
        ("test shares with train and val", "groups", "not known"),
        ("test shares with train and val", "sessions", "not known"),
        ("test shares with train and val", "scripts", "not known"),
        ("test shares with train and val", "texts", "not known"),
    ]


def test_the_summary_shows_every_fold():
    data = speakers()
    rows = list(make_split(data, "kfold").summary_rows(data))
    assert [(section, name) for section, name, _ in rows if section.startswith("fold")] == [
        (f"fold {fold}", part) for fold in range(5) for part in ("train", "val", "test")
    ]


def test_an_unknown_protocol_is_refused_with_the_known_ones():
    message = "Unknown protocol 'loso'. Protocols are random, speaker, .*kfold and fixed:LIST"
    with pytest.raises(SplitError, match=message):
        make_split(speakers(), "loso")
    with pytest.raises(SplitError, match="Unknown protocol 'fixed:'"):
        make_split(speakers(), "fixed:")


@pytest.mark.parametrize(
    ("protocol", "options", "message"),
    [
        ("speaker", {"n_folds": 5}, r"takes no n_folds \(5 given\).*script, session, kfold"),
        ("kfold", {"n_script_folds": 5}, r"takes no n_script_folds.*do: speaker\+script\."),
        ("fixed:ravdess", {"n_folds": 6}, "'fixed:ravdess' takes no n_folds"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(protocol, options, message):
    with pytest.raises(SplitError, match=message):
        make_split(speakers(), protocol, SplitOptions(**options))


def test_script_folds_alone_are_refused():
    data = manifest([{"speaker": f"s{i % 9}", "text": f"{i}"} for i in range(60)])
    with pytest.raises(SplitError, match="Give n_folds"):
        make_split(data, "speaker+script", SplitOptions(n_script_folds=2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"test_fraction": 0}, "test_fraction"),
        ({"val_fraction": -0.1}, "val_fraction"),
        ({"test_fraction": 0.6, "val_fraction": 0.4}, "leave something to train on"),
        ({"seed": -1}, "seed"),
        ({"folds": 5}, "unknown key 'folds'"),
    ],
)
def test_impossible_options_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        build_config(SplitOptions, values)


@pytest.mark.integration
def test_emotiontts_is_tested_without_its_speakers_and_its_sentences():
    data = emotiontts.prepare(CORPORA / "emotiontts_open_db")
    assert len(data) == 200
    assert len(np.unique(cluster_scripts(data.table["text"].to_list()))) == 20
    options = SplitOptions(n_folds=10, n_script_folds=5, val_fraction=0)
    split = make_split(data, "speaker+script", options)
    assert split.n_folds == 50
    assert split.counts().drop("fold").unique().rows() == [(144, 0, 4, 52)]
    shared = {leak.kind: leak.n_shared for leak in split.leakage(data)}
    assert shared == {"speaker": 0, "group": None, "session": None, "script": 0, "text": 0}
    label_of = dict(zip(data.table["id"], data.table["label"], strict=True))
    for fold in range(50):
        assert sorted(label_of[i] for i in split.ids(fold, "test")) == sorted(data.labels)
    by_speaker = make_split(data, "leave_one_speaker_out")
    shared = {leak.kind: leak.n_shared for leak in by_speaker.leakage(data)}
    assert (shared["speaker"], shared["script"]) == (0, 20)
