"""The process itself: `koser serve` from its start to its end."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
from websockets.sync.client import connect

from koser.serving.problems import KINDS


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def process(model_folder, *arguments):
    """`koser serve` in a process of its own; yields it, its client and its log's lines."""
    port = free_port()
    command = [sys.executable, "-m", "koser", "serve", str(model_folder), "--port", str(port)]
    running = subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(running.stderr))
    reader.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            deadline = time.monotonic() + 60
            while True:
                assert running.poll() is None, lines
                assert time.monotonic() < deadline
                try:
                    if client.get("/readyz").status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield running, client, lines
    finally:
        running.kill()
        running.wait()
        reader.join()


def test_a_model_of_values_is_served_and_ends_by_the_same_command(
    values_folder, regressor, sound_file
):
    path = sound_file()
    (expected,) = regressor.predict_files([path])
    with process(values_folder) as (running, client, lines):
        answer = client.post("/v1/predict", files={"file": path.read_bytes()}).json()
        assert answer["valence"] == pytest.approx(expected.valence, abs=1e-5)
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=30) == 0
    assert "koser serves" in lines[0]
    refused = subprocess.run(
        [sys.executable, "-m", "koser", "serve", values_folder, "--port=0", "--set=threshold=0.5"],
        capture_output=True,
        text=True,
    )
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("Error: threshold = 0.5: for models of labels")
    assert len(refused.stderr.splitlines()) == 1


def test_a_signal_lets_it_finish_what_it_holds_and_end_with_0(model_folder, sound_file):
    content = sound_file().read_bytes()
    with process(model_folder, "--set", "drain_seconds=1.5") as (running, client, lines):
        address = (client.base_url.host, client.base_url.port)
        url = f"ws://{address[0]}:{address[1]}/v1/stream"
        with socket.create_connection(address) as slow, connect(url) as stream:
            json.loads(stream.recv())
            stream.send(bytes(32_000))
            # An upload of which half is there when the signal comes.
            slow.sendall(
                b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
                b"Content-Length: %d\r\n\r\n" % len(content) + content[:1000]
            )
            time.sleep(0.3)
            running.send_signal(signal.SIGTERM)
            wait_for(lambda: client.get("/readyz").status_code == 503)
            refusal = client.get("/readyz").json()
            assert refusal["type"] == "/problems/not-ready"
            # Whoever has not heard of it yet is still answered.
            headers = {"Content-Type": "audio/wav"}
            assert client.post("/v1/predict", content=content, headers=headers).status_code == 200
            messages = [json.loads(text) for text in iter_texts(stream)]
            assert messages[-1]["problem"]["type"] == "/problems/not-ready"
            assert stream.close_code == 1001
            time.sleep(1.7)  # it no longer accepts anything
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(address)
            slow.sendall(content[1000:])
            answer = slow.recv(9999)
            assert answer.startswith(b"HTTP/1.1 200"), answer
        assert running.wait(20) == 0
    assert not any("traceback" in line.lower() for line in lines), lines


def iter_texts(stream):
    from websockets import ConnectionClosed

    try:
        while True:
            yield stream.recv(timeout=20)
    except ConnectionClosed:
        return


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_second_signal_cuts_the_drain_short(model_folder):
    with process(model_folder, "--set", "drain_seconds=60") as (running, client, _):
        running.send_signal(signal.SIGINT)
        wait_for(lambda: client.get("/readyz").status_code == 503)
        started = time.monotonic()
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0
        assert time.monotonic() - started < 20


def test_its_decoders_end_with_it_even_if_it_is_killed(model_folder):
    with process(model_folder) as (running, _, _):
        children = subprocess.run(
            ["pgrep", "-P", str(running.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        assert children
        running.kill()
        running.wait()
        wait_for(lambda: not any(os.path.exists(f"/proc/{child}") for child in children))


def test_the_log_is_json_and_tells_nothing_of_the_sound(model_folder, sound_file):
    content = sound_file().read_bytes()
    with process(model_folder) as (running, client, lines):
        name = "김철수 상담 녹음.wav"
        client.post("/v1/predict?labels=angry&labels=calm", files={"file": (name, content)})
        client.post("/v1/predict?labels=secret", files={"file": (name, b"garbage-bytes")})
        client.get(f"/{name}", headers={"X-API-Key": "a-key-that-was-sent"})
        running.send_signal(signal.SIGTERM)
        running.wait(20)
        wait_for(lambda: any("Finished" in line for line in lines))
    first, *rest = lines
    assert first.startswith("koser serves '")
    records = [json.loads(line) for line in rest]
    requests = [record for record in records if record["event"] == "request"]
    assert {"time", "level", "request_id", "method", "route", "status", "seconds"} <= set(
        requests[-1]
    )
    predicted = [record for record in requests if record["route"] == "/v1/predict"]
    assert [record["status"] for record in predicted] == [200, 422]
    assert predicted[0]["bytes"] == len(content)
    assert predicted[0]["audio_seconds"] == 0.7
    told = "".join(rest)
    for secret in (
        name,
        "김",
        "\\uae40",
        "labels",
        "angry",
        "secret",
        "garbage",
        "127.0.0.1:",
        "a-key",
    ):
        assert secret not in told.replace("http://127.0.0.1:", ""), secret


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "max_streams=0"], "Bad configuration: max_streams"),
        (["--set", "speed=1"], "unknown key 'speed'"),
        (["--api-key-file", "nowhere"], "Cannot read the API keys in 'nowhere'"),
    ],
)
def test_a_wrong_setting_is_one_line(koser, model_folder, arguments, message):
    status, out, err = koser("serve", model_folder, *arguments)
    assert status == 1
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_a_port_that_is_taken_is_a_failure(model_folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "koser", "serve", str(model_folder), "--port", port],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"Error: Cannot listen on 127.0.0.1, port {port}: Address already"
    )
    assert done.stderr.count("\n") == 1


def test_every_kind_of_problem_has_its_own_title():
    assert len({kind.title for kind in KINDS.values()}) == len(KINDS)
