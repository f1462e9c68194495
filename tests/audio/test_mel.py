import librosa
import numpy as np

from koser.audio.mel import hertz_to_mel, mel_to_hertz

HERTZ = np.array([0.0, 1.0, 440.0, 999.999, 1000.0, 1000.001, 4000.0, 8000.0, 24_000.0])


def test_the_scale_is_librosas_and_both_ways_are_inverse():
    np.testing.assert_allclose(hertz_to_mel(HERTZ), librosa.hz_to_mel(HERTZ), rtol=1e-12)
    np.testing.assert_allclose(mel_to_hertz(hertz_to_mel(HERTZ)), HERTZ, rtol=1e-12)
