from __future__ import annotations

import math
import struct
import tracemalloc
import unicodedata
import wave

import numpy as np
import pytest
import scipy.signal
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koser.audio import reading
from koser.audio.reading import SAMPLING_RATE, iter_blocks, load, probe
from koser.errors import AudioError

LOSSLESS = [
    ("WAV", "PCM_U8", 2**-7),
    ("WAV", "PCM_16", 2**-15),
    ("WAV", "PCM_24", 2**-23),
    ("WAV", "PCM_32", 2**-23),  # float32 holds 24 bits
    ("WAV", "FLOAT", 0),
    ("WAV", "DOUBLE", 0),
    ("WAVEX", "PCM_16", 2**-15),
    ("RF64", "PCM_16", 2**-15),
    ("FLAC", "PCM_16", 2**-15),
    ("FLAC", "PCM_24", 2**-23),
]
LOSSY = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]


@pytest.fixture(scope="module")
def speech():
    # One second at 16 kHz with energy up to 3 kHz, rising and falling like a syllable.
    rng = np.random.default_rng(7)
    band = scipy.signal.butter(8, [200, 2_500], "bandpass", fs=SAMPLING_RATE, output="sos")
    noise = scipy.signal.sosfilt(band, rng.standard_normal(SAMPLING_RATE))
    noise *= np.hanning(SAMPLING_RATE)
    return (0.5 * noise / np.abs(noise).max()).astype(np.float32)


def write(path, waveform, rate, container, subtype):
    soundfile.write(path, waveform, rate, format=container, subtype=subtype)
    return path


@pytest.mark.parametrize(("container", "subtype"), [row[:2] for row in LOSSLESS] + LOSSY)
def test_probe_tells_what_the_header_says(tmp_path, container, subtype):
    stereo = np.zeros((24_001, 2))
    info = probe(write(tmp_path / "a", stereo, 48_000, container, subtype))
    assert info.path == str(tmp_path / "a")
    assert (info.sampling_rate, info.n_channels, info.n_samples) == (48_000, 2, 24_001)
    assert info.duration == pytest.approx(24_001 / 48_000)
    assert (info.container, info.subtype) == (container, subtype)


def test_probe_decodes_nothing(tmp_path):
    path = write(tmp_path / "a.flac", np.zeros(16_000), 16_000, "FLAC", "PCM_16")
    content = bytearray(path.read_bytes())
    content[-20:] = bytes(20)  # the last frame of the sound
    path.write_bytes(content)
    assert probe(path).n_samples == 16_000


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_integers_of_every_width_are_scaled_by_their_full_range(tmp_path, width):
    full = 2 ** (8 * width - 1)
    integers = [-full, -1, 0, 1, full // 2, full - 1]
    frames = b"".join(
        bytes([value + 128]) if width == 1 else value.to_bytes(width, "little", signed=True)
        for value in integers
    )
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(SAMPLING_RATE)
        file.writeframes(frames)
    waveform = load(tmp_path / "a.wav")
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, np.divide(integers, full).astype(np.float32))


@pytest.mark.parametrize(("container", "subtype", "tolerance"), LOSSLESS)
def test_lossless_files_come_back_as_they_were_written(
    tmp_path, speech, container, subtype, tolerance
):
    path = write(tmp_path / "a", speech, SAMPLING_RATE, container, subtype)
    np.testing.assert_allclose(load(path), speech, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("container", "subtype"), LOSSY)
