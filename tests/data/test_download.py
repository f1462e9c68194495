"""Fetching from a server on loopback: whole, in pieces, and on its bad days."""

import hashlib
import shutil
import socket

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.downloads import Origin, serving
from koser.data import download
from koser.data.download import Expected, came_from, fetch, remove_fetched
from koser.errors import DownloadError

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


@pytest.fixture
def origin():
    with serving(Origin(CONTENT)) as served:
        yield served


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "corpus.zip"


def fetch_broken(origin, path, n_bytes, **options):
    """A fetch that the server ends after `n_bytes`."""
    origin.break_after.append(n_bytes)
    with pytest.raises(DownloadError) as caught:
        fetch(origin.url, path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(path):
    return sorted(each.name for each in path.parent.iterdir())


def test_a_file_arrives_whole_and_beside_it_where_it_came_from(origin, path):
    seen = []
    expected = Expected(len(CONTENT), MD5)
    fetch(origin.url, path, expected=expected, progress=lambda *each: seen.append(each))
    assert path.read_bytes() == CONTENT
    assert names(path) == ["corpus.zip", "corpus.zip.part.json"]
    assert came_from(path) == origin.url
    remove_fetched(path)
    assert (names(path), came_from(path)) == ([], None)
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_what_came_before_a_break_is_kept_and_only_the_rest_is_asked_for(origin, path):
    line = fetch_broken(origin, path, 123_456)
    assert "123,456 bytes are kept: run the same again to go on" in line
    assert not path.exists()
    path.write_bytes(b"put there by someone")
    assert came_from(path) is None
    fetch(origin.url, path, expected=Expected(len(CONTENT), MD5))
    assert path.read_bytes() == CONTENT
    assert origin.requests[1]["Range"] == "bytes=123456-"
    assert origin.n_sent == len(CONTENT)  # nothing twice


@given(cuts=st.lists(st.integers(0, 90_000), max_size=4))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_wherever_it_breaks_off_the_file_is_the_same(tmp_path_factory, cuts):
    path = tmp_path_factory.mktemp("get") / "corpus.zip"
    with serving(Origin(CONTENT)) as origin:
        for cut in cuts:
            fetch_broken(origin, path, cut)
        fetch(origin.url, path, expected=Expected(digest=MD5))
        assert path.read_bytes() == CONTENT
        assert origin.n_sent == len(CONTENT)


def test_a_file_that_changed_meanwhile_is_begun_anew_never_mixed(origin, path):
    fetch_broken(origin, path, 100_000)
    origin.content, origin.etag = CONTENT[::-1], '"two"'
    fetch(origin.url, path)
    assert path.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("change", [{"has_ranges": False}, {"etag": None}, {"etag": 'W/"one"'}])
def test_a_server_that_cannot_go_on_begins_anew(origin, path, change):
    for name, value in change.items():
        setattr(origin, name, value)
    fetch_broken(origin, path, 100_000)
    fetch(origin.url, path)
    assert path.read_bytes() == CONTENT
    assert origin.n_sent == len(CONTENT) + 100_000


def test_another_address_does_not_go_on_with_what_came_from_this_one(origin, path):
    fetch_broken(origin, path, 100_000)
    fetch(origin.url + "?mirror", path)
    assert "Range" not in origin.requests[1]
    assert path.read_bytes() == CONTENT


def test_a_part_that_was_complete_when_koser_died_is_not_fetched_again(origin, path):
    fetch_broken(origin, path, 100_000)
    shutil.copy(path.with_name("corpus.zip.part"), path.with_name("first"))
    path.with_name("corpus.zip.part").write_bytes(CONTENT)
    fetch(origin.url, path, expected=Expected(digest=MD5))
    assert path.read_bytes() == CONTENT
    assert origin.n_sent == 100_000


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (Expected(size=299_999), "size is 300,000 bytes, not 299,999 bytes"),
        (Expected(digest="md5:" + "0" * 32), f"md5 is {MD5[4:]}, not 0000"),
        (Expected(digest="sha256:" + "0" * 64), "sha256 is "),
    ],
)
def test_a_file_that_is_not_the_published_one_is_refused_and_deleted(
    origin, path, expected, message
):
    with pytest.raises(DownloadError, match=message):
        fetch(origin.url, path, expected=expected)
    assert "corpus.zip" not in names(path)
    assert "corpus.zip.part" not in names(path)
    fetch(origin.url, path, expected=Expected(digest=MD5))  # and the next begins anew
    assert path.read_bytes() == CONTENT


def test_a_body_of_unknown_length_is_fetched_too(origin, path):
    origin.has_length = False
    seen = []
    fetch(origin.url, path, progress=lambda *each: seen.append(each))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), None)


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_a_refusal_of_the_server_is_one_line_with_its_number(origin, path, status):
    origin.status = status
    with pytest.raises(DownloadError, match=rf"the server answers {status}.*--from FILE"):
        fetch(origin.url, path)
    assert not path.exists()


def test_without_a_network_it_says_what_to_do_instead(path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/x.zip"
    with pytest.raises(DownloadError, match=r"refused.*fetch it elsewhere and give it with --from"):
        fetch(url, path)


def test_a_silent_server_is_given_up(monkeypatch, path):
    monkeypatch.setattr(download, "_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.zip"
        with pytest.raises(DownloadError, match="timed out"):
            fetch(url, path)


@pytest.mark.parametrize("url", ["file:///etc/hosts", "ftp://127.0.0.1/x.zip", "corpus.zip"])
def test_only_http_is_fetched(path, url):
    with pytest.raises(DownloadError, match="is no address to fetch from"):
        fetch(url, path)


def test_a_disk_that_is_too_small_is_told_before_it_is_full(origin, path, monkeypatch):
    usage = shutil.disk_usage(path.anchor)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(DownloadError, match=r"0\.0 GB free, and 0\.0 GB are to come"):
        fetch(origin.url, path)
    assert origin.n_sent <= len(CONTENT)
    assert not path.exists()
