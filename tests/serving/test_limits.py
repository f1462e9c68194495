"""Each limit of the server, reached from outside."""

import os
import signal
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from fixtures.servers import assert_problem, wait_until


def test_more_bytes_than_allowed_are_refused_whether_they_are_announced_or_not(serve, sound_file):
    content = sound_file().read_bytes()
    with serve(max_upload_bytes=len(content)) as server:
        assert server.predict(content).status_code == 200
        assert_problem(server.predict(content + b"x"), "upload-too-large", f"{len(content)} bytes")
        chunks = (content[i : i + 500] for i in range(0, len(content), 500))
        assert server.predict(chunks).status_code == 200
        chunks = iter([content, b"x"])
        assert_problem(server.predict(chunks), "upload-too-large", "FLAC, Opus")
        files = {"file": content + b"x"}
        assert_problem(
            server.client.post("/v1/predict", files=files), "upload-too-large", "in pieces"
        )
        assert server.service.buffered._n_bytes == 0


def test_an_announced_size_is_refused_before_the_body_is_sent(served):
    with socket.create_connection(served.address) as link:
        link.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
            b"Content-Length: 99999999999\r\n\r\n"
        )
        assert link.recv(99).startswith(b"HTTP/1.1 413")


def test_sound_that_is_too_long_is_refused(serve, sound_file):
    with serve(max_predict_seconds=1.0) as server:
        assert server.predict(sound_file(seconds=1.0).read_bytes()).status_code == 200
        for container, subtype in [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "OPUS")]:
            path = sound_file(seconds=1.1, container=container, subtype=subtype)
            assert_problem(
                server.predict(path.read_bytes()), "audio-too-long", "lasts 1.1 s by its header"
            )


def silent_flac(hours):
    """A bomb: hours of silence in a few kilobytes."""
    import io

    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 16_000, 1, "PCM_16", format="FLAC") as file:
        for _ in range(hours * 60):
            file.write(np.zeros(16_000 * 60, np.int16))
    return buffer.getvalue()


def test_a_decompression_bomb_is_refused_by_its_header(served):
    bomb = silent_flac(3)
    assert len(bomb) < 2_000_000
    started = time.monotonic()
    assert_problem(served.predict(bomb), "audio-too-long", "lasts 10800.0 s")
    assert time.monotonic() - started < 2


def with_samples(flac, n_samples):
    """The same FLAC whose header claims another length (36 bits after 8 + 13.5 bytes)."""
    content = bytearray(flac)
    fields = int.from_bytes(content[18:26], "big")
    content[18:26] = ((fields >> 36 << 36) | n_samples).to_bytes(8, "big")
    return bytes(content)


def test_a_bomb_that_lies_about_its_length_stops_where_it_said(served):
    bomb = with_samples(silent_flac(1), 16_000)
    started = time.monotonic()
    response = served.predict(bomb)
    # libsndfile may refuse the contradiction, or read the second that is claimed.
    if response.status_code == 200:
        assert response.json()["duration"] <= 1.0
    else:
        assert_problem(response, "audio-unreadable", "")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("rate", "n_channels"), [(1, 1), (2**31 - 1, 1), (800_000, 1), (16_000, 1000)]
)
def test_a_header_of_no_recording_is_refused(served, rate, n_channels):
    data = bytes(2 * n_channels * 100)
    header = struct.pack(
        "<4sI8sIHHIIHH", b"RIFF", 36 + len(data), b"WAVEfmt ", 16, 1, n_channels, rate,
        min(rate * 2 * n_channels, 2**32 - 1), 2 * n_channels, 16,
    )  # fmt: skip
    response = served.predict(header + struct.pack("<4sI", b"data", len(data)) + data)
    assert response.status_code in (413, 422)
    assert response.json()["type"] in ("/problems/audio-unreadable", "/problems/audio-too-long")


def test_a_body_that_does_not_come_is_given_up(serve):
    with serve(upload_timeout=0.3) as server, socket.create_connection(server.address) as link:
        started = time.monotonic()
        link.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
            b"Content-Length: 1000\r\n\r\nRIFF"
        )
        assert link.recv(99).startswith(b"HTTP/1.1 408")
        assert 0.3 <= time.monotonic() - started < 3
        assert server.service.buffered._n_bytes == 0


