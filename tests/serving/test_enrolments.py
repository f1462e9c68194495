"""Voices on the server: heard once, used everywhere, bounded, forgotten."""

import io
import json
from functools import partial

import httpx
import numpy as np
import pytest
import soundfile
from websockets.sync.client import connect

from fixtures.recognizers import enrolling_checkpoint
from fixtures.servers import assert_problem, running
from koser.audio.reading import load
from koser.demo import corpus_folder
from koser.errors import ConfigError
from koser.inference.models import load_model
from koser.inference.recognizer import Recognizer
from koser.inference.segments import TimelineOptions
from koser.inference.stream import EmotionStream
from koser.inference.timeline import make_timeline
from koser.serving.metrics import Metrics
from koser.serving.problems import ProblemError
from koser.serving.settings import ServeConfig
from koser.serving.voices import HeldVoices

WAV = {"Content-Type": "audio/wav"}
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@pytest.fixture(scope="module")
def enrolling(tmp_path_factory):
    path = tmp_path_factory.mktemp("enrolling") / "best_model_mfcc.pth"
    enrolling_checkpoint().write(path)
    return load_model(path)


@pytest.fixture(scope="module")
def server(enrolling):
    with running(enrolling, max_enrolment_utterances=3) as started:
        yield started


@pytest.fixture(scope="module")
def paths():
    return sorted(corpus_folder().glob("*.flac"))[:6]


def enrol(server, *paths):
    answer = server.client.post("/v1/enrolments", content=paths[0].read_bytes(), headers=WAV)
    assert answer.status_code == 201
    for path in paths[1:]:
        answer = server.client.post(
            f"/v1/enrolments/{answer.json()['id']}", content=path.read_bytes(), headers=WAV
        )
        assert answer.status_code == 200
    return answer.json()


def probabilities(answer):
    assert answer.status_code == 200
    return list(answer.json()["probabilities"].values())


def test_a_voice_is_recognised_on_the_server_as_from_files(server, enrolling, paths):
    made = enrol(server, *paths[:2])
    assert made["n_utterances"] == 2
    assert made["seconds"] == pytest.approx(sum(len(load(p)) for p in paths[:2]) / 16_000)
    assert 3500 < made["expires_in"] <= 3600
    known = Recognizer(enrolling).enrol(paths[:2])
    for path in paths[2:]:
        content = path.read_bytes()
        found = probabilities(server.predict(content, params={"enrolment": made["id"]}))
        expected = known.predict_file(path)
        np.testing.assert_allclose(found, list(expected.probabilities.values()), atol=1e-5)
        plain = Recognizer(enrolling).predict_file(path)
        np.testing.assert_allclose(
            probabilities(server.predict(content)), list(plain.probabilities.values()), atol=1e-5
        )
    assert server.client.get("/v1/model").json()["can_enrol"] is True


def test_clips_of_several_voices_share_a_batch(server, enrolling, paths):
    """The model's thread, asked at once by voices and by nobody in particular."""
    recognizer = Recognizer(enrolling)
    voices = [None, *(recognizer.enrol([path]).voice for path in paths[:2])]
    waveforms = [load(path) for path in paths[2:5]]
    found = server.service.shared.predict_enrolled(waveforms, voices)
    for row, waveform, voice in zip(found, waveforms, voices, strict=True):
        alone = recognizer.configured(voice=voice).predict_waveforms([waveform])[0]
        np.testing.assert_allclose(row, alone, atol=1e-5)


def test_timelines_know_a_held_voice_or_learn_it_from_their_first_speech(server, enrolling, paths):
    recognizer, identity = Recognizer(enrolling), enrol(server, paths[0])["id"]
    sound = paths[1].read_bytes()
    cases = [
        ({"enrolment": identity}, recognizer.enrol([paths[0]]), TimelineOptions()),
        ({"enrol_first": "1"}, recognizer, TimelineOptions(enrol_first=1)),
        ({}, recognizer, TimelineOptions()),
    ]
    for params, expected, options in cases:
        answer = server.client.post("/v1/timeline", content=sound, headers=WAV, params=params)
        assert answer.status_code == 200
        made = make_timeline(expected, paths[1], options)
        assert answer.json()["enrolled_from"] == made.enrolled_from
        assert [each["label"] for each in answer.json()["cells"]] == [c.label for c in made.cells]


def streamed(server, pcm, enrol_first):
    """All that a stream of `pcm` answers."""
    url = f"ws{server.url.removeprefix('http')}/v1/stream?enrol_first={enrol_first}"
    messages = []
    with connect(url) as stream:
        for first in range(0, len(pcm), 8000):
            stream.send(pcm[first : first + 8000].tobytes())
        stream.send('{"type": "end"}')
        while not messages or messages[-1]["type"] != "end":
            messages.append(json.loads(stream.recv(timeout=30)))
    return messages


def test_a_stream_says_from_when_on_the_voice_is_known(server, enrolling, paths):
    pcm = np.concatenate([load(path) for path in paths])
    pcm = (pcm * 32767).astype("<i2")
    options = TimelineOptions(enrol_first=4)
    expected = make_timeline(Recognizer(enrolling), [pcm.astype(np.float32) / 32768], options)
    messages = streamed(server, pcm, 4)
    enrolled = [each for each in messages if each["type"] == "enrolled"]
    assert enrolled == [{"type": "enrolled", "enrolled_from": expected.enrolled_from}]
    finals = [each["segment"] for each in messages if each["type"] == "final"]
    assert [each["label"] for each in finals] == [each.label for each in expected.segments]
    for one, other in zip(finals, expected.segments, strict=True):
        assert one["probabilities"] == pytest.approx(dict(other.probabilities), abs=1e-5)


