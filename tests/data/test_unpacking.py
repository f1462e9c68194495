"""Archives that are no friends."""

import stat
import zipfile

import pytest

from fixtures.downloads import zip_bytes
from koser.data.unpacking import is_sound, unpack
from koser.errors import DownloadError


@pytest.mark.parametrize(
    "name", ["../evil.wav", "a/../../evil.wav", "/evil.wav", "..\\evil.wav", "C:/evil.wav", "a/.."]
)
def test_a_member_that_would_leave_the_folder_is_refused_before_anything_is_written(tmp_path, name):
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_bytes({"good.wav": b"1", name: b"2"}))
    folder = tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)
    with pytest.raises(DownloadError, match="outside its folder"):
        unpack(archive, folder)
    assert {path.name for path in tmp_path.rglob("*")} == {"a.zip", "deep", "folder"}


def test_a_link_in_an_archive_is_refused(tmp_path):
    archive = tmp_path / "a.zip"
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr(link, "/etc")
    with pytest.raises(DownloadError, match=r"'link' \(a link\) outside its folder"):
        unpack(archive, tmp_path)


@pytest.mark.parametrize("place", [0.3, 0.5, 0.9])
def test_a_flipped_byte_anywhere_in_an_archive_is_noticed(tmp_path, place):
    content = bytearray(zip_bytes({"a.wav": bytes(range(256)) * 400}))
    content[int(len(content) * place)] ^= 0xFF
    archive = tmp_path / "a.zip"
    archive.write_bytes(content)
    assert not is_sound(archive)
    (tmp_path / "out").mkdir()
    with pytest.raises(DownloadError, match=r"is no sound zip file|outside its folder"):
        unpack(archive, tmp_path / "out")
