"""MP4 and WebM through PyAV, which makes the files; what they hold is compared with numbers."""

import os
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
import scipy.signal

from koser.audio import reading
from koser.audio.foreign import ForeignSound
from koser.audio.reading import SAMPLING_RATE, iter_blocks, load, probe
from koser.errors import AudioError

# Ending, muxer, coder, sampling rate, channels.
KINDS = [
    ("m4a", "ipod", "aac", 16_000, 1),
    ("m4a", "ipod", "aac", 44_100, 2),
    ("m4a", "ipod", "alac", 48_000, 2),
    ("mp4", "mp4", "aac", 48_000, 2),
    ("webm", "webm", "libopus", 48_000, 1),
    ("webm", "webm", "libopus", 48_000, 2),
    ("mka", "matroska", "pcm_s16le", 16_000, 1),
]
IDS = ["-".join(map(str, kind[1:])) for kind in KINDS]


def speech_like(rate, seconds=1.5):
    rng = np.random.default_rng(7)
    band = scipy.signal.butter(4, [200, 2_500], "bandpass", fs=rate, output="sos")
    noise = scipy.signal.sosfilt(band, rng.standard_normal(round(rate * seconds)))
    noise *= np.hanning(len(noise))
    return (0.5 * noise / np.abs(noise).max()).astype(np.float32)


def encode(path, kind, waveform, **options):
    _, muxer, coder, rate, n_channels = kind
    layout = "mono" if n_channels == 1 else "stereo"
    with av.open(str(path), "w", format=muxer, options=options) as container:
        stream = container.add_stream(coder, rate=rate, layout=layout)
        if coder in ("aac", "libopus"):
            stream.bit_rate = 128_000
        pcm = (np.repeat(waveform[None], n_channels, axis=0) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm), format="s16p", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path


@pytest.fixture(params=KINDS, ids=IDS)
def sound(request, tmp_path):
    kind = request.param
    waveform = speech_like(kind[3])
    return kind, encode(tmp_path / f"my call.{kind[0]}", kind, waveform), waveform


def test_what_comes_out_is_what_went_in(sound):
    (_, _, coder, rate, n_channels), path, waveform = sound
    expected = scipy.signal.resample_poly(waveform.astype(np.float64), SAMPLING_RATE, rate)
    heard = load(path)
    # A coder works in frames: the last one is filled up, or left out. The start is where it was.
    assert abs(len(heard) - len(expected)) < 0.08 * SAMPLING_RATE
    lags = scipy.signal.correlate(heard, expected)
    assert abs(int(np.argmax(lags)) - (len(expected) - 1)) <= 2
    n_both = min(len(heard), len(expected))
    likeness = np.corrcoef(heard[:n_both], expected[:n_both])[0, 1]
    assert likeness > (0.9999 if coder in ("alac", "pcm_s16le") else 0.95)
    info = probe(path)
    assert (info.sampling_rate, info.n_channels) == (rate, n_channels)
    assert info.duration == pytest.approx(len(heard) / SAMPLING_RATE, abs=1e-4)
    assert info.container in ("MP4", "WEBM")


def test_segments_and_blocks_are_pieces_of_the_whole(sound):
    _, path, _ = sound
    rate = probe(path).sampling_rate
    whole = load(path, sampling_rate=rate)
    first, last = rate // 3, rate
    np.testing.assert_array_equal(
        load(path, sampling_rate=rate, start=first / rate, end=last / rate), whole[first:last]
    )
    blocks = list(iter_blocks(path, seconds=0.3, sampling_rate=rate))
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_a_file_that_was_cut_is_refused(sound):
    _, path, _ = sound
    content = path.read_bytes()
    for share in (0.9, 0.5):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(
            AudioError, match=r"truncated|cannot be decoded|holds no samples"
        ) as caught:
            load(path)
        assert "\n" not in str(caught.value)
        assert path.name in str(caught.value)


def test_an_mp4_whose_index_comes_first_and_whose_sound_is_cut_is_refused(tmp_path):
    kind = ("m4a", "ipod", "aac", 16_000, 1)
    path = encode(tmp_path / "a.m4a", kind, speech_like(16_000, 5), movflags="+faststart")
    path.write_bytes(path.read_bytes()[: int(0.7 * path.stat().st_size)])
    with pytest.raises(AudioError, match=r"truncated"):
        load(path)


def test_damage_is_refused_or_heard_but_never_a_crash(sound):
    _, path, _ = sound
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(3)
    for _ in range(25):
        damaged = bytearray(content)
        for place in rng.integers(0, len(damaged), 20):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            heard = load(path)
        except AudioError:
            continue
        assert np.isfinite(heard).all()


def test_a_video_without_sound_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with pytest.raises(AudioError, match=r"holds no sound\. Give a file with an audio track"):
        probe(tmp_path / "a.mp4")


def test_a_playlist_that_names_other_files_is_not_followed(tmp_path):
    """FFmpeg itself would guess a playlist here and open what it names."""
    secret = encode(tmp_path / "secret.m4a", KINDS[0], speech_like(16_000))
    for text in (
        f"#EXTM3U\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{secret}'\n",
    ):
        path = tmp_path / "list.m4a"
        path.write_text(text)
        with pytest.raises(AudioError, match="is not audio"):
            load(path)
        # Even behind the first bytes of an MP4.
        path.write_bytes(b"\0\0\0\x18ftypM4A " + text.encode())
        with pytest.raises(AudioError):
            load(path)


def test_memory_holds_the_result_and_little_more(tmp_path):
    path = encode(tmp_path / "a.webm", KINDS[4], speech_like(48_000, 30))
    load(path)  # whatever is imported the first time
    tracemalloc.start()
    waveform = load(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < waveform.nbytes + 2**20


def test_the_descriptor_is_closed_and_the_callers_is_not(tmp_path):
    path = encode(tmp_path / "a.m4a", KINDS[0], speech_like(16_000))
    before = len(os.listdir("/proc/self/fd"))
    load(path)
    probe(path)
    assert len(os.listdir("/proc/self/fd")) == before
    descriptor = os.open(path, os.O_RDONLY)
    with ForeignSound(descriptor, "MP4/M4A", "a"):
        pass
    os.close(descriptor)  # would fail


def test_without_pyav_the_message_names_the_extra(tmp_path, monkeypatch):
    path = encode(tmp_path / "my call.m4a", KINDS[0], speech_like(16_000))
    monkeypatch.setattr(reading, "find_spec", lambda name: None)
    with pytest.raises(AudioError, match=r"is MP4/M4A.*Install koser\[av\].*ffmpeg -i") as caught:
        load(path)
    assert "\n" not in str(caught.value)