def test_uploads_that_are_held_have_a_limit_together(serve, sound_file):
    content = sound_file(seconds=1.0).read_bytes()
    with serve(max_buffered_bytes=250_000) as server:
        with socket.create_connection(server.address) as link:
            link.sendall(
                b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
                b"Content-Length: 1000000\r\n\r\n" + bytes(240_000)
            )
            wait_until(lambda: server.service.buffered._n_bytes == 240_000)
            response = server.predict(content)
            assert_problem(response, "busy", "240000 bytes of sound are being handled")
            assert response.headers["retry-after"] == "1"
        wait_until(lambda: server.service.buffered._n_bytes == 0)  # its client has left
        assert server.predict(content).status_code == 200


class HeldModel:
    """A model that answers when it is let go; what waits meanwhile is known exactly."""

    def __init__(self, service):
        self.released = threading.Event()
        self.sizes = []
        self._predict = service.model._predict
        service.model._predict = self

    def __call__(self, waveforms):
        self.sizes.append(len(waveforms))
        assert self.released.wait(30)
        return self._predict(waveforms)


def test_a_full_queue_says_503_and_when_to_come_back(serve, sound_file):
    content = sound_file().read_bytes()
    held = []
    with (
        serve(max_waiting=3, prepare=lambda service: held.append(HeldModel(service))) as server,
        ThreadPoolExecutor(8) as pool,
    ):
        first = pool.submit(server.predict, content)
        wait_until(lambda: held[0].sizes == [1])
        waiting = [pool.submit(server.predict, content) for _ in range(3)]
        wait_until(lambda: len(server.service.model._clips) == 3)
        refused = server.predict(content)
        assert_problem(refused, "busy", "3 clips wait for the model")
        assert refused.headers["retry-after"] == "1"
        held[0].released.set()
        assert [each.result().status_code for each in [first, *waiting]] == [200] * 4
        assert held[0].sizes == [1, 3], "what waited was not computed together"
        assert server.predict(content).status_code == 200


def test_a_model_that_takes_too_long_is_not_waited_for(serve, sound_file):
    content = sound_file().read_bytes()
    held = []
    with serve(
        predict_timeout=0.2, prepare=lambda service: held.append(HeldModel(service))
    ) as server:
        assert_problem(server.predict(content), "model-timeout", "within 0.2 s")
        held[0].released.set()
        wait_until(lambda: server.predict(content).status_code == 200)


def decoder_process(server):
    (decoder,) = server.service.decoders._idle._queue
    return decoder._process


def test_a_decoder_that_hangs_is_killed_and_replaced(serve, sound_file):
    content = sound_file().read_bytes()
    with serve(decode_timeout=0.4) as server:
        process = decoder_process(server)
        os.kill(process.pid, signal.SIGSTOP)  # an endless loop in a C library looks the same
        started = time.monotonic()
        assert_problem(server.predict(content), "audio-unreadable", "it took more than 0.4 s")
        assert time.monotonic() - started < 5
        assert server.predict(content).status_code == 200
        assert process.returncode == -signal.SIGKILL
        assert "koser_decoders_lost_total 1.0" in server.client.get("/metrics").text


def test_a_decoder_that_crashes_is_replaced(serve, sound_file):
    content = sound_file().read_bytes()
    with serve() as server:
        for _ in range(3):
            process = decoder_process(server)
            os.kill(process.pid, signal.SIGSEGV)
            wait_until(lambda process=process: process.returncode is not None)
            assert_problem(server.predict(content), "audio-unreadable", "The decoder was lost")
            assert server.predict(content).status_code == 200


def test_a_client_that_leaves_while_decoding_leaves_nothing_behind(serve, sound_file):
    content = sound_file().read_bytes()
    with serve() as server:
        for _ in range(20):
            with socket.create_connection(server.address) as link:
                link.sendall(
                    b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
                    b"Content-Length: %d\r\n\r\n" % len(content) + content
                )
        wait_until(lambda: server.service.buffered._n_bytes == 0)
        assert server.predict(content).status_code == 200


def test_no_descriptor_is_left_open(served, sound_file):
    good, bad = sound_file().read_bytes(), b"no sound"
    for content in (good, bad):
        served.predict(content)
    before = len(os.listdir("/proc/self/fd"))
    for content in (good, bad) * 20:
        served.predict(content)
    assert len(os.listdir("/proc/self/fd")) <= before
