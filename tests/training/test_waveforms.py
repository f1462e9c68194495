import numpy as np
import pytest

from koser.audio.augmentation import AugmentOptions, augment
from koser.audio.reading import Clip, load
from koser.errors import AudioError
from koser.training.batches import TrainingBatches
from koser.training.waveforms import WaveformTable

SECONDS = [0.2, 0.05, 0.31, 0.1]


@pytest.fixture
def waveform_table(tmp_path, write_wav):
    def make(augmentation=AugmentOptions(), window_samples=1600, fingerprint=""):  # noqa: B008  # frozen
        clips = [
            Clip(str(write_wav(tmp_path / f"{i}.wav", seconds=seconds)))
            for i, seconds in enumerate(SECONDS)
        ]
        clips.append(Clip(clips[0].path, 0.05, 0.125))
        durations = np.array([*SECONDS, 0.075])
        return WaveformTable(
            clips,
            window_samples,
            np.eye(5, dtype=np.float32),
            durations,
            augmentation,
            fingerprint,
        )

    return make


def test_lengths_are_samples_without_a_file_being_opened(waveform_table):
    table = waveform_table()
    expected = [len(load(each.path, start=each.start, end=each.end)) for each in table.clips]
    absent = [Clip("absent.wav")] * 5
    table = WaveformTable(absent, 1600, table.targets, table.durations, table.augmentation)
    assert table.lengths(np.arange(5)).tolist() == expected
    assert table.n_windows(np.arange(5)).tolist() == [2, 1, 4, 1, 1]
    with pytest.raises(AudioError, match=r"absent\.wav"):
        table.read(0)


def test_clips_are_read_plain_and_cut_into_windows(waveform_table):
    table = waveform_table(AugmentOptions(speed=0.2, gain_db=6, noise_snr_db=10))
    assert [table.read(row).shape for row in range(5)] == [
        (2, 1600),
        (1, 800),
        (4, 1240),
        (1, 1600),
        (1, 1200),
    ]
    np.testing.assert_array_equal(table.read(1)[0], load(table.clips[1].path))
    np.testing.assert_array_equal(np.concatenate(table.read(0)), load(table.clips[0].path))


def test_training_hears_the_augmented_waveform(waveform_table):
    options = AugmentOptions(speed=0.2, gain_db=6, noise_snr_db=10)
    table = waveform_table(options, window_samples=16_000)
    plain = load(table.clips[2].path)
    heard = table.read(2, np.random.default_rng(4))
    np.testing.assert_array_equal(heard[0], augment(plain, options, np.random.default_rng(4)))
    assert not np.array_equal(heard[0], plain[: heard.shape[1]])


def test_utterances_are_collated_with_their_owners(waveform_table):
    table = waveform_table()
    source = TrainingBatches(table, np.arange(5), batch_length=25_000, seed=0)
    (batch,) = source.epoch(1)
    waveforms, n_samples, owners = batch.inputs
    assert waveforms.shape == (9, 1600)
    for place, row in enumerate(batch.rows.tolist()):
        windows = table.read(row)
        own = owners == place
        assert n_samples[own].tolist() == [windows.shape[1]] * len(windows)
        np.testing.assert_array_equal(waveforms[own][:, : windows.shape[1]], windows)


def test_a_table_is_described_by_its_clips_and_by_how_they_are_heard(waveform_table):
    table = waveform_table()
    rows = np.arange(3)
    others = [
        table.describe(np.arange(1, 4)),
        waveform_table(window_samples=800).describe(rows),
        waveform_table(AugmentOptions(speed=0.1)).describe(rows),
        waveform_table(fingerprint="0f3a").describe(rows),
    ]
    assert waveform_table().describe(rows) == table.describe(rows)
    assert len({table.describe(rows), *others}) == 5
