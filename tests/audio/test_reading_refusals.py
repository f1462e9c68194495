from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from koser.audio import reading
from koser.audio.reading import load, probe
from koser.errors import AudioError

RATE = 16_000


def tone(n_seconds=1.0):
    return 0.5 * np.sin(2 * np.pi * 220 * np.arange(int(n_seconds * RATE)) / RATE)


def write(path, container="WAV", subtype=None, waveform=None):
    soundfile.write(path, tone() if waveform is None else waveform, RATE, subtype, format=container)
    return path


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def refuse_both(path, match):
    for read in (probe, load):
        with pytest.raises(AudioError, match=match) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    refuse_both(tmp_path / "none.wav", r"No audio file at '.*none\.wav'\. Check the path")


def test_a_folder_is_refused(tmp_path):
    refuse_both(tmp_path, r"is a folder\. Give one of the audio files in it")


def test_a_named_pipe_is_refused_without_waiting_for_its_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    refuse_both(tmp_path / "pipe.wav", r"is no regular file\. Save the sound to a file first")


def test_a_path_through_a_file_is_refused(tmp_path):
    refuse_both(write(tmp_path / "a.wav") / "b.wav", r"Cannot open '.*b\.wav': Not a directory")


def test_a_path_with_a_null_character_is_refused():
    refuse_both("a\0.wav", r"'a\\x00\.wav' is no path")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.wav").touch()
    refuse_both(tmp_path / "a.wav", r"is empty \(0 bytes\)\. Copy or record it again")


@pytest.mark.parametrize("container", ["WAV", "RF64", "AIFF"])
def test_a_header_without_samples_is_refused(tmp_path, container):
    path = write(tmp_path / "a", container, waveform=np.empty(0))
    refuse_both(path, r"holds no samples: a \w+ header and nothing after it")


@pytest.mark.parametrize("padding", [b"", b"\0", b"\0id3 \x02\0\0\0xy"])
def test_a_wav_of_tags_without_samples_is_refused(tmp_path, padding):
    path = write(tmp_path / "a.wav", waveform=np.empty(0))
    path.write_bytes(path.read_bytes() + b"LIST\x0b\0\0\0INFOthe tag" + padding)
    refuse_both(path, "holds no samples")


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("share", [0.999, 0.5, 0.1])
def test_a_truncated_wav_is_refused_by_probe_already(tmp_path, container, share):
    path = cut(write(tmp_path / "a.wav", container, "PCM_16"), share)
    refuse_both(path, r"is truncated: its header promises 32000 bytes of sound, the file holds \d+")


def test_a_truncated_big_endian_wav_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), RATE, "PCM_16", "BIG", "WAV")
    assert probe(tmp_path / "a.wav").n_samples == RATE
    refuse_both(cut(tmp_path / "a.wav", 0.5), "promises 32000 bytes of sound")


def test_a_wav_that_ends_in_its_header_is_refused(tmp_path):
    path = write(tmp_path / "a.wav")
    path.write_bytes(path.read_bytes()[:30])
    refuse_both(path, "a WAV of 30 bytes that ends before its data chunk")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("share", [0.97, 0.5, 0.01])
def test_a_truncated_ogg_is_refused_by_probe_already(tmp_path, subtype, share):
    path = cut(write(tmp_path / "a.ogg", "OGG", subtype), share)
    refuse_both(path, r"is truncated: the last Ogg page .* ffmpeg -i .*a\.ogg")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_that_ends_between_two_pages_is_refused(tmp_path, subtype):
    path = write(tmp_path / "a.ogg", "OGG", subtype, tone(10))
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"OggS")])
    refuse_both(path, "the last Ogg page of its .* does not end the stream")


@pytest.mark.parametrize("share", [0.95, 0.5])
def test_a_truncated_flac_is_refused_by_load(tmp_path, share):
    path = cut(write(tmp_path / "a.flac", "FLAC", waveform=tone(5)), share)
    assert probe(path).duration == 5
    with pytest.raises(AudioError, match=r"beyond \d\.\d+ of its 5\.000 s: truncated or damaged"):
        load(path)


@pytest.mark.parametrize("share", [0.95, 0.5])
def test_a_truncated_mp3_is_refused_by_load(tmp_path, share):
    path = cut(write(tmp_path / "a.mp3", "MP3", waveform=tone(5)), share)
    with pytest.raises(AudioError, match=r"its header promises 5\.000 s, the file ends at [1-4]\."):
        load(path)


def test_a_flac_of_unknown_length_is_refused(tmp_path):
    path = write(tmp_path / "a.flac", "FLAC")
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
    content[22:26] = bytes(4)
    path.write_bytes(content)
    refuse_both(path, r"does not say how long it is.*ffmpeg -i .*a\.flac")


def test_a_header_that_promises_more_than_memory_holds_is_refused_by_load(tmp_path):
    path = write(tmp_path / "a.flac", "FLAC")
    content = bytearray(path.read_bytes())
    content[18:26] = (1 << 44 | 15 << 36 | 2**36 - 1).to_bytes(8, "big")  # 1 Hz, mono, 16 bit
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"promises 68719476735 s of sound, which do not fit"):
        load(path)


