"""The commands on pretrained speech encoders, as typed: what lands, and what survives a kill.

The encoders are tiny and random. `test_real_encoders.py` does the same with real ones.
"""

import csv
import json
import re
import shutil
import signal

import numpy as np
import pytest

from fixtures.aihub263 import invent_rows, write_corpus
from fixtures.commands import QUICK, printed, run_as_typed, run_forked, run_here, train
from koser.features.records import RECORD
from koser.labels import EMOTIONS

RAW = "감정 분류를 위한 대화 음성 데이터셋"


@pytest.fixture(scope="module")
def work(tmp_path_factory, encoder_folder):
    """A current folder in which both systems were trained as the document says."""
    folder = tmp_path_factory.mktemp("work")
    write_corpus(folder / RAW, invent_rows((30, 30, 42)), seconds=0.3)
    encoder = ["--encoder", encoder_folder("wav2vec2")]
    splits = ["--split", "random", "--split", "speaker"]
    run_here(folder, "preprocess.py")
    # No terminal, so no progress; and nothing of what the libraries have to say.
    out = printed(
        run_as_typed(
            folder, "main.py", "--model", "wav2vec2", *encoder, *splits, *QUICK["wav2vec2"]
        )
    )
    printed(run_here(folder, "main.py", "--model", "wav2vec2ft", *encoder, *QUICK["wav2vec2ft"]))
    (folder / "out").write_text(out, encoding="utf-8")
    return folder


def test_both_systems_leave_the_documents_files_here_and_the_gap(work):
    runs = {"wav2vec2": ("random", "speaker"), "wav2vec2ft": ("speaker",)}
    for model, splits in runs.items():
        assert (work / f"best_model_{model}.pth").is_file()
        for split in splits:
            name = f"{model}_{split}"
            for plot in ("training_history", "confusion_matrix"):
                assert (work / f"{plot}_{name}.png").stat().st_size > 10_000
            results = json.loads((work / f"results_{name}.json").read_text(encoding="utf-8"))
            assert (results["model"], results["split"]) == (model, split)
            assert list(results["emotion_mapping"]) == list(EMOTIONS)
            assert sum(results[f"num_{part}"] for part in ("train", "val", "test")) == 102
            # No group is on both sides where the split says so.
            grouping, shared = results["protocol"]["grouping"], results["shared"]["groups"]
            if split == "speaker":
                assert (grouping, shared) == ("group(age×gender)", "none")
            else:
                assert grouping == "utterance"
                assert shared.startswith("6, in ")
    gap = json.loads((work / "gap_wav2vec2_random_speaker.json").read_text(encoding="utf-8"))
    (values,) = gap["gaps"]
    out = (work / "out").read_text(encoding="utf-8")
    interval = values["ci95"]["uar"]
    shown = "" if interval is None else f" [{interval[0]:+.3f}, {interval[1]:+.3f}]"
    assert f"random - speaker: UAR {values['uar']:+.3f}{shown}" in out


def test_a_checkpoint_is_small_because_the_encoder_is_not_in_it(work, encoder_folder):
    encoder = (encoder_folder("wav2vec2") / "model.safetensors").stat().st_size
    # A head on 16 values a state; and two of three layers, without convolutions.
    assert (work / "best_model_wav2vec2.pth").stat().st_size < encoder / 5
    assert (work / "best_model_wav2vec2ft.pth").stat().st_size < encoder


def test_both_trained_models_recognise_a_file_and_a_folder(work, koser):
    folder = work / "data" / "emotions" / "happiness"
    # By default the newest model here, which is the fine-tuned one.
    newest = printed(run_as_typed(work, "predict.py", folder, "--format", "csv"))
    rows = list(csv.DictReader(newest.splitlines()))
    assert len(rows) == len(list(folder.iterdir())) == 6
    for model in QUICK:
        status, out, err = koser(
            "predict", work / f"best_model_{model}.pth", folder, rows[0]["path"], "--format", "json"
        )
        assert (status, err) == (0, "")
        predictions = json.loads(out)
        got = np.array([list(each["probabilities"].values()) for each in predictions])
        np.testing.assert_allclose(got.sum(1), 1.0, atol=1e-6)
        np.testing.assert_allclose(got[6], got[0], atol=1e-5)  # in a folder as by itself
        expected = [[float(row[label]) for label in EMOTIONS] for row in rows]
        same = np.abs(got[:6] - expected).max() < 1e-5
        assert same == (model == "wav2vec2ft")


@pytest.mark.usefixtures("manifest")
@pytest.mark.parametrize("model", QUICK)
def test_what_was_extracted_ahead_is_not_extracted_again(koser, encoder_folder, n_encoded, model):
    encoder = encoder_folder("wav2vec2")
    status, _, err = koser(
        "extract", "m.parquet", "--features", model, "--encoder", encoder, *QUICK[model]
    )
    assert (status, err) == (0, "")
    assert n_encoded == [15] * 3  # at three speeds
    status, _, err = koser(*train(model, encoder))
    assert (status, err) == (0, "")
    # What a prediction costs is measured clip by clip, from sound.
    assert set(n_encoded[3:]) == {1}


