"""A real Ray cluster of three processes on this machine gives what one process gives, row for row.

Its head and two workers are started as on three machines, with ``ray start``. Actors are
killed in the middle.
"""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from conftest import SHARED
from fixtures.recognizers import mfcc_checkpoint
from fixtures.work import Broken, Deadly, lost
from koser.data.corpora import prepare
from koser.data.manifest import Manifest
from koser.engines.choosing import EngineOptions, opened_engine
from koser.errors import EngineError
from koser.features.store_check import largest_difference

pytestmark = pytest.mark.integration

EMOTIONTTS = SHARED / "corpora" / "emotiontts_open_db"
MODELS = Path(
    os.environ.get("KOSER_TEST_MODELS") or Path.home() / ".cache" / "koser-tests" / "models"
).resolve()
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "OMP_NUM_THREADS": "1",
    "RAY_worker_niceness": "0",  # 15 by default: never their turn beside other tests
}
N_WORKERS = 2
# Workers import what the tests give them to do.
PLACES = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


class Cluster:
    """A head without a core to work with, and two workers of one core each."""

    def __init__(self):
        # Short: the names of its sockets are longer, and end at 107 letters.
        self.folder = Path(tempfile.mkdtemp(prefix="kr", dir="/tmp"))
        self.address = f"127.0.0.1:{free_port()}"
        self._processes = []

    def start(self):
        self._start("--head", f"--port={self.address.rpartition(':')[2]}", "--num-cpus=0",
                    "--include-dashboard=false", f"--temp-dir={self.folder}")  # fmt: skip
        for _ in range(N_WORKERS):
            self._start(f"--address={self.address}", "--num-cpus=1")

    def _start(self, *arguments):
        # Ray gives a node 30 s to start, which a machine busy with other tests may not.
        for _ in range(5):
            if self._is_started(*arguments):
                return
        pytest.fail(self.log())

    def _is_started(self, *arguments):
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-gpus=0",
                   "--node-ip-address=127.0.0.1", "--object-store-memory=100000000",
                   "--disable-usage-stats", *arguments]  # fmt: skip
        path = self.folder / f"start-{len(self._processes)}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                start_new_session=True,  # and so a group, of its own: all ends with it
                env={**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(PLACES)},
            )
        self._processes.append(process)
        while "Ray runtime started" not in path.read_text(encoding="utf-8"):
            if process.poll() is not None:
                return False
            time.sleep(0.1)
        return True

    def log(self):
        logs = sorted(self.folder.glob("start-*.log"))
        return "\n".join(path.read_text(encoding="utf-8") for path in logs)

    def stop(self):
        for process in reversed(self._processes):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster():
    made = Cluster()
    try:
        made.start()
        wait_for_nodes(made)
        yield made
    finally:
        made.stop()


