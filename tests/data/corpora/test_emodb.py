import polars as pl
import pytest

from fixtures.aihub263 import wav_bytes
from koser.data.corpora.emodb import prepare
from koser.errors import CorpusError


def write(root, *names):
    (root / "wav").mkdir(exist_ok=True)
    for name in names:
        (root / "wav" / f"{name}.wav").write_bytes(wav_bytes(sum(name.encode())))


def test_letters_are_german_initials_of_the_emotions(tmp_path):
    write(tmp_path, *(f"03a01{letter}a" for letter in "WLEAFTN"))
    manifest = prepare(tmp_path)
    labels = {row[0][5]: row[1] for row in manifest.table.select("id", "label").iter_rows()}
    assert labels == {
        "W": "angry",
        "L": "boredom",
        "E": "disgust",
        "A": "fear",
        "F": "happiness",
        "T": "sadness",
        "N": "neutral",
    }
    assert manifest.labels[-1] == "boredom"


def test_speaker_and_sentence_come_from_the_name(tmp_path):
    write(tmp_path, "03a01Wa", "08a01Fb", "16b10Tc")
    table = prepare(tmp_path).table
    people = table.select("speaker", "gender", "age").rows()
    assert people == [("03", "male", 31), ("08", "female", 34), ("16", "female", 31)]
    text = table["text"].to_list()
    assert text[0] == text[1] != text[2]
    assert table["language"].unique().to_list() == ["de"]


def test_what_is_no_utterance_is_reported(tmp_path):
    write(tmp_path, "03a01Wa", "03a01Xa", "beep")
    manifest = prepare(tmp_path)
    assert [row.source for row in manifest.provenance.left_out] == ["03a01Xa"]
    assert manifest.provenance.unlisted == (str(tmp_path / "wav" / "beep.wav"),)
    assert manifest.table.filter(pl.col("id") == "03a01Wa").height == 1


def test_a_folder_of_something_else_is_refused(tmp_path):
    write(tmp_path, "beep")
    with pytest.raises(CorpusError, match=r"0 rows read.*'emodb' corpus"):
        prepare(tmp_path)
