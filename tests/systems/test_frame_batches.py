"""The frozen encoder's head on frames: batches are bounded by sound, not by utterances alone."""

import numpy as np
import pytest
import torch

from koser.config import resolve_config
from koser.data.arrangement import load_arranged
from koser.systems.system import Part
from koser.systems.wav2vec2 import Wav2Vec2Config, Wav2Vec2System
from koser.training.tables import FramesTable, StatisticsTable


@pytest.fixture
def padded_batches(tone_corpus, encoder_folder, tmp_path, monkeypatch):
    """Train and test; give the shape of every batch that was put together."""

    def run(table, *overrides):
        shapes = []
        collate = table.collate

        def note(arrays):
            inputs = collate(arrays)
            shapes.append(tuple(inputs[0].shape))
            return inputs

        monkeypatch.setattr(table, "collate", staticmethod(note))
        folder = encoder_folder("wav2vec2")
        chosen = (f"encoder.name={folder}", "train.epochs=1", "speeds=[]", *overrides)
        config = resolve_config(Wav2Vec2Config, overrides=chosen)
        manifest = load_arranged(tone_corpus(n_speakers=4, seconds=0.4))
        rows = np.arange(len(manifest))
        part = Part(train=rows[rows % 4 > 1], val=rows[rows % 4 == 1], test=rows[:4], seed=1)
        data = Wav2Vec2System.extract(
            manifest, config, train_rows=part.train, store_root=tmp_path / "store"
        )
        system = Wav2Vec2System(manifest.labels, config)
        system.fit(data, part, resume_file=tmp_path / "last.pth")
        system.predict_rows(data, rows)
        return len(rows), shapes

    return run


def test_no_batch_of_frames_is_longer_than_the_bound(padded_batches):
    """Clips of 0.4 s have about 20 frames: two fit into the 50 of a second, three do not."""
    n_rows, shapes = padded_batches(FramesTable, "head.pooling=attentive", "train.batch_seconds=1")
    assert max(n * n_frames for n, *_, n_frames in shapes) <= 50
    assert max(n for n, *_ in shapes) == 2
    assert sum(n for n, *_ in shapes) >= 2 * n_rows  # standardised, trained, scored, predicted


def test_frames_keep_to_the_size_too(padded_batches):
    chosen = ("head.pooling=attentive", "train.batch_seconds=2", "train.batch_size=3")
    _, shapes = padded_batches(FramesTable, *chosen)
    assert max(n for n, *_ in shapes) == 3


def test_statistics_are_counted_in_utterances_alone(padded_batches):
    n_rows, shapes = padded_batches(StatisticsTable, "train.batch_seconds=0.1")
    assert max(n for n, *_ in shapes) == n_rows


@pytest.mark.parametrize("kind", ["wav2vec2", "whisper"])
def test_by_default_as_many_clips_of_5_s_as_ever_are_one_batch(kind, load_kind):
    config = resolve_config(Wav2Vec2Config, overrides=["head.pooling=attentive"])
    limit = Wav2Vec2System(("a", "b"), config).batch_length
    frames = int(load_kind(kind).encoder.count_frames(torch.tensor([5 * 16_000]))[0])
    assert limit is not None
    assert 32 * frames <= limit < 32 * (frames + 2)
