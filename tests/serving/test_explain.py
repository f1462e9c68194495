"""`/v1/explain`: the numbers of `koser.explain`, and its limits."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from fixtures.recognizers import WordsModel, mfcc_checkpoint, speech
from fixtures.servers import assert_problem, running, wait_until
from koser.audio.reading import Clip
from koser.inference.explanation import explain
from koser.inference.models import load_model
from koser.inference.recognizer import Recognizer
from koser.serving.gate import Keys

RATE = 16_000
KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network to which moments matter."""
    folder = tmp_path_factory.mktemp("network")
    mfcc_checkpoint().write(folder / "best_model_mfcc.pth")
    return load_model(folder)


@pytest.fixture(scope="module")
def served(network):
    with running(network) as server:
        yield server


@pytest.fixture(scope="module")
def recognizer(network):
    return Recognizer(network)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "call.wav"
    soundfile.write(path, speech(4.0, seed=2), RATE, "PCM_16")
    return path


def ask(server, content, query="", **options):
    headers = {"Content-Type": "audio/wav", **options.pop("headers", {})}
    return server.client.post(f"/v1/explain{query}", content=content, headers=headers, **options)


def assert_same(answer, expected, *, tolerance):
    """Equal to an `Explanation`."""
    assert answer["best"] == expected.prediction.best
    assert answer["probabilities"] == pytest.approx(
        dict(expected.prediction.probabilities), abs=tolerance
    )
    for key in ("start", "end", "evidence"):
        found = [cell[key] for cell in answer["cells"]]
        assert found == pytest.approx(
            [getattr(cell, key) for cell in expected.cells], abs=tolerance
        )


@pytest.mark.parametrize("part", [(None, None), (0.5, 3.25), (1.0, None), (None, 0.0313)])
def test_a_part_of_an_upload_is_explained_as_python_explains_it(
    served, recognizer, recording, part
):
    query = "&".join(
        f"{name}={value}" for name, value in zip(("start", "end"), part, strict=True) if value
    )
    response = served.client.post(
        f"/v1/explain?{query}", files={"file": ("상담.wav", recording.read_bytes())}
    )
    assert response.status_code == 200, response.text
    answer = response.json()
    expected = explain(recognizer, Clip(str(recording), *part))
    # The same waveforms in other batches: the last digits of float32 sums differ.
    assert_same(answer, expected, tolerance=1e-3)
    assert max(abs(cell.evidence) for cell in expected.cells) > 0.05, "nothing to compare"
    assert answer["start"] == (part[0] or 0.0)
    assert answer["duration"] == expected.prediction.duration
    assert answer["words"] == []
    assert answer["peaks"] is None


def test_a_subset_of_labels_is_what_the_evidence_chooses_from(served, recognizer, recording):
    query = "?labels=neutral&labels=calm&threshold=0.99"
    answer = ask(served, recording.read_bytes(), query).json()
    kept = recognizer.configured(labels=["neutral", "calm"])
    assert_same(answer, explain(kept, recording), tolerance=1e-3)
    assert answer["share"] == pytest.approx(kept.predict_file(recording).share, abs=1e-6)
    assert 0 < answer["share"] < 1
    assert answer["label"] is None


def test_the_outline_is_the_parts(served, recording):
    answer = ask(served, recording.read_bytes(), "?start=1&end=2.5&peaks=30").json()
    waveform, _ = soundfile.read(recording, dtype="float32")
    pieces = np.abs(waveform[RATE : RATE * 5 // 2]).reshape(30, -1)
    assert answer["peaks"] == pytest.approx(pieces.max(axis=1), abs=1e-4)


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("start=4.5", "the file lasts 4.000000 s"),
        ("start=2&end=1", "segment from 2.0 to 1.0 s holds no samples"),
        ("end=4.1", "reaches beyond"),
        ("start=1&end=1.00001", "holds no samples"),
        ("end=inf", "reaches beyond"),
        ("start=-1", "start: Input should be greater than or equal to 0"),
        ("start=nan", "start"),
        ("end=now", "end: Input should be a valid number"),
        ("peaks=4001", "peaks"),
        ("labels=bored&labels=calm", "bored"),
    ],
)
def test_a_part_that_is_not_there_is_refused(served, recording, query, detail):
    assert_problem(ask(served, recording.read_bytes(), f"?{query}"), "invalid-request", detail)


def test_at_most_half_a_minute_is_explained_at_once(served, sound_file):
    content = sound_file(seconds=31.0, container="FLAC").read_bytes()
    assert_problem(ask(served, content), "audio-too-long", "lasts 31.0 s; up to 30 s")
    assert_problem(ask(served, content, "?start=0.5&end=30.6"), "audio-too-long", "/v1/timeline")
    assert ask(served, content, "?start=30.8").status_code == 200
    limit = served.client.get("/v1/model").json()["max_explain_seconds"]
    assert limit == 30


class Paced:
    """A model each of whose answers has to be let go; counts what it was asked for."""

    def __init__(self, service, *, seconds=0.0):
        self.seconds = seconds
        self.batches = []
        self.released = threading.Event()
        self._predict = service.model._predict
        service.model._predict = self

    def __call__(self, waveforms):
        self.batches.append([len(waveform) for waveform in waveforms])
        time.sleep(self.seconds)
        assert self.released.wait(30)
        return self._predict(waveforms)