def test_a_variable_rate_mp3_without_a_xing_frame_is_refused(tmp_path):
    noise = 0.3 * np.random.default_rng(0).standard_normal(RATE)
    waveform = np.concatenate([noise, np.zeros(5 * RATE)])
    path = tmp_path / "a.mp3"
    soundfile.write(path, waveform, RATE, bitrate_mode="VARIABLE", compression_level=0.5)
    content = path.read_bytes()
    path.write_bytes(content[content.index(content[:2], 4) :])
    assert soundfile.info(path).frames < 3 * RATE  # what libsndfile would have returned of 6 s
    refuse_both(path, r"variable-rate MP3 without a Xing frame.*ffmpeg -i")


def test_an_mp3_without_a_xing_frame_that_ends_in_a_frame_is_refused(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(), RATE, bitrate_mode="CONSTANT", compression_level=0.5)
    content = path.read_bytes()
    path.write_bytes(content[content.index(content[:2], 4) : -10])
    refuse_both(path, r"is truncated or damaged: byte \d+ of \d+ is not where an MP3 frame ends")


@pytest.mark.parametrize("content", [b"not sound at all\n" * 200, bytes(range(256)) * 40])
def test_what_is_not_audio_is_refused(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    refuse_both(tmp_path / "a.wav", r"is not audio that libsndfile can read \(.+\).*ffmpeg -i")


@pytest.mark.parametrize(
    ("magic", "name"),
    [
        (b"\0\0\0\x20ftypM4A ", "MP4/M4A"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81", "WebM/Matroska"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA"),
        (b"#!AMR\n", "AMR"),
    ],
)
def test_a_container_of_others_is_named_with_the_command_that_converts_it(
    tmp_path, monkeypatch, magic, name
):
    monkeypatch.setattr(reading, "find_spec", lambda name: None)  # PyAV is not installed
    path = tmp_path / "my call.m4a"
    path.write_bytes(magic + bytes(2_000))
    refuse_both(path, rf"is {name}, which libsndfile cannot read.*ffmpeg -i '.*my call\.m4a' ")
    with pytest.raises(AudioError, match=r"-ac 1 -ar 16000 '.*my call_16k\.wav'$"):
        probe(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [0, 40_000])
def test_a_sample_that_is_no_number_is_refused_with_its_time(tmp_path, value, index):
    stereo = np.zeros((48_000, 2), np.float32)
    stereo[index, 1] = stereo[index + 1, 0] = value
    path = write(tmp_path / "a.wav", subtype="FLOAT", waveform=stereo)
    time = rf"{index / RATE:.6f} s \(sample {index}\)"
    with pytest.raises(AudioError, match=rf"holds {value} at {time}"):
        load(path)
    with pytest.raises(AudioError, match=time):
        load(path, start=max(0, index - 5) / RATE)


def test_a_sample_that_is_absurdly_large_is_refused_and_integers_as_floats_are_not(tmp_path):
    waveform = tone()
    waveform[800] = 3e38
    path = write(tmp_path / "a.wav", subtype="FLOAT", waveform=waveform)
    with pytest.raises(AudioError, match=r"holds 3e\+38 at 0\.050000 s"):
        load(path)
    path = write(tmp_path / "a.wav", subtype="FLOAT", waveform=tone() * 2.0**31)
    assert np.abs(load(path)).max() == pytest.approx(2.0**30, rel=1e-3)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (-0.1, 0.5),
        (0.5, 0.5),
        (0.6, 0.5),
        (0.5, 1.001),
        (1.0, None),
        (2, 3),
        (np.nan, 1),
        (0, np.inf),
    ],
)
def test_a_segment_outside_the_file_is_refused(tmp_path, start, end):
    path = write(tmp_path / "a.wav")
    with pytest.raises(
        AudioError, match=r"The segment from .* the file lasts 1\.000000 s\. Give 0"
    ):
        load(path, start=start, end=end)


def test_a_sampling_rate_of_zero_is_refused(tmp_path):
    with pytest.raises(AudioError, match="Cannot resample from 16000 to 0 Hz"):
        load(write(tmp_path / "a.wav"), sampling_rate=0)


# Permission bits do not stop root: become nobody before reading.
PROBE_AS_NOBODY = """
import os, sys
from koser.audio.reading import probe
from koser.errors import AudioError
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for path in sys.argv[1:]:
    try:
        print(probe(path).n_samples)
    except AudioError as error:
        print(error)
"""


def test_a_file_without_permission_is_refused():
    # Not `tmp_path`: nobody may not enter the folders that pytest makes.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        public, secret = write(Path(folder, "public.wav")), write(Path(folder, "secret.wav"))
        public.chmod(0o644)
        secret.chmod(0)
        command = [sys.executable, "-c", PROBE_AS_NOBODY, str(public), str(secret)]
        result = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    n_samples, refusal = result.stdout.splitlines()
    assert n_samples == "16000"
    assert refusal.startswith(f"No permission to read '{secret}'. Ask its owner, or run: chmod")
