"""A server in a process of its own, and clients that ask it as fast as it answers."""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from inputs import iter_clips
from measuring import descendants

LABELS = ("angry", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes
    ----------
    process : subprocess.Popen
        Of it.
    port : int
        Where it listens, on 127.0.0.1.
    log_file : Path
        What it writes.
    """

    process: subprocess.Popen[bytes]
    port: int
    log_file: Path

    def get(self, path: str) -> str:
        """The answer to a GET."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            content: bytes = answer.read()
        return content.decode()

    def defects(self) -> list[str]:
        """Lines of its log with a traceback."""
        lines = self.log_file.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if "raceback" in line]

    def memory_mb(self) -> float:
        """Resident memory of it and its children, in MB."""
        total = 0
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
            total += int(status.split("VmRSS:")[1].split()[0]) * 1024
        return total / 1e6

    def n_descriptors(self) -> int:
        """Files and sockets that it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cpu_seconds(self) -> float:
        """CPU time of it and its children so far."""
        ticks = 0
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            fields = (
                Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            )
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """What clients saw.

    Attributes
    ----------
    seconds : float
        How long they asked.
    latencies : Sequence[float]
        Of every request, in seconds, ascending.
    statuses : dict[int, int]
        How many answers had which status.
    """

    seconds: float
    latencies: Sequence[float]
    statuses: dict[int, int]

    @property
    def per_second(self) -> float:
        """Requests answered per second."""
        return len(self.latencies) / self.seconds

    @property
    def n_errors(self) -> int:
        """Answers that were not 200."""
        return sum(n for status, n in self.statuses.items() if status != 200)

    def percentile(self, share: float) -> float:
        """Latency that `share` of all requests stayed below, in ms."""
        return 1000 * self.latencies[min(int(share * len(self.latencies)), len(self.latencies) - 1)]


def write_model(folder: Path) -> Path:
    """A run folder of a network of default size with RANDOM weights."""
    from koser.systems.mfcc import MfccConfig, MfccSystem

    folder.mkdir(parents=True, exist_ok=True)
    system = MfccSystem(LABELS, MfccConfig())
    system.to_checkpoint({"is_synthetic": True}).write(folder / "best_model_mfcc.pth")
    return folder


@contextmanager
def running(command: Sequence[str]) -> Iterator[Server]:
    """Start a server with ``--port N`` added to `command`, and end it after the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen([*command, "--port", str(port)], stderr=log, stdout=log)
        server = Server(process, port, Path(log.name))
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    server.get("/readyz")
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        sys.exit(f"The server did not start:\n{server.log_file.read_text()}")
                    time.sleep(0.1)
            yield server
        finally:
            process.terminate()
            process.wait(60)


def koser_serve(model: Path, *settings: str) -> list[str]:
    """The command of koser's server with ``--set`` for each of `settings`."""
    options = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "-m", "koser", "serve", str(model), *options]


def wav_uploads(n_clips: int, *, shortest: float, longest: float) -> list[bytes]:
    """16-bit WAV files of demo speech, their lengths drawn evenly between two bounds."""
    rng = np.random.default_rng(0)
    uploads = []
    for clip in iter_clips(n_clips, seconds=longest):
        n_samples = round(rng.uniform(shortest, longest) * 16_000)
        buffer = io.BytesIO()
        soundfile.write(buffer, clip[:n_samples], 16_000, "PCM_16", format="WAV")
        uploads.append(buffer.getvalue())
    return uploads


def ask(port: int, uploads: Sequence[bytes], *, n_clients: int, seconds: float) -> Load:
    """Let `n_clients` post uploads for some seconds, each as soon as its last was answered.

    They run in a process of their own, on connections that stay open.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_ask, port, uploads, n_clients, seconds).result()


def _ask(port: int, uploads: Sequence[bytes], n_clients: int, seconds: float) -> Load:
    requests = [
        b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: audio/wav\r\n"
        b"Content-Length: %d\r\n\r\n" % len(upload) + upload
        for upload in uploads
    ]
    latencies: list[float] = []
    statuses: dict[int, int] = {}

    async def client(number: int, end: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        place = number * 7
        while (started := time.perf_counter()) < end:
            writer.write(requests[place % len(requests)])
            place += 1
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            latencies.append(time.perf_counter() - started)
            status = int(head[9:12])
            statuses[status] = statuses.get(status, 0) + 1
        writer.close()

    async def everyone() -> float:
        started = time.perf_counter()
        await asyncio.gather(*(client(number, started + seconds) for number in range(n_clients)))
        return time.perf_counter() - started

    taken = asyncio.run(everyone())
    return Load(taken, sorted(latencies), statuses)
