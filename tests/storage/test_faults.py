"""What is wrong with a store is told in one line, with the way out."""

import os
import random
import subprocess
import sys

import pytest

from fixtures.stores import BUSY, ENVIRONMENT, RESET
from koser.errors import MissingObjectError, ObjectError, StorageError
from koser.storage.objects import fetch, list_objects, look_up
from koser.storage.retrying import Retries


def refusal(call, kind):
    with pytest.raises(StorageError) as caught:
        call()
    assert type(caught.value) is kind, caught.value
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_missing_object_is_asked_for_once(bucket):
    url = bucket.url("감정/none.wav")
    message = refusal(lambda: fetch(url), MissingObjectError)
    assert message.startswith(f"No object at '{url}'. Check bucket and name")
    assert bucket.network.count("HEAD") == 1


def test_a_missing_bucket_stops_everything(bucket):
    for call in (look_up, list_objects):
        message = refusal(
            lambda call=call: call("s3://no-such-bucket-of-koser/a.wav"), StorageError
        )
        assert "there is no such bucket. Check its name, and AWS_ENDPOINT_URL" in message


@pytest.mark.parametrize(
    ("status", "code", "kind", "way_out"),
    [
        (403, "AccessDenied", ObjectError, "Ask its owner for the permission (s3:GetObject"),
        (403, "InvalidAccessKeyId", StorageError, "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"),
        (403, "SignatureDoesNotMatch", StorageError, "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"),
        (400, "ExpiredToken", StorageError, "AWS_SESSION_TOKEN"),
        (301, "PermanentRedirect", StorageError, "Set AWS_DEFAULT_REGION to that"),
        (400, "InvalidRequest", ObjectError, "cannot be read"),
    ],
)
def test_what_a_service_refuses_is_not_asked_for_again(make_bucket, status, code, kind, way_out):
    bucket = make_bucket(answers={"refused": (status, code)})
    url = bucket.put("refused.wav", b"sound")
    message = refusal(lambda: fetch(url), kind)
    assert f"'{url}'" in message
    assert way_out in message
    # HEAD, a GET whose answer has the body in which the reason stands, and botocore's look for
    # the bucket's region after either; not eight of them.
    assert len(bucket.network.requests) <= 6


@pytest.mark.parametrize("code", ["SlowDown", "InternalError"])
def test_a_busy_store_is_asked_eight_times(make_bucket, code):
    bucket = make_bucket(answers={"busy": (503 if code == "SlowDown" else 500, code)})
    url = bucket.put("busy.wav", b"sound")
    message = refusal(lambda: fetch(url), ObjectError)
    assert message.startswith(f"'{url}' could not be read in 8 attempts: the store or the network")
    assert bucket.network.count("HEAD") == 8


@pytest.mark.parametrize("kind", [BUSY, RESET])
def test_one_poisoned_object_says_nothing_of_the_others(make_bucket, kind):
    bucket = make_bucket(always={"poisoned": kind})
    poisoned, sound = bucket.put("poisoned.wav", b"a"), bucket.put("sound.wav", b"b")
    refusal(lambda: fetch(poisoned), ObjectError)
    assert look_up(sound).size == 1


def test_a_server_that_is_not_there_stops_everything(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # "discard": nobody listens
    message = refusal(lambda: look_up("s3://bucket-of-nobody/a.wav"), StorageError)
    assert "in 8 attempts: the store's server cannot be reached" in message


@pytest.mark.parametrize(
    ("code", "url", "line"),
    [
        ("", "s3://some-bucket/a.wav", "Set the credentials of the store: for s3:// AWS_ACCESS_"),
        ("sys.modules['s3fs'] = None; ", "s3://b/a.wav", "Run: pip install 'koser[cloud]'"),
        ("sys.modules['fsspec'] = None; ", "s3://b/a.wav", "Run: pip install 'koser[cloud]'"),
        ("sys.modules['gcsfs'] = None; ", "gs://b/a.wav", "Run: pip install gcsfs"),
        ("", "nosuch://b/a.wav", "nosuch"),
    ],
)
def test_what_is_not_set_up_is_told_by_the_command(bucket, tmp_path, code, url, line):
    """In a process of its own: no credentials, no driver."""
    environment = {k: v for k, v in os.environ.items() if k not in list(ENVIRONMENT)[:2]}
    program = (
        f"import sys; {code}from koser.cli import main; sys.argv[1:] = ['info', '{url}']; main()"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 1
    (message,) = found.stderr.splitlines()
    assert message.startswith(f"Error: '{url}'")
    assert line in message


def test_waiting_grows_has_a_bound_and_is_drawn():
    retries = Retries()
    bounds = [min(5.0, 0.1 * 2**k) for k in range(7)]
    for n_failed, bound in enumerate(bounds, start=1):
        random.seed(n_failed)
        waits = [retries.wait(n_failed) for _ in range(2_000)]
        assert 0 <= min(waits) < 0.01 * bound
        assert 0.99 * bound < max(waits) <= bound
    assert sum(bounds) < 12  # seconds, at the very most, for one object
