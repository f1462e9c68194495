"""What an utterance meets of its speaker: in training by its address, in tests what is enrolled."""

from collections import Counter

import numpy as np
import pytest

from fixtures.manifests import manifest
from koser.data.enrolment import Enrolment, EnrolmentOptions
from koser.features.voices import SpeakerPrior
from koser.training.batches import TrainingBatches
from koser.training.enrolment import EnrolledTable
from koser.training.tables import ArrayTable

K = 3
TRAIN = np.arange(32)  # four speakers of eight utterances each; two others are tested


@pytest.fixture
def corpus():
    made = manifest([{"speaker": f"s{row // 8}"} for row in range(48)])
    return Enrolment.draw(made, EnrolmentOptions(k=K, pool=4))


@pytest.fixture
def plain():
    # An utterance is one value of its own, so that what is heard shows in what is read.
    arrays = 2.0 ** np.arange(48, dtype=np.float64)[:, None]
    return ArrayTable(arrays, np.eye(2, dtype=np.float32)[np.arange(48) % 2])


@pytest.fixture
def table(corpus, plain):
    # Speakers vary without bound: the offset is then the mean of what was heard, exactly.
    prior = SpeakerPrior(np.zeros(1), np.zeros(1), np.ones(1))
    return EnrolledTable(plain, prior, corpus, K, TRAIN, has_frames=False)


def heard_by(row, value):
    """Which rows an utterance has met, from what is left of its value."""
    first = row // 8 * 8  # of its speaker
    mean = (2.0**row - float(value)) / 2.0**first
    for n in range(1, K + 1):
        total = round(mean * n)  # a mean of three is rounded, in single precision
        rows = [first + bit for bit in range(8) if total >> bit & 1]
        if len(rows) == n and total == pytest.approx(mean * n, rel=1e-6):
            return rows
    assert mean == 0
    return []


def generator(*address):
    return np.random.default_rng(address)


def test_in_training_from_none_to_k_others_of_the_speaker_are_met(table):
    counts, met = Counter(), set()
    for epoch in range(200):
        for row in (5, 17):
            rows = heard_by(row, table.read(row, generator(epoch, row))[0])
            counts[len(rows)] += 1
            met |= {(row, other) for other in rows}
    assert met == {(5, n) for n in range(8) if n != 5} | {(17, n) for n in range(16, 24) if n != 17}
    # 100 of 400 each are expected; 5 standard deviations are 43.
    assert set(counts) == {0, 1, 2, 3}
    assert all(abs(n - 100) < 45 for n in counts.values())


def test_what_is_met_follows_from_the_utterances_address_alone(table):
    batches = [TrainingBatches(table, TRAIN, batch_size=size, seed=1) for size in (4, 9)]
    found = []
    for each in batches:
        values = {}
        for batch in each.epoch(2):
            values |= dict(zip(batch.rows.tolist(), batch.inputs[0][:, 0].tolist(), strict=True))
        found.append(values)
    assert found[0] == found[1]
    assert set(found[0]) == set(TRAIN.tolist())


def test_in_tests_the_speakers_own_enrolment_is_met_whatever_is_asked_first(table, corpus):
    for row in (47, 40, 33, 47):
        speaker = row // 8
        assert sorted(heard_by(row, table.read(row)[0])) == sorted(
            corpus.heard(speaker, K).tolist()
        )


def test_a_speaker_with_one_utterance_meets_nobody(plain):
    alone = Enrolment(np.array([0, 1, 1]), np.array([[0], [1]]))
    prior = SpeakerPrior(np.zeros(1), np.zeros(1), np.ones(1))
    table = EnrolledTable(plain, prior, alone, K, np.arange(3), has_frames=False)
    assert all(table.read(0, generator(n))[0] == 1.0 for n in range(20))


def test_another_k_prior_or_speaker_is_another_training(table, plain, corpus):
    prior = SpeakerPrior(np.zeros(1), np.zeros(1), np.ones(1))
    other_prior = SpeakerPrior(np.zeros(1), np.ones(1), np.ones(1))
    other = Enrolment(corpus.speakers // 2, corpus.drawn)

    def describe(prior=prior, enrolment=corpus, k=K):
        return EnrolledTable(plain, prior, enrolment, k, TRAIN, has_frames=False).describe(TRAIN)

    found = [describe(), describe(k=2), describe(prior=other_prior), describe(enrolment=other)]
    assert len(set(found)) == 4
    assert found[0] == table.describe(TRAIN)
