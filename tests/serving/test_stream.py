"""The WebSocket: results as the timeline's, limits, and ends."""

import asyncio
import base64
import json
import socket
import time
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
import websockets
from websockets.sync.client import connect

from fixtures.servers import wait_until
from koser.audio.reading import load
from koser.demo import corpus_folder
from koser.inference.timeline import make_timeline
from koser.serving.gate import Keys

KEY = "another key of somebody/+?"


@pytest.fixture(scope="module")
def speech():
    """16-bit samples: utterances of the demo corpus with pauses between them."""
    pieces = []
    for path in sorted(corpus_folder().glob("*.flac"))[3:7]:
        pieces += [load(path), np.zeros(12_000, np.float32)]
    return (np.concatenate(pieces) * 32767).astype("<i2")


def open_stream(server, query="", **options):
    return connect(f"ws{server.url.removeprefix('http')}/v1/stream{query}", **options)


def receive_all(stream):
    messages = []
    try:
        while True:
            messages.append(json.loads(stream.recv(timeout=30)))
    except websockets.ConnectionClosed as closed:
        return messages, closed.rcvd


def play(server, pcm, query="", *, n_bytes=3_200, **options):
    """Send everything in pieces of `n_bytes`, then the end."""
    with open_stream(server, query, **options) as stream:
        content = pcm.tobytes()
        for first in range(0, len(content), n_bytes):
            stream.send(content[first : first + n_bytes])
        stream.send('{"type": "end"}')
        return receive_all(stream)


@pytest.mark.parametrize("n_bytes", [1_111, 3_200, 100_001, 2**20 - 1])
def test_final_results_are_the_timeline_whatever_the_messages_size(
    served, recognizer, speech, n_bytes
):
    expected = make_timeline(recognizer, [speech.astype(np.float32) / 32768])
    messages, closed = play(served, speech, n_bytes=n_bytes)
    assert closed.code == 1000
    assert messages[0] == {
        "type": "ready", "labels": ["angry", "neutral", "calm"], "threshold": 0.0,
        "sampling_rate": 16_000,
    }  # fmt: skip
    assert messages[-1] == {"type": "end", "duration": len(speech) / 16_000}
    finals = [each["segment"] for each in messages if each["type"] == "final"]
    assert len(finals) == len(expected.segments) > 3
    for found, segment in zip(finals, expected.segments, strict=True):
        assert (found["start"], found["end"]) == (segment.start, segment.end)
        assert found["label"] == segment.label
        # the same windows in other batches: float32 sums in another order
        assert found["probabilities"] == pytest.approx(dict(segment.probabilities), abs=1e-5)
    if n_bytes < 10_000:
        partials = [each["segment"] for each in messages if each["type"] == "partial"]
        assert len(partials) > 3
        assert sum(partials[0]["probabilities"].values()) == pytest.approx(1)


def test_the_timeline_of_the_upload_is_the_streams_too(served, speech, tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.wav", speech, 16_000, "PCM_16")
    answer = served.client.post(
        "/v1/timeline?peaks=50", files={"file": (tmp_path / "a.wav").open("rb")}
    ).json()
    messages, _ = play(served, speech)
    finals = [each["segment"] for each in messages if each["type"] == "final"]
    for found, segment in zip(finals, answer["segments"], strict=True):
        assert found["start"] == segment["start"]
        assert found["end"] == segment["end"]
        assert found["probabilities"] == pytest.approx(segment["probabilities"], abs=1e-5)
    outline = np.abs(speech / 32768)
    edges = np.linspace(0, len(speech), 51).round().astype(int)
    expected = [outline[a:b].max() for a, b in pairwise(edges)]
    assert answer["peaks"] == pytest.approx(expected, abs=1e-4)


def test_another_sampling_rate_threshold_and_labels_are_heard(served, speech):
    slow = speech[::2]
    messages, _ = play(served, slow, "?sampling_rate=8000&threshold=1&labels=angry&labels=calm")
    assert messages[0]["labels"] == ["angry", "calm"]
    assert messages[-1]["duration"] == pytest.approx(len(speech) / 16_000, abs=1e-3)
    finals = [each["segment"] for each in messages if each["type"] == "final"]
    assert finals
    assert {each["label"] for each in finals} == {None}
    assert {tuple(each["probabilities"]) for each in finals} == {("angry", "calm")}


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("?sampling_rate=7", "sampling_rate"),
        ("?sampling_rate=fast", "sampling_rate"),
        ("?threshold=2", "threshold"),
        ("?labels=bored&labels=angry", "bored"),
    ],
)
def test_a_wrong_option_is_a_problem_before_the_stream_opens(served, query, detail):
    with pytest.raises(websockets.InvalidStatus) as refused, open_stream(served, query):
        pass
    assert refused.value.response.status_code == 422
    assert refused.value.response.headers["content-type"] == "application/problem+json"
    assert detail in json.loads(refused.value.response.body)["detail"]