@pytest.fixture
def serve_paced(serve):
    """Serve with a `Paced` model; returns what `serve` does, and a list that will hold it."""

    def start(*, seconds=0.0, is_held=False, **limits):
        models = []

        def prepare(service):
            models.append(Paced(service, seconds=seconds))
            if not is_held:
                models[0].released.set()

        return serve(prepare=prepare, **limits), models

    return start


def test_a_prediction_that_comes_meanwhile_waits_for_few_seconds_of_sound(
    serve_paced, recording, sound_file
):
    context, models = serve_paced(is_held=True)
    content = sound_file(seconds=0.3).read_bytes()
    with context as server, ThreadPoolExecutor(2) as pool:
        explained = pool.submit(ask, server, recording.read_bytes())
        wait_until(lambda: models[0].batches)
        predicted = pool.submit(server.predict, content)
        wait_until(lambda: server.service.model._clips)
        models[0].released.set()
        assert predicted.result().status_code == 200
        assert explained.result().status_code == 200
        batches = models[0].batches
        # The clip itself, and beside the prediction forty and more variants of it.
        assert sum(map(len, batches)) == 1 + 1 + 42
        assert max(sum(batch) for batch in batches) <= 16 * RATE
        (turn,) = [place for place, batch in enumerate(batches) if 4800 in batch]
        assert turn <= 2, batches


def test_an_explanation_that_takes_too_long_is_given_up(serve_paced, recording):
    context, models = serve_paced(seconds=0.05, explain_timeout=0.2)
    with context as server:
        assert_problem(
            ask(server, recording.read_bytes()), "model-timeout", "explanation took longer than 0.2"
        )
        n_batches = len(models[0].batches)
        assert n_batches < 11
        time.sleep(0.3)
        assert len(models[0].batches) == n_batches, "it went on for nobody"
        assert server.service.n_explanations == 0


def post_and_leave(server, path, content):
    """Send a request to its end; returns the connection."""
    link = socket.create_connection(server.address)
    link.sendall(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
        f"Content-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    return link


@pytest.mark.parametrize("path", ["/v1/explain", "/v1/timeline"])
def test_nothing_is_computed_for_a_client_that_has_left(serve_paced, tmp_path, caplog, path):
    seconds = 29.0 if path == "/v1/explain" else 200.0
    soundfile.write(tmp_path / "a.flac", speech(seconds, silence=0.1), RATE, "PCM_16")
    content = (tmp_path / "a.flac").read_bytes()
    context, models = serve_paced(seconds=0.4)
    with context as server:
        link = post_and_leave(server, path, content)
        wait_until(lambda: models[0].batches)
        link.close()
        wait_until(lambda: server.service.n_explanations + server.service.n_timelines == 0)
        n_batches = len(models[0].batches)
        time.sleep(0.3)
        assert len(models[0].batches) == n_batches
        assert n_batches <= 5  # of seven blocks at least, or of three hundred variants
        assert server.service.buffered._n_bytes == 0
        counted = server.client.get("/metrics").text
        assert f'koser_requests_total{{route="{path}",status="499"}} 1.0' in counted
        assert "internal-error" not in counted
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_few_explanations_are_made_at_once(serve_paced, recording):
    context, models = serve_paced(is_held=True, max_explanations=1)
    content = recording.read_bytes()
    with context as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, server, content)
        wait_until(lambda: models[0].batches)
        refused = ask(server, content)
        assert_problem(refused, "busy", "1 explanations are being handled")
        assert refused.headers["retry-after"] == "1"
        models[0].released.set()
        assert first.result().status_code == 200
        assert ask(server, content).status_code == 200


def test_a_key_is_needed(model, recording):
    content = recording.read_bytes()
    with running(model, keys=Keys([KEY])) as guarded:
        assert_problem(ask(guarded, content), "unauthorized", "X-API-Key")
        assert ask(guarded, content, "?end=0.2", headers={"X-API-Key": KEY}).status_code == 200


def test_openapi_describes_it(served):
    schema = served.client.get("/openapi.json").json()
    operation = schema["paths"]["/v1/explain"]["post"]
    assert {each["name"] for each in operation["parameters"]} == {
        "start", "end", "threshold", "labels", "peaks", "enrolment",
    }  # fmt: skip
    assert set(operation["requestBody"]["content"]) >= {"multipart/form-data", "audio/*"}
    assert {"401", "413", "422", "503", "504"} <= set(operation["responses"])
    properties = schema["components"]["schemas"]["ExplanationAnswer"]["properties"]
    assert {"best", "probabilities", "start", "cells", "words"} <= set(properties)


def test_a_model_that_reads_is_asked_word_by_word_and_hears_only_once(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(RATE, 0.5), RATE, "FLOAT")
    content = (tmp_path / "a.wav").read_bytes()
    reader = WordsModel()
    with running(reader) as server:
        reader.n_transcribed = 0  # it was asked once before it was ready
        with ThreadPoolExecutor(2) as pool:
            explained = pool.submit(ask, server, content)
            assert pool.submit(server.predict, content).result().json()["best"] == "angry"
            answer = explained.result().json()
        assert reader.n_transcribed == 2  # the explanation's, and the prediction's
    assert reader.threads == {"model"}
    expected = explain(Recognizer(WordsModel()), tmp_path / "a.wav")
    assert_same(answer, expected, tolerance=1e-9)
    assert answer["words"] == [
        {"text": text, "evidence": pytest.approx(worth, abs=1e-5)}
        for text, worth in [("정말", 0.5), ("화나", 2.0), ("좋아", -1.0), ("오늘", 0.0)]
    ]
