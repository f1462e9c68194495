"""``koser reproduce``: what a kill leaves is kept, what cannot be run is said, the rest is run."""

import csv
import json
import signal

import pytest

from fixtures.commands import run_forked

SMALL = [
    *("--workers", "1", "--quiet", "--report-language", "en"),
    *("--set", "train.epochs=2", "--set", "speeds=[]"),
    *("--set", "mfcc:cnn.channels=[4, 6]", "--set", "mfcc:cnn.hidden_size=8"),
]

# Dies as soon as a training of the second system stands in its log.
KILLED = """
import logging, os, signal
from koser.cli import main
class Killer(logging.Handler):
    def emit(self, record):
        if "run wav2vec2_random" in record.getMessage():
            os.kill(os.getpid(), signal.SIGKILL)
logging.getLogger().addHandler(Killer())
main()
"""


def files_of(folder):
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.usefixtures("manifest")
def test_killed_and_run_again_it_repeats_nothing_and_ends_with_the_table(
    koser, tmp_path, encoder_folder
):
    command = [
        "reproduce", "--manifest", "m.parquet", "--out", "all", "--models", "mfcc,wav2vec2",
        "--encoder", str(encoder_folder("wav2vec2")), *SMALL,
    ]  # fmt: skip
    killed = run_forked(tmp_path, KILLED, *command)
    assert killed.status == -signal.SIGKILL, killed.err
    finished = files_of(tmp_path / "all" / "mfcc_speaker")
    assert tmp_path / "all" / "mfcc_speaker" / "report.html" in finished
    assert not (tmp_path / "all" / "wav2vec2_random" / "report.html").exists()

    status, out, err = koser(*command)
    assert (status, err) == (0, ""), err
    assert files_of(tmp_path / "all" / "mfcc_speaker") == finished
    with (tmp_path / "all" / "comparison.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    # The random split is no row of the table, but a gap beside it.
    assert [row["protocol"] for row in rows] == ["speaker", "speaker"]
    assert [row["is_baseline"] for row in rows] == ["True", "False"]
    for row, name in zip(rows, ("mfcc_speaker", "wav2vec2_speaker"), strict=True):
        metrics = json.loads((tmp_path / "all" / name / "metrics.json").read_text("utf-8"))
        assert float(row["uar"]) == metrics["uar"]
    gap = json.loads((tmp_path / "all" / "gap.json").read_text(encoding="utf-8"))
    assert [run["name"] for run in gap["runs"]] == ["wav2vec2_random", "wav2vec2_speaker"]
    assert "random - speaker" in out
    page = (tmp_path / "all" / "comparison.html").read_text(encoding="utf-8")
    assert "Between protocols" in page

    runs = files_of(tmp_path / "all" / "wav2vec2_random")
    status, _, err = koser(*command)
    assert (status, err) == (0, "")
    assert files_of(tmp_path / "all" / "wav2vec2_random") == runs


@pytest.mark.usefixtures("manifest")
def test_what_cannot_be_run_is_named_and_the_others_are_run(koser, tmp_path):
    status, out, err = koser(
        "reproduce", "--manifest", "m.parquet", "--out", "all", "--models", "mfcc,wav2vec2",
        "--encoder", "/no/such/encoder", *SMALL,
    )  # fmt: skip
    assert (status, err) == (1, "")
    assert (tmp_path / "all" / "mfcc_speaker" / "report.html").is_file()
    for name in ("wav2vec2_random", "wav2vec2_speaker"):
        (line,) = [line for line in out.splitlines() if line.startswith(f"Not run: {name}")]
        assert "/no/such/encoder" in line
        assert not (tmp_path / "all" / name).exists()


@pytest.mark.usefixtures("manifest")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "mfcc,hubert"], "--models hubert: the document's systems are mfcc"),
        (["--set", "cnn.colour=red"], "'--set cnn.colour=red' belongs to none of"),
        (["--set", "wav2vec2:train.epochs=3", "--models", "mfcc"], "belongs to none of mfcc"),
        (["--data", "x"], "either --manifest M.parquet or --data"),
    ],
)
def test_what_would_change_nothing_is_refused_before_any_work(koser, tmp_path, options, message):
    status, _, err = koser("reproduce", "--manifest", "m.parquet", "--out", "all", *options)
    assert status == 1
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "all").exists()


def test_the_documents_systems_are_planned_in_its_order():
    from koser.experiment.reproduction import ReproduceRequest, plan

    planned = plan(ReproduceRequest(data="x", text_model="t", overrides=("train.epochs=3",)))
    assert [each.name for each in planned] == [
        "mfcc_speaker", "wav2vec2_random", "wav2vec2_speaker", "wav2vec2ft_speaker",
        "multimodal-small_speaker", "multimodal-medium_speaker",
    ]  # fmt: skip
    assert [each.request.whisper for each in planned[-2:]] == ["small", "medium"]
    assert [each.request.text_model for each in planned] == [None] * 4 + ["t"] * 2
    assert all(each.request.overrides == ("train.epochs=3",) for each in planned)
