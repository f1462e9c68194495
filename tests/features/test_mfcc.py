import hypothesis
import hypothesis.strategies as st
import librosa
import numpy as np
import pytest
import torch

from koser.config import build_config
from koser.errors import ConfigError
from koser.features.mfcc import Mfcc, MfccExtractor, MfccOptions, dct_matrix, mel_filterbank

OPTIONS = [
    MfccOptions(),
    MfccOptions(n_fft=512, win_length=400, hop_length=160, n_mels=64),
    MfccOptions(n_mfcc=13, n_mels=40, f_min=0.0, f_max=4000.0, top_db=60.0),
]


def speech_like(seed: int, n_samples: int) -> np.ndarray:
    """Noise with a moving spectrum and pauses."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=n_samples)
    envelope = np.interp(np.arange(n_samples), np.linspace(0, n_samples, 12), rng.random(12) ** 3)
    return (0.3 * np.cumsum(noise) / 50 * envelope + 0.01 * noise).astype(np.float32)


def librosa_mfcc(waveform: np.ndarray, options: MfccOptions) -> np.ndarray:
    spectrogram = librosa.feature.melspectrogram(
        y=waveform,
        sr=options.sampling_rate,
        n_fft=options.n_fft,
        win_length=options.win_length,
        hop_length=options.hop_length,
        n_mels=options.n_mels,
        fmin=options.f_min,
        fmax=options.f_max,
    )
    decibels = librosa.power_to_db(spectrogram, top_db=options.top_db)
    return librosa.feature.mfcc(S=decibels, n_mfcc=options.n_mfcc)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("n_samples", [320, 16_000, 52_345])
def test_mfcc_agree_with_librosa(options, n_samples):
    waveform = speech_like(0, n_samples)
    # float32 against librosa's mixed precision, on values of up to several hundred
    np.testing.assert_allclose(
        MfccExtractor(options)(waveform), librosa_mfcc(waveform, options), atol=1e-3
    )


@pytest.mark.parametrize("options", OPTIONS)
def test_the_filterbank_is_slaneys(options):
    expected = librosa.filters.mel(
        sr=options.sampling_rate,
        n_fft=options.n_fft,
        n_mels=options.n_mels,
        fmin=options.f_min,
        fmax=options.f_max,
        dtype=np.float64,
    )
    np.testing.assert_allclose(mel_filterbank(options), expected, atol=1e-9)


def test_the_dct_is_orthonormal():
    matrix = dct_matrix(40, 40)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(40), atol=1e-12)


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(lengths=st.lists(st.integers(1, 9000), min_size=1, max_size=5))
def test_a_clip_has_the_same_features_alone_and_in_any_batch(lengths):
    front_end = Mfcc(MfccOptions())
    clips = [torch.from_numpy(speech_like(seed, n)) for seed, n in enumerate(lengths)]
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    features, n_frames = front_end(batch, torch.tensor(lengths))
    for clip, together, n in zip(clips, features, n_frames, strict=True):
        alone, _ = front_end(clip[None], torch.tensor([len(clip)]))
        assert alone.shape[2] == n == 1 + len(clip) // 256
        # the same sums in another order: rounding of values of up to several hundred
        torch.testing.assert_close(together[:, :n], alone[0], atol=1e-3, rtol=0)
        assert not together[:, n:].any()


@pytest.mark.parametrize("n_samples", [1, 320])
def test_silence_has_finite_features(n_samples):
    features = MfccExtractor(MfccOptions())(np.zeros(n_samples, np.float32))
    assert features.shape == (40, 1 + n_samples // 256)
    assert np.isfinite(features).all()


def test_speed_perturbation_shortens_the_clip_and_is_part_of_the_description():
    fast = MfccExtractor(MfccOptions(), speed=1.1)
    n_samples = 32_000
    assert fast(speech_like(1, n_samples)).shape[1] == 1 + round(n_samples / 1.1) // 256
    assert fast.describe() != MfccExtractor(MfccOptions()).describe()


def test_a_gain_moves_only_the_first_coefficient():
    waveform = speech_like(2, 16_000)
    options = MfccOptions()
    difference = MfccExtractor(options)(waveform * 0.5) - MfccExtractor(options)(waveform)
    expected = 20 * np.log10(0.5) * np.sqrt(options.n_mels)  # the same dB in every band
    np.testing.assert_allclose(difference[0], expected, atol=2e-3)
    np.testing.assert_allclose(difference[1:], 0, atol=2e-3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_mfcc": 80, "n_mels": 64}, "n_mfcc = 80 exceeds n_mels = 64"),
        ({"win_length": 4096}, "win_length = 4096 exceeds n_fft = 2048"),
        ({"f_max": 9000.0}, "need f_min < f_max <= 8000 Hz"),
        ({"hop": 10}, "unknown key 'hop'"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        build_config(MfccOptions, values)