def test_a_voice_that_becomes_known_where_the_stream_ends_is_told_too(server, enrolling, paths):
    waveform = load(paths[0])[:16_000]  # no window fits: it is recognised when it has ended
    stream = EmotionStream(Recognizer(enrolling), TimelineOptions(enrol_first=0.2))
    stream.feed(waveform)
    assert stream.enrolled_from is None
    stream.finish()
    kinds = [each["type"] for each in streamed(server, (waveform * 32767).astype("<i2"), 0.2)]
    assert stream.enrolled_from is not None
    assert kinds[-3:] == ["final", "enrolled", "end"]


def test_a_held_voice_and_the_first_speech_are_not_taken_together(server, enrolling, paths):
    both = {"enrolment": enrol(server, paths[0])["id"], "enrol_first": "1"}
    answers = [
        server.client.post("/v1/timeline", content=paths[1].read_bytes(), headers=WAV, params=both),
        httpx.get(f"{server.url}/v1/stream", params=both, headers=HANDSHAKE),
    ]
    for answer in answers:
        assert_problem(answer, "invalid-request", "Give either an enrolment or enrol_first")
    known, options = Recognizer(enrolling).enrol(paths[:1]), TimelineOptions(enrol_first=1)
    for attempt in (partial(make_timeline, known, paths[1]), partial(EmotionStream, known)):
        with pytest.raises(ConfigError, match="Give either an enrolment or enrol_first"):
            attempt(options)


def test_what_is_forgotten_expired_or_invented_is_not_found(server, paths):
    identity = enrol(server, paths[0])["id"]
    assert server.client.delete(f"/v1/enrolments/{identity}").status_code == 204
    content = paths[1].read_bytes()
    for answer in (
        server.predict(content, params={"enrolment": identity}),
        server.client.delete(f"/v1/enrolments/{identity}"),
        server.client.post(f"/v1/enrolments/{identity}", content=content, headers=WAV),
    ):
        assert_problem(answer, "enrolment-not-found", "Enrol again")


@pytest.mark.parametrize("n_samples", [1, 32_000])
def test_a_sound_in_which_nobody_speaks_enrols_nobody(server, paths, n_samples):
    file = io.BytesIO()
    soundfile.write(file, np.zeros(n_samples), 16_000, format="WAV")
    held = enrol(server, paths[0])["id"]
    for path in ("/v1/enrolments", f"/v1/enrolments/{held}"):
        answer = server.client.post(path, content=file.getvalue(), headers=WAV)
        assert_problem(answer, "no-speech", "No speech is heard in the sound")
    content = paths[1].read_bytes()
    answer = server.client.post(f"/v1/enrolments/{held}", content=content, headers=WAV)
    assert answer.json()["n_utterances"] == 2


def test_an_enrolment_is_made_of_a_bounded_number_of_sounds(server, paths):
    made = enrol(server, *paths[:3])
    content = paths[3].read_bytes()
    answer = server.client.post(f"/v1/enrolments/{made['id']}", content=content, headers=WAV)
    assert_problem(answer, "invalid-request", "3 sounds were heard")


def test_no_more_voices_are_held_than_may_be(enrolling, paths):
    with running(enrolling, max_enrolments=2) as server:
        held = [enrol(server, path)["id"] for path in paths[:2]]
        answer = server.client.post("/v1/enrolments", content=paths[2].read_bytes(), headers=WAV)
        assert_problem(answer, "busy", "2 enrolments are held")
        assert answer.headers["retry-after"] == "1"
        metrics = server.client.get("/metrics").text
        assert "koser_enrolments 2.0" in metrics
        assert "koser_enrolment_bytes 960.0" in metrics  # twice 40 values, of 8 and 4 bytes
        assert server.service.buffered._n_bytes == 0  # no sound is kept
        server.client.delete(f"/v1/enrolments/{held[0]}")
        enrol(server, paths[2])


def test_an_unused_voice_is_forgotten_and_a_used_one_is_not(enrolling):
    now = [0.0]
    config = ServeConfig(enrolment_seconds=100, max_enrolments=2)
    held = HeldVoices(enrolling, config, Metrics(), clock=lambda: now[0])
    summary = np.ones((40, 1))
    used, unused = held.add(summary, 1.5), held.add(summary, 2.5)
    for now[0] in (60.0, 120.0):
        held.use(used)
    with pytest.raises(ProblemError, match="expired after 100 s"):
        held.use(unused)
    assert held.describe(used).expires_in == 100
    held.add(summary, 1.0)  # there is room again
    now[0] = 500.0
    with pytest.raises(ProblemError, match="expired"):
        held.add(summary, 1.0, used)


def test_a_model_without_enrolment_refuses_each_way_in_one_line(served, paths):
    content = paths[0].read_bytes()
    for answer in (
        served.client.post("/v1/enrolments", content=content, headers=WAV),
        served.predict(content, params={"enrolment": "abc"}),
        served.client.post(
            "/v1/timeline", content=content, headers=WAV, params={"enrol_first": "3"}
        ),
        httpx.get(f"{served.url}/v1/stream?enrol_first=3", headers=HANDSHAKE),
    ):
        assert_problem(answer, "invalid-request", "does not adapt to a speaker")
    assert served.client.get("/v1/model").json()["can_enrol"] is False