def test_lossy_files_come_back_in_time_and_nearly_as_they_were_written(
    tmp_path, speech, container, subtype
):
    path = write(tmp_path / "a", speech, SAMPLING_RATE, container, subtype)
    waveform = load(path)
    assert len(waveform) == len(speech)
    lags = scipy.signal.correlate(waveform, speech)
    assert np.argmax(lags) == len(speech) - 1
    assert np.corrcoef(waveform, speech)[0, 1] > 0.95  # noise is what lossy coders keep worst


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("n_channels", [1, 2, 5])
def test_any_rate_and_channels_agree_with_scipy(tmp_path, speech, rate, n_channels):
    common = math.gcd(rate, SAMPLING_RATE)
    source = scipy.signal.resample_poly(speech, rate // common, SAMPLING_RATE // common)
    channels = source[:, None] * np.linspace(0.2, 1, n_channels)
    path = write(tmp_path / "a.wav", channels.astype(np.float32), rate, "WAV", "FLOAT")
    samples, _ = soundfile.read(path)
    mono = samples.reshape(len(samples), -1).mean(axis=1)
    expected = scipy.signal.resample_poly(mono, SAMPLING_RATE // common, rate // common)
    waveform = load(path)
    assert len(waveform) == math.ceil(len(source) * SAMPLING_RATE / rate) == len(expected)
    # Two filters, both flat to 0.01 dB (0.1 %) over this noise below 3 kHz.
    np.testing.assert_allclose(waveform, expected, rtol=0, atol=4e-3 * np.abs(expected).max())


def test_floats_beyond_full_scale_stay_as_they_are(tmp_path):
    loud = np.array([1.5, -3.0, 0.25], np.float32)
    path = write(tmp_path / "a.wav", loud, SAMPLING_RATE, "WAV", "FLOAT")
    np.testing.assert_array_equal(load(path), loud)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("n_samples", [1, 2, 320])
def test_silence_and_the_shortest_clips_are_legal(tmp_path, rate, n_samples):
    path = write(tmp_path / "a.wav", np.zeros(n_samples), rate, "WAV", "PCM_16")
    waveform = load(path)
    assert len(waveform) == math.ceil(n_samples * SAMPLING_RATE / rate)
    assert not waveform.any()


def test_a_name_in_decomposed_hangul_is_opened_as_it_is_on_disk(tmp_path):
    name = unicodedata.normalize("NFD", "슬픔.wav")
    path = write(tmp_path / name, np.zeros(10), SAMPLING_RATE, "WAV", "PCM_16")
    assert probe(path).path.endswith(name)


@pytest.mark.parametrize(("container", "subtype"), [row[:2] for row in LOSSLESS] + LOSSY)
def test_a_segment_is_that_piece_of_the_file_to_the_sample(tmp_path, speech, container, subtype):
    path = write(tmp_path / "a", np.tile(speech, 3), SAMPLING_RATE, container, subtype)
    whole = load(path)
    for first, last in [(0, 1), (1, 20_000), (12_345, 12_346), (31_999, 48_000)]:
        segment = load(path, start=first / SAMPLING_RATE, end=last / SAMPLING_RATE)
        # An Opus decoder needs time to settle after a seek; mpg123 rounds in float32.
        tolerance = {"OPUS": 4e-3, "MPEG_LAYER_III": 1e-6}.get(subtype, 0)
        np.testing.assert_allclose(segment, whole[first:last], rtol=0, atol=tolerance)


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_a_resampled_segment_differs_from_the_whole_only_near_its_ends(tmp_path, speech, rate):
    path = write(tmp_path / "a.wav", np.tile(speech, 6), rate, "WAV", "FLOAT")
    whole, segment = load(path), load(path, start=0.25, end=0.75)
    assert len(segment) == SAMPLING_RATE // 2
    edge = SAMPLING_RATE // 100  # 10 ms, as the docstring promises
    difference = np.abs(segment - whole[4_000:12_000])
    assert difference[edge:-edge].max() < 1e-5  # -94 dB of the peak


@pytest.mark.parametrize("nudge", [-0.4, 0, 0.4])
def test_the_ends_of_a_segment_are_rounded_to_the_nearest_sample(tmp_path, nudge):
    ramp = np.arange(1_000, dtype=np.int16)
    path = write(tmp_path / "a.wav", ramp, 1_000, "WAV", "PCM_16")
    segment = load(path, sampling_rate=1_000, start=(57 + nudge) / 1e3, end=(60 + nudge) / 1e3)
    np.testing.assert_array_equal(segment * 2**15, [57, 58, 59])


def test_start_alone_reads_to_the_end_and_end_alone_from_the_start(tmp_path, speech):
    path = write(tmp_path / "a.wav", speech, SAMPLING_RATE, "WAV", "FLOAT")
    np.testing.assert_array_equal(load(path, start=0.75), speech[12_000:])
    np.testing.assert_array_equal(load(path, end=0.25), speech[:4_000])


@pytest.mark.parametrize(("container", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), *LOSSY])
@pytest.mark.parametrize("block_bytes", [4, 4_444, 2**24])
def test_the_size_of_a_block_changes_nothing(
    tmp_path, monkeypatch, speech, container, subtype, block_bytes
):
    path = write(tmp_path / "a", speech, 48_000, container, subtype)
    expected = load(path)
    monkeypatch.setattr(reading, "_BLOCK_BYTES", block_bytes)
    np.testing.assert_array_equal(load(path), expected)


def test_memory_holds_the_result_and_little_more(tmp_path):
    n_seconds, n_channels, rate = 10, 8, 96_000
    with soundfile.SoundFile(tmp_path / "a.wav", "w", rate, n_channels, "PCM_16") as file:
        for _ in range(n_seconds):
            file.write(np.full((rate, n_channels), 0.5, np.float32))
    tracemalloc.start()
    waveform = load(tmp_path / "a.wav")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert waveform.nbytes == n_seconds * SAMPLING_RATE * 4
    # Decoded, this file is 31 MB; its result 0.6 MB.
    assert peak < waveform.nbytes + 2**20


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFF00, 0xFFFFFFFF])
@pytest.mark.parametrize("riff_size", [0, 8, 36, 0xFFFFFFFF])
def test_a_wav_that_was_written_to_a_pipe_is_read_to_its_end(tmp_path, size, riff_size):
    samples = np.arange(-3_000, 3_000, dtype="<i2")
    header = struct.pack(
        "<4sI8sIHHIIHH", b"RIFF", riff_size, b"WAVEfmt ", 16, 1, 1, 16_000, 32_000, 2, 16
    )
    path = tmp_path / "piped.wav"
    path.write_bytes(header + struct.pack("<4sI", b"data", size) + samples.tobytes())
    assert probe(path).n_samples == 6_000
    np.testing.assert_array_equal(load(path), samples / 2**15)
    np.testing.assert_array_equal(load(path, start=0.25), samples[4_000:] / 2**15)


