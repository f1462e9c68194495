import numpy as np
import pytest
import torch

from koser.features.store import FeatureStore
from koser.training.batches import TrainingBatches, iter_plain_batches
from koser.training.pairs import PairTable, WithheldOptions

N = 400


@pytest.fixture
def make_table(tmp_path):
    """Vectors that say which modality, variant and row they are; a row in ten has no text."""

    def fill(name, n_variants):
        stores, keys = [], np.zeros((n_variants, N), "S16")
        for variant in range(n_variants):
            described = {"extractor": name, "variant": variant if name == "audio" else 0}
            store = FeatureStore(tmp_path, described)
            with store.writer() as writer:
                for row in range(N):
                    keys[variant, row] = f"{name} {variant} {row}".encode()
                    vector = np.array([variant, row, 1], np.float32)
                    writer.append(bytes(keys[variant, row]), vector)
            stores.append(store)
        return tuple(stores), keys

    def make(modalities="both", **withheld):
        audio_stores, audio_keys = fill("audio", 2)
        (text_store, *_), text_keys = fill("text", 3)
        text_store.refresh()
        text_keys[:, ::10] = b""
        return PairTable(
            audio_stores=audio_stores,
            audio_keys=audio_keys,
            text_store=text_store,
            text_keys=text_keys,
            targets=np.eye(2, dtype=np.float32)[np.arange(N) % 2],
            sizes=(3, 3),
            has_sequences=False,
            modalities=modalities,
            withheld=WithheldOptions(**withheld),
        )

    return make


def draws(table):
    """What training reads of every row in twenty epochs."""
    return [
        (row, table.read(row, np.random.default_rng([epoch, row])))
        for epoch in range(20)
        for row in range(N)
    ]


def test_without_a_generator_the_plain_sound_and_text_are_read(make_table):
    table = make_table(text=0.5, audio=0.4)
    for row in (1, 7, 10, 399):
        pair = table.read(row)
        assert pair.audio.tolist() == [0, row, 1]
        assert pair.text is None if row % 10 == 0 else pair.text.tolist() == [0, row, 1]


def test_training_withholds_as_often_as_it_should_and_never_both(make_table):
    found = draws(make_table(text=0.3, audio=0.2))
    with_text = [pair for row, pair in found if row % 10]
    # 7,200 draws: a share has a standard error of .0054.
    assert np.mean([pair.text is None for pair in with_text]) == pytest.approx(0.3, abs=0.02)
    assert np.mean([pair.audio is None for pair in with_text]) == pytest.approx(0.2, abs=0.02)
    assert not [pair for _, pair in found if pair.audio is None and pair.text is None]


def test_training_reads_every_speed_and_every_variant_of_a_text_alike(make_table):
    found = [pair for row, pair in draws(make_table(text=0, audio=0)) if row % 10]
    for n, values in ((2, [p.audio[0] for p in found]), (3, [p.text[0] for p in found])):
        shares = np.bincount(np.array(values, int), minlength=n) / len(values)
        np.testing.assert_allclose(shares, 1 / n, atol=0.02)


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_an_ablation_never_reads_the_other_modality(make_table, modality):
    table = make_table(modality, text=0.3, audio=0.2)
    plain = [table.read(row) for row in range(N)]
    for pair in [*plain, *(pair for _, pair in draws(table))]:
        assert (pair.text if modality == "audio" else pair.audio) is None
    there = [pair.audio if modality == "audio" else pair.text for pair in plain]
    assert sum(each is not None for each in there) == (N if modality == "audio" else 0.9 * N)


def test_a_batch_says_what_is_there(make_table):
    table = make_table()
    (batch,) = iter_plain_batches(table, np.array([10, 11, 12]), batch_size=3)
    audio, text, is_present = batch.inputs
    assert audio.tolist() == [[0, 10, 1], [0, 11, 1], [0, 12, 1]]
    assert text.tolist() == [[0, 0, 0], [0, 11, 1], [0, 12, 1]]
    assert is_present.tolist() == [[True, False], [True, True], [True, True]]
    assert is_present.dtype == torch.bool


def test_what_a_training_depends_on_is_in_its_description(make_table):
    rows = np.arange(20)
    made = [make_table(), make_table("audio"), make_table(text=0.3), make_table()]
    described = [TrainingBatches(t, rows, batch_size=4, seed=0).describe() for t in made]
    assert described[0] == described[3]
    assert len(set(described)) == 3
