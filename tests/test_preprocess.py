import runpy
import sys
import unicodedata
from pathlib import Path

import pytest

from fixtures.aihub263 import invent_rows, write_corpus
from koser.data.manifest import Manifest

SCRIPT = Path(__file__).resolve().parents[1] / "preprocess.py"
RAW = "감정 분류를 위한 대화 음성 데이터셋"


@pytest.fixture
def preprocess(tmp_path, monkeypatch):
    """Run the script in an empty current folder; returns its exit status."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return caught.value.code

    return run


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_without_options_the_raw_folder_becomes_data_emotions(preprocess, tmp_path, capsys, form):
    rows = invent_rows()
    silent = [rows[0].wav_id]
    raw = tmp_path / unicodedata.normalize(form, RAW)
    write_corpus(raw, rows, silent=silent, n_strays=2, form=form)
    assert preprocess() == 0
    manifest = Manifest.read(tmp_path / "data" / "emotions" / "manifest.parquet")
    assert len(manifest) == len(rows) - 1
    printed = capsys.readouterr().out
    for line in (
        f"rows   read: {len(rows)}",
        f"rows   kept: {len(rows) - 1}",
        "rows   left out: no audio file: 1",
        "rows   audio files without a row: 2",
        f"label  angry: {(manifest.table['label'] == 'angry').sum()} (",
    ):
        assert line in printed


def test_options_choose_policy_folder_and_copies(preprocess, tmp_path):
    write_corpus(tmp_path / "raw", invent_rows())
    arguments = ["raw", "--out", "there", "--labels", "majority", "--min-votes", "3", "--copy"]
    assert preprocess(*arguments) == 0
    manifest = Manifest.read(tmp_path / "there" / "manifest.parquet")
    assert manifest.provenance.label_policy == "majority (at least 3 votes)"
    assert not any(Path(path).is_symlink() for path in manifest.table["path"])


def test_an_error_is_one_line_and_exit_status_1(preprocess, capsys):
    assert preprocess() == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"CorpusError: No folder at '{RAW}'")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["--labels", "mean"], ["--min-votes", "3"], ["--lables", "soft"]]
)
def test_a_mistake_in_usage_is_exit_status_2(preprocess, arguments):
    assert preprocess(*arguments) == 2


def test_help_names_every_option(preprocess, capsys):
    assert preprocess("--help") == 0
    printed = capsys.readouterr().out
    for option in ("raw", "--out", "--labels", "--min-votes", "--copy", "data/emotions"):
        assert option in printed