def test_chunks_of_odd_size_before_the_sound_are_passed_over(tmp_path):
    path = write(tmp_path / "a.wav", np.full(100, 0.5), SAMPLING_RATE, "WAV", "PCM_16")
    content = path.read_bytes()
    odd_chunk = b"LIST\x05\0\0\0INFO!\0"
    path.write_bytes(content[:12] + odd_chunk + content[12:])
    np.testing.assert_array_equal(load(path), np.full(100, 0.5))


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_the_padding_that_an_mp3_declares_is_no_sound(tmp_path, mode):
    path = tmp_path / "a.mp3"
    soundfile.write(path, np.zeros(20_001), 16_000, bitrate_mode=mode, compression_level=0.5)
    assert probe(path).n_samples == len(load(path)) == 20_001


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100])
def test_a_constant_rate_mp3_without_a_xing_frame_is_read_to_its_end(tmp_path, rate):
    path = write_untagged_mp3(tmp_path / "a.mp3", rate, "CONSTANT")
    whole_frames = 1152 if rate > 24_000 else 576
    n_samples = probe(path).n_samples
    assert n_samples % whole_frames == 0
    assert rate * 3 <= n_samples < rate * 3 + 4 * whole_frames
    assert len(load(path, sampling_rate=rate)) == n_samples


