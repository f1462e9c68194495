"""A model of `koser regress` behind HTTP: the values of its command, and nothing of labels."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fixtures.servers import WAYS, assert_problem, running
from koser.errors import ConfigError
from koser.serving.gate import Keys
from koser.serving.settings import ServeConfig
from koser.serving.values import ValueService


def told(regressor, path):
    """What `koser predict` says of a file in JSON, but for which file it is."""
    (values,) = regressor.predict_files([path])
    return {name: each for name, each in values.to_dict().items() if name not in ("path", "start")}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("container", "subtype"), [("WAV", "PCM_16"), ("OGG", "OPUS")])
def test_an_upload_has_the_values_of_its_file(
    served_values, regressor, sound_file, container, subtype, way
):
    path = sound_file(container=container, subtype=subtype, rate=48_000, n_channels=2)
    response = served_values.upload(path.read_bytes(), way)
    assert response.status_code == 200
    assert sorted(response.json()) == ["arousal", "duration", "valence"]
    assert response.json() == pytest.approx(told(regressor, path), abs=1e-5)


def test_requests_computed_together_have_the_values_they_have_alone(
    served_values, regressor, sound_file
):
    paths = [sound_file(seconds=0.3 + 0.1 * (seed % 9), seed=seed) for seed in range(40)]
    with ThreadPoolExecutor(40) as pool:
        answers = pool.map(lambda path: served_values.predict(path.read_bytes()).json(), paths)
    for path, answer in zip(paths, answers, strict=True):
        assert answer == pytest.approx(told(regressor, path), abs=1e-5)


def test_options_of_labels_are_refused_instead_of_ignored(served_values, served, sound_file):
    content = sound_file().read_bytes()
    described = served.client.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]
    names = [each["name"] for each in described["parameters"]]
    assert "labels" in names
    for name in names:
        response = served_values.client.post(
            f"/v1/predict?{name}=0.5", content=content, headers={"Content-Type": "audio/wav"}
        )
        assert_problem(response, "invalid-request", f"{name}: for models of labels")
    with pytest.raises(ConfigError, match=r"threshold = 0\.5: for models of labels"):
        ValueService(served_values.service.regressor, ServeConfig(threshold=0.5))


def test_it_describes_what_it_answers_and_has_no_path_for_anything_else(served_values):
    schema = served_values.client.get("/openapi.json").json()
    assert "Valence and arousal" in schema["info"]["description"]
    assert set(schema["paths"]) == {
        "/v1/predict", "/v1/model", "/healthz", "/readyz", "/metrics", "/problems/{kind}",
    }  # fmt: skip
    answer = schema["components"]["schemas"]["ValuesAnswer"]
    assert answer["required"] == list(answer["properties"]) == ["valence", "arousal", "duration"]
    assert served_values.client.get("/v1/model").json() == {
        "dimensions": ["valence", "arousal"],
        "sampling_rate": 16_000,
        "max_predict_seconds": 120.0,
        "max_upload_bytes": 64 * 2**20,
    }
    for path in ("/v1/timeline", "/v1/explain", "/v1/enrolments"):
        assert_problem(served_values.client.post(path), "not-found", "/openapi.json")
    assert_problem(served_values.client.get("/"), "not-found", "/openapi.json")
    with pytest.raises(InvalidStatus), connect(f"ws{served_values.url[4:]}/v1/stream"):
        pass


def test_limits_keys_and_counters_are_those_of_every_server(regressor, sound_file):
    keys = Keys(["0123456789abcdef"])
    content = sound_file(seconds=0.5).read_bytes()
    with running(regressor, service=ValueService, keys=keys, max_predict_seconds=1.0) as server:
        assert_problem(server.predict(content), "unauthorized", "")
        server.client.headers["X-API-Key"] = "0123456789abcdef"
        assert_problem(server.predict(b"no sound" * 99), "audio-unreadable", "")
        too_long = sound_file(seconds=1.1).read_bytes()
        assert_problem(server.predict(too_long), "audio-too-long", "lasts 1.1 s")
        for _ in range(3):
            assert server.predict(content).status_code == 200
        lines = server.client.get("/metrics").text.splitlines()
        assert 'koser_audio_seconds_total{route="/v1/predict"} 1.5' in lines
        assert 'koser_requests_total{route="/v1/predict",status="200"} 3.0' in lines
        assert server.service.buffered._n_bytes == 0
