"""Sound in a store is the same sound, and its header costs a header."""

import numpy as np
import pytest
import soundfile

from fixtures.stores import CUT
from koser.audio.listing import audio_files, audio_urls
from koser.audio.reading import Clip, iter_blocks, load, load_clip, probe
from koser.errors import AudioError, AudioFetchError

RATE = 16_000
# Name, subtype, and whether the header is read alone.
KINDS = [
    ("a.wav", "PCM_16", True),
    ("b.wav", "PCM_24", True),
    ("c.wav", "FLOAT", True),
    ("d.wav", "ULAW", True),
    ("e.wav", "MS_ADPCM", False),
    ("f.flac", "PCM_16", True),
    ("g.ogg", "VORBIS", False),
    ("h.mp3", "MPEG_LAYER_III", False),
    ("i.aiff", "PCM_16", False),
]


def sound(seconds=12.0, n_channels=2, seed=0):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal((round(seconds * RATE), n_channels))).astype(np.float32)


@pytest.mark.parametrize(("name", "subtype", "is_header"), KINDS)
def test_a_remote_file_is_probed_and_loaded_as_a_local_one(
    bucket, tmp_path, name, subtype, is_header
):
    path = tmp_path / name
    soundfile.write(path, sound(), RATE, subtype)
    url = bucket.put(f"감정/{name}", path.read_bytes())
    remote, local = probe(url), probe(path)
    assert remote.path == url
    assert (remote.n_samples, remote.n_channels, remote.subtype, remote.container) == (
        *(local.n_samples, local.n_channels, local.subtype, local.container),
    )
    n_bytes = sum(each.n_bytes for each in bucket.network.requests)
    assert (n_bytes <= 2**16) == is_header
    for part in ({}, {"start": 0.5, "end": 1.25, "channel": 1}):
        np.testing.assert_array_equal(load(url, **part), load(path, **part))
    blocks = list(iter_blocks(url, seconds=0.7))
    np.testing.assert_array_equal(np.concatenate(blocks), load(path))


def chunk(name, content):
    return name + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) % 2)


@pytest.mark.parametrize("size", [10, 70_000])
@pytest.mark.parametrize("is_before", [True, False])
def test_chunks_around_the_sound_change_nothing(bucket, tmp_path, size, is_before):
    path = tmp_path / "a.wav"
    soundfile.write(path, sound(), RATE, "PCM_16")
    content = path.read_bytes()
    header, data = content[12:36], content[36:]
    extra = chunk(b"LIST", b"INFO" + chunk(b"ICMT", b"x" * size))
    body = b"WAVE" + header + (extra + data if is_before else data + extra)
    path.write_bytes(chunk(b"RIFF", body))
    remote, local = probe(bucket.put("a.wav", path.read_bytes())), probe(path)
    assert (remote.n_samples, remote.duration) == (local.n_samples, local.duration)


def test_an_object_that_is_a_truncated_file_is_refused_as_such_a_file_is(bucket, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, sound(), RATE, "PCM_16")
    path.write_bytes(path.read_bytes()[:100_000])
    url = bucket.put("a.wav", path.read_bytes())
    for read in (probe, load):
        with pytest.raises(AudioError) as local:
            read(path)
        with pytest.raises(AudioError) as remote:
            read(url)
        assert str(remote.value) == str(local.value).replace(str(path), url)


def test_a_body_that_is_cut_off_is_no_shorter_sound(make_bucket, tmp_path):
    bucket = make_bucket(always={"cut": CUT})
    soundfile.write(tmp_path / "a.ogg", sound(), RATE)  # of which a part would decode
    url = bucket.put("cut.ogg", (tmp_path / "a.ogg").read_bytes())
    for read in (probe, load):
        with pytest.raises(AudioFetchError, match="could not be read in 8 attempts"):
            read(url)


def test_what_is_not_there_is_an_audio_error_with_its_url(bucket):
    for read in (probe, load, lambda url: load_clip(Clip(url)), lambda url: next(iter_blocks(url))):
        with pytest.raises(AudioError, match=f"No object at '{bucket.url('none.wav')}'"):
            read(bucket.url("none.wav"))


def test_a_url_that_pathlib_has_squeezed_is_told(tmp_path):
    from pathlib import Path

    with pytest.raises(AudioError, match=r"Give the URL as a str: 's3://calls/a\.wav'"):
        load(Path("s3://calls/a.wav"))


def test_a_prefix_is_listed_as_a_folder_is(bucket, tmp_path):
    names = [
        "b/1.wav",
        "b.x/1.WAV",
        "b/가.flac",
        "a.mp3",
        "b/note.txt",
        ".hidden/1.wav",
        "b/._1.wav",
    ]
    for name in names:
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).touch()
    root = bucket.put_folder(tmp_path / "p", "p")
    local = [path.relative_to(tmp_path / "p").as_posix() for path in audio_files(tmp_path / "p")]
    assert len(local) == 4
    for spelling in (root, f"{root}/"):
        assert audio_urls(spelling) == [f"{root}/{name}" for name in local]
