from concurrent.futures import ThreadPoolExecutor

import pytest

from fixtures.servers import WAYS

FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
    ("AIFF", "PCM_16"),
]


def expected(recognizer, path):
    return recognizer.predict_file(path)


def assert_same(answer, prediction, *, tolerance):
    assert answer["label"] == prediction.label
    assert answer["duration"] == pytest.approx(prediction.duration)
    assert list(answer["probabilities"]) == list(prediction.probabilities)
    assert answer["probabilities"] == pytest.approx(dict(prediction.probabilities), abs=tolerance)


@pytest.mark.parametrize(("container", "subtype"), FORMATS)
@pytest.mark.parametrize("way", WAYS)
def test_an_upload_of_any_format_and_way_says_what_the_file_says(
    served, recognizer, sound_file, container, subtype, way
):
    path = sound_file(container=container, subtype=subtype, rate=48_000, n_channels=2)
    response = served.upload(path.read_bytes(), way)
    assert response.status_code == 200
    # The same waveform through the same network, alone in both.
    assert_same(response.json(), expected(recognizer, path), tolerance=1e-7)


def test_requests_computed_together_say_what_they_say_alone(served, recognizer, sound_file):
    paths = [sound_file(seconds=0.1 + 0.07 * (i % 11), seed=i) for i in range(40)]
    with ThreadPoolExecutor(20) as pool:
        responses = list(pool.map(lambda path: served.predict(path.read_bytes()), paths))
    counted = served.client.get("/metrics").text
    n_batches = float(counted.split("koser_batch_clips_count ")[1].split()[0])
    n_clips = float(counted.split("koser_batch_clips_sum ")[1].split()[0])
    assert n_clips > n_batches, "nothing was computed together"
    for path, response in zip(paths, responses, strict=True):
        # float32 sums of padded batches: their last digits differ
        assert_same(response.json(), expected(recognizer, path), tolerance=1e-5)


def test_a_threshold_makes_it_abstain(served, sound_file):
    content = sound_file().read_bytes()
    believed = served.predict(content).json()
    abstained = served.predict(content, params={"threshold": 0.999}).json()
    assert believed["label"] == believed["best"] == abstained["best"]
    assert abstained["label"] is None
    assert abstained["threshold"] == 0.999
    assert abstained["probabilities"] == pytest.approx(believed["probabilities"])


def test_a_subset_of_labels_is_brought_to_one(served, sound_file):
    content = sound_file().read_bytes()
    whole = served.predict(content).json()["probabilities"]
    answer = served.predict(content, params={"labels": ["angry", "calm"]}).json()
    share = whole["angry"] + whole["calm"]
    assert answer["share"] == pytest.approx(share)
    assert answer["probabilities"] == pytest.approx(
        {label: whole[label] / share for label in ("angry", "calm")}
    )


def test_the_model_is_described(served):
    answer = served.client.get("/v1/model").json()
    assert answer["labels"] == ["angry", "neutral", "calm"]
    assert answer["sampling_rate"] == 16_000
    assert answer["max_upload_bytes"] == served.service.config.max_upload_bytes


def test_every_answer_has_an_id_and_keeps_the_browser_on_this_server(served):
    ids = set()
    for path in ("/healthz", "/v1/model", "/nothing"):
        headers = served.client.get(path).headers
        ids.add(headers["x-request-id"])
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    assert len(ids) == 3


def test_sound_and_requests_are_counted(served, sound_file):
    def counted(name):
        line = next(
            line
            for line in served.client.get("/metrics").text.splitlines()
            if line.startswith(name)
        )
        return float(line.split()[-1])

    served.predict(sound_file(seconds=0.5).read_bytes())
    sound = counted('koser_audio_seconds_total{route="/v1/predict"}')
    requests = counted('koser_requests_total{route="/v1/predict",status="200"}')
    for _ in range(3):
        served.predict(sound_file(seconds=0.5).read_bytes())
    assert counted('koser_audio_seconds_total{route="/v1/predict"}') == pytest.approx(sound + 1.5)
    assert counted('koser_requests_total{route="/v1/predict",status="200"}') == requests + 3
    assert counted("koser_buffered_bytes") == 0
    assert counted("koser_waiting_clips") == 0