LONG = ["--set", "train.epochs=6", "--set", "train.patience=6"]

# A training that dies as soon as the third epoch with a val score stands in train.log: the
# epochs before it are those of the head alone. The root's handlers come after the file's.
# Every epoch is kept, however short: none may be repeated.
KILLED_TRAINING = """
import logging, os, signal
from koser.cli import main
from koser.training import progress
progress._MAX_SAVING_SHARE = float("inf")
class Killer(logging.Handler):
    def emit(self, record):
        text = record.getMessage()
        if '"epoch": 3,' in text and '"val_uar": null' not in text:
            os.kill(os.getpid(), signal.SIGKILL)
logging.getLogger().addHandler(Killer())
main()
"""


def run_killed(folder, program, *arguments):
    """Run a program that kills itself, as a power cut would: nothing is flushed or closed."""
    ended = run_forked(folder, program, *arguments)
    assert (ended.status, ended.err) == (-signal.SIGKILL, "")


@pytest.mark.usefixtures("manifest")
def test_a_fine_tuning_killed_in_the_middle_resumes_to_the_same_bytes(
    koser, tmp_path, encoder_folder
):
    command = train("wav2vec2ft", encoder_folder("wav2vec2"), *LONG)
    run_killed(tmp_path, KILLED_TRAINING, *command)
    log = tmp_path / "run" / "train.log"
    assert '"epoch": 3,' in log.read_text(encoding="utf-8").splitlines()[-1]
    assert not (tmp_path / "run" / "predictions.parquet").exists()

    status, _, err = koser(*command, "--resume")
    assert (status, err) == (0, "")
    logged = log.read_text(encoding="utf-8")
    assert logged.count("the head alone") == 1
    epochs = re.findall(r'"val_uar": \d', logged)
    assert len(epochs) == 6, "none is repeated"
    status, _, err = koser(
        *train("wav2vec2ft", encoder_folder("wav2vec2"), *LONG, out="undisturbed")
    )
    assert (status, err) == (0, "")
    for name in ("predictions.parquet", "best_model_wav2vec2ft.pth"):
        resumed, undisturbed = (tmp_path / each / name for each in ("run", "undisturbed"))
        assert resumed.read_bytes() == undisturbed.read_bytes(), name
    assert not list((tmp_path / "run").rglob("last.pth"))


# A store that writes every batch at once, and dies with data on disk but no record of them.
KILLED_EXTRACTION = """
import os, signal, koser.features.store as store
import koser.features.speech.extractors as extractors
from koser.cli import main
extractors._CPU_BATCH_SECONDS = 1.0
store._FLUSH_BYTES, sync, n_syncs = 1, store._sync, 0
def killed(file):
    global n_syncs
    sync(file)
    n_syncs += 1
    if n_syncs == 7:
        os.kill(os.getpid(), signal.SIGKILL)
store._sync = killed
main()
"""


@pytest.mark.usefixtures("manifest")
def test_an_extraction_killed_half_way_goes_on_to_the_same_bytes(
    koser, tmp_path, encoder_folder, n_encoded, monkeypatch
):
    command = ["extract", "m.parquet", "--features", "wav2vec2", "--set", "speeds=[]",
               "--encoder", str(encoder_folder("wav2vec2")), "--store"]  # fmt: skip
    run_killed(tmp_path, KILLED_EXTRACTION, *command, "killed")
    (index,) = (tmp_path / "killed").glob("*/index.bin")
    n_kept = index.stat().st_size // RECORD.itemsize
    assert n_kept >= 3  # batches of one clip at least, each synced twice: data, then record
    monkeypatch.setattr("koser.features.speech.extractors._CPU_BATCH_SECONDS", 1.0)
    assert koser(*command, "killed")[0] == 0
    assert sum(n_encoded) == 15 - n_kept
    assert koser(*command, "whole")[0] == 0
    contents = [
        {path.name: path.read_bytes() for path in (tmp_path / store).glob("*/*.bin")}
        for store in ("killed", "whole")
    ]
    assert set(contents[0]) == {"data.bin", "index.bin"}
    assert contents[0] == contents[1]


@pytest.mark.usefixtures("manifest")
@pytest.mark.parametrize("model", QUICK)
def test_a_model_whose_encoder_was_moved_says_so_and_finds_it_again(
    koser, tmp_path, encoder_folder, model
):
    shutil.copytree(encoder_folder("wav2vec2"), tmp_path / "old")
    assert koser(*train(model, "old"))[0] == 0
    (tmp_path / "old").rename(tmp_path / "new")
    wav = next((tmp_path / "tones").rglob("*.wav"))
    status, out, err = koser("predict", "run", wav)
    assert (status, out) == (1, "")
    assert err == (
        f"Error: There is no folder '{tmp_path / 'old'}'. Check the path. If the encoder was "
        f"moved, say where it is: --encoder FOLDER\n"
    )
    status, out, err = koser("predict", "run", wav, "--encoder", "new")
    assert (status, err) == (0, "")
    assert wav.name in out
    status, out, err = koser("predict", "run", wav, "--encoder", encoder_folder("hubert"))
    assert (status, out) == (1, "")
    assert "is not the encoder that is wanted" in err
