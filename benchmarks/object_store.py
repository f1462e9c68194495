"""An S3 server (moto's) in a process of its own, which answers only after a while."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from koser.storage.writing import send

_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_DEFAULT_REGION": "us-east-1",
}
_START_SECONDS = 120.0


@contextmanager
def serving(latency: float) -> Iterator[str]:
    """A bucket's URL; `s3://` leads to its server, whose every answer takes `latency` seconds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(port, latency))
    process.start()
    os.environ.update(_ENVIRONMENT, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
    try:
        _wait_for(port)
        _make_bucket()
        yield "s3://benchmark"
    finally:
        process.terminate()
        process.join()


def upload(files: Iterable[Path], folder: str) -> list[str]:
    """Copy files below a URL; returns theirs."""
    urls = []
    for file in files:
        urls.append(f"{folder}/{file.name}")
        send(file, urls[-1])
    return urls


def _serve(port: int, latency: float) -> None:
    import logging

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = DomainDispatcherApplication(create_backend_app)

    def slow(environ: Mapping[str, Any], start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            time.sleep(latency)
        return store(environ, start_response)

    run_simple("127.0.0.1", port, slow, threaded=True)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("The S3 server did not start.")


def _make_bucket() -> None:
    import boto3

    boto3.client("s3").create_bucket(Bucket="benchmark")