def test_tags_around_an_mp3_without_a_xing_frame_are_no_sound(tmp_path):
    path = write_untagged_mp3(tmp_path / "a.mp3", 16_000, "CONSTANT")
    n_samples = probe(path).n_samples
    id3v2 = b"ID3\x04\x00\x00" + bytes([0, 0, 1, 2]) + bytes(130)
    path.write_bytes(id3v2 + path.read_bytes() + b"TAG" + bytes(125))
    assert probe(path).n_samples == n_samples
    assert len(load(path)) == n_samples


def write_untagged_mp3(path, rate, mode):
    rng = np.random.default_rng(3)
    waveform = np.concatenate([rng.standard_normal(rate) * 0.3, np.zeros(2 * rate)])
    soundfile.write(path, waveform, rate, format="MP3", bitrate_mode=mode, compression_level=0.5)
    content = path.read_bytes()
    path.write_bytes(content[content.index(content[:2], 4) :])  # drops the Xing frame
    return path


@given(
    n_samples=st.integers(1, 3_000),
    rate=st.integers(1_000, 192_000),
    n_channels=st.integers(1, 8),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_length_rate_and_channel_count_obeys_the_length_law(
    tmp_path, n_samples, rate, n_channels
):
    path = write(tmp_path / "a.wav", np.zeros((n_samples, n_channels)), rate, "WAV", "PCM_16")
    assert len(load(path)) == math.ceil(n_samples * SAMPLING_RATE / rate)


@pytest.mark.parametrize("sampling_rate", [16_000, 44_100])
@pytest.mark.parametrize("seconds", [0.0001, 0.013, 0.5, 100.0])
def test_blocks_joined_are_the_whole(tmp_path, sampling_rate, seconds):
    rng = np.random.default_rng(0)
    stereo = rng.uniform(-0.5, 0.5, size=(70_001 if seconds > 0.001 else 2_001, 2))
    soundfile.write(tmp_path / "a.wav", stereo, sampling_rate, subtype="FLOAT")
    blocks = list(iter_blocks(tmp_path / "a.wav", seconds=seconds))
    np.testing.assert_array_equal(np.concatenate(blocks), load(tmp_path / "a.wav"))
    length = max(1, round(seconds * 16_000))
    assert {len(block) for block in blocks[:-1]} <= {length}
    assert 0 < len(blocks[-1]) <= length


def test_a_fault_shows_when_its_block_is_reached(tmp_path):
    samples = np.zeros(48_000, np.float32)
    samples[40_000] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    blocks = iter_blocks(tmp_path / "a.wav", seconds=0.25)
    assert len(next(blocks)) == 4_000
    with pytest.raises(AudioError, match=r"holds nan at 2\.5"):
        list(blocks)


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_one_channel_is_what_a_mono_file_of_it_would_be(tmp_path, rate):
    rng = np.random.default_rng(3)
    channels = (0.1 * rng.standard_normal((rate, 3))).astype(np.float32)
    path = write(tmp_path / "three", channels, rate, "WAV", "FLOAT")
    for channel in range(3):
        alone = write(tmp_path / f"{channel}", channels[:, channel], rate, "WAV", "FLOAT")
        for part in ({}, {"start": 0.25, "end": 0.75}):
            heard = load(path, channel=channel, **part)
            np.testing.assert_array_equal(heard, load(alone, **part))
    # the mean of all is another sound
    assert np.abs(load(path) - load(path, channel=0)).max() > 0.05


@pytest.mark.parametrize("channel", [-1, 2])
def test_a_channel_that_a_file_lacks_is_refused(tmp_path, channel):
    path = write(tmp_path / "a", np.zeros((160, 2), np.float32), 16_000, "WAV", "FLOAT")
    with pytest.raises(AudioError, match=rf"no channel {channel}: its channels are 0 to 1"):
        load(path, channel=channel)
