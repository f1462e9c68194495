"""`koser train` in two processes, as a user starts it: its folder, its words, its deaths."""

import os
import re
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch

from fixtures.commands import end_of, start_forked
from fixtures.ranks import DYING, free_port, torchrun_environment
from koser.errors import ConfigError
from koser.experiment.following import check_shareable
from koser.experiment.request import TrainRequest
from koser.models.checkpoint import load_tensors
from koser.training.ranks import ALONE, Ranks

QUICK = [
    *("--set", "train.epochs=3", "--set", "train.batch_size=8", "--set", "train.draws=row"),
    *("--set", "cnn.channels=[4, 6]", "--set", "cnn.hidden_size=8", "--workers", "1"),
]  # fmt: skip


def train(out, *arguments):
    return [
        "train", "--model", "mfcc", "--manifest", "m.parquet", "--split", "speaker",
        "--out", out, *QUICK, *arguments,
    ]  # fmt: skip


def run_together(folder, arguments, *, n_ranks=2, dying=None):
    """Start every rank, as torchrun would; how each ended."""
    # As torchrun does, so that what the processes note outlives them.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes = []
    for rank in range(n_ranks):
        variables = torchrun_environment(rank, n_ranks, store.port)
        variables["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        program = DYING if rank == dying else "from koser.cli import main; main()"
        name = f"rank{rank}"
        processes.append(start_forked(folder, program, *arguments, name=name, variables=variables))
    return [end_of(process, folder) for process in processes]


def predictions(folder):
    return pl.read_parquet(folder / "predictions.parquet").sort("id")


def assert_same_predictions(one, other):
    first, second = predictions(one), predictions(other)
    assert first["id"].to_list() == second["id"].to_list()
    columns = [name for name in first.columns if name.startswith("p_")]
    assert len(columns) == 3
    np.testing.assert_allclose(
        first.select(columns).to_numpy(), second.select(columns).to_numpy(), atol=1e-3
    )


@pytest.fixture
def alone(koser, manifest, tmp_path):
    """The run of one process."""
    status, _, err = koser(*train("alone"))
    assert status == 0, err
    return tmp_path / "alone"


def test_torchrun_leaves_the_folder_that_one_process_leaves(koser, alone, tmp_path):
    port = str(free_port())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "--master-port", port, "-m", "koser", *train("together", "--seeds", "2")],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, timeout=600,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    together = tmp_path / "together"
    names = [
        {path.relative_to(run) for path in run.rglob("*") if "seed43" not in str(path)}
        for run in (alone, together)
    ]
    assert names[0] == names[1]
    assert not list(together.rglob("*.partial"))
    assert done.stdout.count("Report: ") == 1
    assert "2 trainings run one after another, each in all 2 processes" in done.stderr
    assert "Error" not in done.stderr
    log = (together / "parts" / "seed42-fold00" / "train.log").read_text(encoding="utf-8")
    assert log.count("training on cpu") == 1
    assert len(re.findall("INFO epoch", log)) == 3
    one = load_tensors(alone / "parts" / "seed42-fold00" / "outcome.pth")
    two = load_tensors(together / "parts" / "seed42-fold00" / "outcome.pth")
    for name in ("train_loss", "val_loss"):
        losses = [[epoch[name] for epoch in each["history"]] for each in (one, two)]
        np.testing.assert_allclose(*losses, rtol=1e-4)
    assert one["best_epoch"] == two["best_epoch"]
    np.testing.assert_allclose(one["probabilities"], two["probabilities"], atol=1e-3)


def test_when_one_process_is_killed_the_other_ends_in_one_line_and_resume_goes_on(
    koser, alone, tmp_path
):
    one, other = run_together(tmp_path, train("killed"), dying=1)
    assert (one.status, other.status) == (1, -9)
    said = r"Error: A process of this training has ended.*--resume.*\n"
    assert re.fullmatch(said, one.err), one.err
    assert "Report" not in one.out
    assert (other.out, other.err) == ("", "")
    killed = tmp_path / "killed"
    assert not (killed / "report.html").exists()
    assert not list(killed.rglob("*.partial"))
    part = killed / "parts" / "seed42-fold00"
    assert len(load_tensors(part / "last.pth")["history"]) == 1
    status, _, err = koser(*train("killed", "--resume"))
    assert status == 0, err
    assert_same_predictions(killed, alone)


def test_what_is_refused_is_said_by_one_process(manifest, tmp_path):
    ended = run_together(tmp_path, train("r", "--set", "train.batch_size=1"))
    assert [each.status for each in ended] == [1, 1]
    said = "".join(each.err for each in ended)
    assert re.fullmatch(r"Error: 2 processes share batches of about 1 utt.*per-node 1.*\n", said)
    assert not (tmp_path / "r").exists(), "the folder is given back"


def test_a_system_whose_training_is_not_worth_sharing_says_so():
    with pytest.raises(ConfigError, match=r"'multimodal' trains in one.*: mfcc, wav2vec2, wav2v"):
        check_shareable(TrainRequest("multimodal", "speaker"), Ranks(0, 2))
    check_shareable(TrainRequest("multimodal", "speaker"), ALONE)
    check_shareable(TrainRequest("mfcc", "speaker"), Ranks(0, 2))


def test_half_an_environment_of_torchrun_is_refused(koser, manifest, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    status, _, err = koser(*train("r"))
    assert status == 1
    assert re.fullmatch(r"Error: WORLD_SIZE=4 asks for several processes, but RANK.*\n", err)
