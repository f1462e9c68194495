"""What an earlier call of `get`, or someone else, has left where a corpus is to go."""

import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from fixtures.aihub263 import wav_bytes
from fixtures.downloads import zip_bytes
from fixtures.releases import FILES, everything_in, yes
from koser.data import corpora
from koser.data.download import Expected
from koser.data.releases import SOURCE_FILE, get
from koser.errors import DownloadError

KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from koser.data.download import Expected
from koser.data.releases import RELEASES, get

def progress(done, total):
    if list(Path().glob(".r.*partial")):  # it unpacks
        os.kill(os.getpid(), signal.SIGKILL)

url, size, digest = sys.argv[1:]
expected = Expected(int(size), digest)
release = replace(RELEASES["ravdess"], url=url, n_recordings=6, expected=expected)
get(release, Path("r"), accept=lambda _: True, progress=progress)
"""


@pytest.fixture
def killed(release, tmp_path):
    """A folder in which a call was killed while it unpacked."""
    expected = (str(release.expected.size), release.expected.digest)
    command = [sys.executable, "-c", KILLED, release.url, *expected]
    ended = subprocess.run(command, cwd=tmp_path, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert {"r.zip", ".r.partial"} < set(everything_in(tmp_path))
    return tmp_path


def test_what_a_killed_call_has_fetched_is_used_and_what_it_unpacked_cleared_away(
    release, killed, origin
):
    acquired = get(release, killed / "r", accept=yes)
    assert len(origin.requests) == 1
    assert acquired.proof == f"checked against {release.expected.digest}"
    assert [path.name for path in killed.iterdir()] == ["r"]
    assert len(corpora.prepare("ravdess", killed / "r")) == len(FILES)


@pytest.mark.parametrize("has_digest", [True, False])
def test_an_archive_that_was_damaged_meanwhile_is_fetched_again(
    release, killed, origin, caplog, has_digest
):
    content = bytearray(origin.content)
    content[200] ^= 0xFF  # in the first recording
    (killed / "r.zip").write_bytes(content)
    asked = release if has_digest else replace(release, expected=Expected())
    get(asked, killed / "r", accept=yes)
    assert len(origin.requests) == 2
    assert caplog.messages == [f"'{killed / 'r.zip'}' is damaged. It is removed and fetched again."]
    assert [path.name for path in killed.iterdir()] == ["r"]


def test_an_archive_of_another_address_is_not_taken_for_this_one(release, killed, origin):
    moved = replace(release, url=f"{release.url}?mirror")
    get(moved, killed / "r", accept=yes)
    assert len(origin.requests) == 2
    assert [path.name for path in killed.iterdir()] == ["r"]


def test_an_archive_that_someone_put_beside_the_folder_is_checked_used_and_stays(
    release, tmp_path, origin
):
    archive = tmp_path / "r.zip"
    archive.write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"'.*r\.zip' is not the file .* move this one away"):
        get(release, tmp_path / "r", accept=yes)
    assert archive.read_bytes() == b"mine"
    archive.write_bytes(origin.content)
    get(release, tmp_path / "r", accept=yes)
    assert origin.requests == []
    assert archive.read_bytes() == origin.content
    assert f"Fetched from: {archive} (" in (tmp_path / "r" / SOURCE_FILE).read_text("utf-8")


def test_a_download_that_is_another_corpus_is_not_kept_for_the_next_call(release, tmp_path, origin):
    published, origin.content = origin.content, zip_bytes({"wav/03a01Fa.wav": wav_bytes(1)})
    with pytest.raises(DownloadError, match="holds no ravdess, but emodb"):
        get(replace(release, expected=Expected()), tmp_path / "r", accept=yes)
    assert everything_in(tmp_path) == []
    origin.content = published
    get(release, tmp_path / "r", accept=yes)