def wait_for_nodes(cluster):
    import ray

    os.environ.update(ENVIRONMENT)
    ray.init(cluster.address, log_to_driver=False)
    try:
        deadline = time.monotonic() + 120
        while ray.cluster_resources().get("CPU", 0) < N_WORKERS:
            assert time.monotonic() < deadline, cluster.log()
            time.sleep(0.2)
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a manifest of 200 real clips, one of them broken, and an untrained model."""
    folder = tmp_path_factory.mktemp("cluster")
    whole = prepare("emotiontts", EMOTIONTTS, {})
    table = whole.table.sort("duration")
    bad = folder / "bad.wav"
    bad.write_bytes(b"no sound")
    paths = [str(bad) if row == 7 else path for row, path in enumerate(table["path"])]
    provenance = replace(whole.provenance, n_rows_in=200, left_out=())
    Manifest(table.with_columns(path=pl.Series(paths)), provenance).write(folder / "m.parquet")
    Manifest(table[20:26], replace(provenance, n_rows_in=6)).write(folder / "few.parquet")
    mfcc_checkpoint().write(folder / "best_model_mfcc.pth")
    return folder


def koser(folder, *arguments, status=0):
    """Run a command; its standard output."""
    result = subprocess.run(
        [sys.executable, "-m", "koser", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == status, result.stderr
    return result


def on_ray(cluster):
    return ("--engine", "ray", "--address", cluster.address, "--batch-rows", 16)


class ActorKiller(threading.Thread):
    """Sends SIGKILL to every actor of a cluster that works for Ray Data, once `when` is true."""

    def __init__(self, cluster, when=lambda: True):
        super().__init__(daemon=True)
        self.killed = []
        self._cluster = str(cluster.folder).encode()
        self._when = when
        self._stopped = threading.Event()

    def run(self):
        while not self.killed and not self._stopped.wait(0.01):
            if self._when():
                for folder in Path("/proc").glob("[0-9]*"):
                    self._kill(folder)

    def _kill(self, folder):
        try:
            if not (folder / "cmdline").read_bytes().startswith(b"ray::MapWorker(MapBatches("):
                return
            # Not one of another cluster on this machine: its raylet says where it lives.
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if self._cluster in (folder.parent / parent / "cmdline").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)
                self.killed.append(folder.name)
        except OSError:
            return  # it has ended by itself

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._stopped.set()
        self.join()


def test_prediction_is_the_same_row_for_row_though_a_worker_is_killed(cluster, work):
    arguments = ("predict", "best_model_mfcc.pth", "--manifest", "m.parquet", "--shard-rows", 16)
    koser(work, *arguments, "--out", "local", status=1)
    done = work / "ray" / "done.jsonl"

    def is_in_the_middle():
        return done.exists() and done.read_bytes().count(b"\n") >= 2

    with ActorKiller(cluster, is_in_the_middle) as killer:
        told = koser(work, *arguments, "--out", "ray", *on_ray(cluster), status=1)
    assert killer.killed
    assert "1 of 200 could not be recognised" in told.stderr
    local, ray = (sorted((work / name).glob("part-*")) for name in ("local", "ray"))
    assert [path.name for path in local] == [path.name for path in ray]
    assert [path.read_bytes() for path in local] == [path.read_bytes() for path in ray]
    table = pl.read_parquet(ray)
    assert table["id"].to_list() == Manifest.read(work / "m.parquet").table["id"].to_list()
    assert table["error"].drop_nulls().len() == 1


def test_features_are_the_same_though_a_worker_is_killed(cluster, work):
    arguments = ("extract", "m.parquet", "--features", "mfcc", "--set", "speeds=[1.0]")
    koser(work, *arguments, "--store", "local-store", status=1)
    with ActorKiller(cluster) as killer:
        told = koser(work, *arguments, "--store", "ray-store", *on_ray(cluster), status=1)
    assert killer.killed
    assert "1 of 200 could not be read" in told.stderr
    assert largest_difference(work / "local-store", work / "ray-store") == 0.0
    indexes = [
        [path.stat().st_size for path in (work / name).glob("*/index.bin")]
        for name in ("local-store", "ray-store")
    ]
    assert indexes[0] == indexes[1]


def test_transcripts_are_the_same(cluster, work):
    arguments = ("transcribe", "few.parquet", "--whisper", MODELS / "whisper-base-ct2")
    arguments = (*arguments, "--set", "whisper.n_threads=1")
    koser(work, *arguments, "--store", "local-store", "--out", "local.csv")
    koser(work, *arguments, "--store", "ray-store", "--out", "ray.csv", *on_ray(cluster))
    assert (work / "local.csv").read_text() == (work / "ray.csv").read_text()
    assert (work / "local.csv").read_text().count(",ok,") >= 5
    found = []
    for name in ("local-store", "ray-store"):
        with sqlite3.connect(work / name / "transcripts.sqlite") as cache:
            found.append(cache.execute("SELECT * FROM transcript ORDER BY clip").fetchall())
    assert found[0] == found[1]


def test_a_manifest_is_the_same(cluster, work):
    for name, engine in (("local", ()), ("ray", on_ray(cluster))):
        koser(work, "prepare", "emotiontts", EMOTIONTTS, "--out", f"{name}.parquet", *engine)
    local, ray = (Manifest.read(work / f"{name}.parquet") for name in ("local", "ray"))
    assert local.table.equals(ray.table)
    assert local.provenance == ray.provenance


@pytest.fixture
def connected(cluster, monkeypatch):
    for name, value in {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(PLACES)}.items():
        monkeypatch.setenv(name, value)
    with opened_engine(EngineOptions("ray", address=cluster.address, batch_rows=4)) as engine:
        yield engine


def test_only_the_row_that_kills_is_lost_and_errors_come_as_they_are(connected):
    chunks = [[row, row + 1] for row in range(0, 40, 2)]
    results = list(connected.map_chunks(Deadly, chunks, lost=lost))
    flat = [each for result in results for each in result]
    assert flat == ["lost 13" if row == 13 else 2 * row for row in range(40)]
    with pytest.raises(EngineError) as caught:
        list(connected.map_chunks(Broken, chunks, lost=lost))
    assert str(caught.value) == "it was not to be"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--worker-gpus", 0.5), "has 2 CPUs and 0 GPUs on 3 nodes, and --worker-gpus 0.5 asks"),
        (("--worker-cpus", 8), "on none is there room for a worker of 8 CPUs"),
    ],
)
def test_what_the_cluster_lacks_is_said_in_one_line(cluster, work, options, why):
    arguments = ("predict", "best_model_mfcc.pth", "--manifest", "m.parquet", "--out", "none")
    told = koser(work, *arguments, *on_ray(cluster), *options, status=1).stderr.splitlines()
    errors = [line for line in told if line.startswith("Error:")]
    assert len(errors) == 1
    assert why in errors[0]
    assert "Traceback" not in "".join(told)