@pytest.mark.parametrize("text", ["", "hello", "{}", '{"type": "start"}', "[1]", '"end"'])
def test_a_text_that_means_nothing_ends_the_stream_with_a_problem(served, text):
    with open_stream(served) as stream:
        stream.send(text)
        messages, closed = receive_all(stream)
    assert closed.code == 1003
    assert messages[-1]["type"] == "problem"
    assert messages[-1]["problem"]["type"] == "/problems/bad-message"


def test_a_message_that_is_too_large_ends_the_stream(serve):
    with serve(max_message_bytes=10_000) as server, open_stream(server) as stream:
        stream.send(bytes(10_001))
        _, closed = receive_all(stream)
        assert closed.code == 1009
        wait_until(lambda: server.service.n_streams == 0)


def test_silence_of_the_client_ends_the_stream(serve, speech):
    with serve(stream_idle_timeout=0.3) as server, open_stream(server) as stream:
        stream.send(speech[:16_000].tobytes())
        started = time.monotonic()
        messages, closed = receive_all(stream)
        assert 0.2 < time.monotonic() - started < 10
        assert closed.code == 1008
        assert messages[-1]["problem"]["type"] == "/problems/stream-idle"
        assert any(each["type"] == "final" for each in messages), "what was heard is owed"


def test_a_stream_that_is_too_long_ends_with_what_was_heard(serve, speech):
    with serve(max_stream_seconds=2.0) as server:
        messages, closed = play(server, speech)
        assert closed.code == 1008
        assert messages[-1]["problem"]["type"] == "/problems/audio-too-long"
        assert any(each["type"] == "final" for each in messages)


def test_only_so_many_streams_are_open_at_once(serve):
    with serve(max_streams=2) as server:
        with open_stream(server), open_stream(server):
            wait_until(lambda: server.service.n_streams == 2)
            with pytest.raises(websockets.InvalidStatus) as refused, open_stream(server):
                pass
            response = refused.value.response
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert "2 streams" in json.loads(response.body)["detail"]
            assert "koser_streams 2.0" in server.client.get("/metrics").text
        wait_until(lambda: server.service.n_streams == 0)
        with open_stream(server) as stream:
            assert json.loads(stream.recv())["type"] == "ready"


def test_a_page_of_another_origin_may_not_open_a_stream(served):
    with (
        pytest.raises(websockets.InvalidStatus) as refused,
        open_stream(served, origin="https://evil.example"),
    ):
        pass
    assert refused.value.response.status_code == 403
    with open_stream(served, origin=served.url) as stream:
        assert json.loads(stream.recv())["type"] == "ready"


def test_a_key_comes_as_a_header_or_as_a_subprotocol(serve):
    encoded = base64.urlsafe_b64encode(KEY.encode()).decode().rstrip("=")
    accepted = [
        {"additional_headers": {"X-API-Key": KEY}},
        {"subprotocols": ["koser.stream.v1", f"koser.key.{encoded}"]},
    ]
    refused = [
        {},
        {"subprotocols": ["koser.stream.v1"]},
        {"subprotocols": ["koser.stream.v1", "koser.key.!!"]},
        {"subprotocols": ["koser.stream.v1", f"koser.key.{encoded[:-2]}"]},
    ]
    with serve(keys=Keys([KEY])) as server:
        for options in accepted:
            with open_stream(server, **options) as stream:
                assert json.loads(stream.recv())["type"] == "ready"
                # The key itself is never repeated.
                assert stream.subprotocol in (None, "koser.stream.v1")
        for options in refused:
            with (
                pytest.raises(websockets.InvalidStatus) as error,
                open_stream(server, **options),
            ):
                pass
            assert error.value.response.status_code == 401


def test_a_client_that_vanishes_frees_its_place(serve, speech):
    with serve(max_streams=1) as server:
        for _ in range(5):
            with (
                suppress(OSError, websockets.ConnectionClosed),
                open_stream(server) as stream,
            ):
                stream.send(speech.tobytes()[:50_000])
                stream.socket.shutdown(socket.SHUT_RDWR)
            wait_until(lambda: server.service.n_streams == 0)


def test_many_streams_at_once_each_get_their_own(served, recognizer, speech):
    expected = make_timeline(recognizer, [speech.astype(np.float32) / 32768])

    async def one(shift):
        async with websockets.connect(f"ws{served.url.removeprefix('http')}/v1/stream") as stream:
            content = bytes(2 * shift) + speech.tobytes()
            for first in range(0, len(content), 20_000):
                await stream.send(content[first : first + 20_000])
            await stream.send('{"type": "end"}')
            return [json.loads(text) async for text in stream]

    async def all_of_them():
        return await asyncio.gather(*(one(512 * i) for i in range(8)))

    for i, messages in enumerate(asyncio.run(all_of_them())):
        finals = [each["segment"] for each in messages if each["type"] == "final"]
        assert len(finals) == len(expected.segments)
        # Silence before it shifts everything but what touches the beginning.
        assert finals[-1]["end"] == pytest.approx(expected.segments[-1].end + 512 * i / 16_000)
