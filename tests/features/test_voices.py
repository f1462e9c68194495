"""What is known of a voice, against the formulas written out, and against what was planted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koser.errors import ConfigError
from koser.features.voices import SpeakerPrior, adapt, summarise

SPEAKERS = np.repeat([3, 1, 7, 5], [4, 9, 2, 6])


def summaries(seed=0, shape=(2, 3)):
    rng = np.random.default_rng(seed)
    shift = rng.normal(size=(8, *shape))
    return rng.normal(size=(len(SPEAKERS), *shape)) + 2 * shift[SPEAKERS]


def variances_written_out(values, speakers):
    """One-way analysis of variance of one value, unequal groups, as textbooks write it."""
    names = sorted(set(speakers.tolist()))
    groups = [[v for v, s in zip(values, speakers, strict=True) if s == name] for name in names]
    n, a = len(values), len(groups)
    grand = sum(values) / n
    within = sum((v - sum(g) / len(g)) ** 2 for g in groups for v in g) / (n - a)
    among = sum(len(g) * (sum(g) / len(g) - grand) ** 2 for g in groups) / (a - 1)
    n0 = (n - sum(len(g) ** 2 for g in groups) / n) / (a - 1)
    return grand, within, max((among - within) / n0, 0.0)


def test_the_prior_is_the_analysis_of_variance():
    found = summaries()
    prior = SpeakerPrior.fit(iter(found), SPEAKERS)
    for place in np.ndindex(2, 3):
        expected = variances_written_out(found[(slice(None), *place)].tolist(), SPEAKERS)
        values = [each[place] for each in (prior.mean, prior.within, prior.between)]
        np.testing.assert_allclose(values, expected, rtol=1e-10)


def test_a_voice_is_the_speakers_mean_shrunk_by_what_speakers_and_utterances_vary():
    prior = SpeakerPrior.fit(iter(summaries()), SPEAKERS)
    heard = summaries(1)[:3]
    voice = prior.hear(list(heard))
    for place in np.ndindex(2, 3):
        relevance = prior.within[place] / prior.between[place]
        mean = sum(each[place] for each in heard) / 3
        expected = 3 / (3 + relevance) * (mean - prior.mean[place])
        assert voice.offset[place] == pytest.approx(expected, rel=1e-6)
    assert voice.offset.dtype == np.float32


def test_the_planted_spread_of_speakers_is_found():
    rng = np.random.default_rng(0)
    speakers = np.repeat(np.arange(400), 5)
    deviation = np.array([0.0, 0.5, 3.0])
    shift = rng.normal(size=(400, 3)) * deviation
    found = rng.normal(size=(2000, 3)) * 2 + shift[speakers] + 7
    prior = SpeakerPrior.fit(iter(found), speakers)
    np.testing.assert_allclose(prior.mean, 7, atol=0.4)
    np.testing.assert_allclose(prior.within, 4, rtol=0.1)
    np.testing.assert_allclose(prior.between, deviation**2, atol=0.15, rtol=0.15)
    # The prediction of a new speaker is better than no prediction and than the plain mean.
    new = rng.normal(size=(2000, 3)) * deviation
    heard = new[:, None] + rng.normal(size=(2000, 2, 3)) * 2 + 7
    offsets = np.stack([prior.hear(list(each)).offset for each in heard])
    for other in (np.zeros_like(new), heard.mean(axis=1) - 7):
        assert (np.square(offsets - new).mean(0) <= np.square(other - new).mean(0) + 0.02).all()


def test_nothing_heard_changes_nothing():
    prior = SpeakerPrior.fit(iter(summaries()), SPEAKERS)
    features = np.random.default_rng(2).normal(size=(2, 3)).astype(np.float16)
    assert (prior.hear([]).offset == 0).all()
    assert adapt(features, None) is features
    np.testing.assert_array_equal(adapt(features, prior.hear([])), features)
    assert adapt(features, prior.hear([])).dtype == np.float32


def test_much_heard_is_the_speakers_own_mean():
    prior = SpeakerPrior.fit(iter(summaries()), SPEAKERS)
    own = summaries(3)[0]
    np.testing.assert_allclose(prior.hear([own] * 100_000).offset, own - prior.mean, rtol=1e-3)


@given(st.integers(0, 8), st.integers(0, 10**6))
def test_a_voice_heard_in_pieces_is_the_voice_heard_at_once(cut, seed):
    prior = SpeakerPrior.fit(iter(summaries()), SPEAKERS)
    heard = list(summaries(seed)[:8])
    once, pieces = prior.hear(heard), prior.hear(heard[cut:], prior.hear(heard[:cut]))
    assert once.n_utterances == pieces.n_utterances == 8
    np.testing.assert_array_equal(once.offset, pieces.offset)


def test_a_value_that_never_varies_is_left_alone():
    constant = np.ones((len(SPEAKERS), 2))
    prior = SpeakerPrior.fit(iter(constant), SPEAKERS)
    np.testing.assert_array_equal(prior.hear([np.full(2, 9.0)] * 5).offset, 0)


@pytest.mark.parametrize(
    ("speakers", "found"), [([1, 1, 1], "1 speakers with 3"), ([1, 2, 3], "3 speakers with 3")]
)
def test_what_is_the_speakers_cannot_be_told_of_one_speaker_or_of_single_utterances(
    speakers, found
):
    with pytest.raises(ConfigError, match=f"{found} utterances"):
        SpeakerPrior.fit(iter(np.ones((3, 2))), np.array(speakers))


def test_time_is_averaged_over():
    frames = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)
    np.testing.assert_allclose(
        summarise(frames, has_frames=True)[:, 0], [row.mean() for row in frames], rtol=1e-5
    )
    assert summarise(frames, has_frames=False).shape == (4, 50)


def test_a_prior_survives_a_checkpoint():
    prior = SpeakerPrior.fit(iter(summaries()), SPEAKERS)
    again = SpeakerPrior.from_state({"other": np.ones(1), **prior.to_state()})
    for part in ("mean", "within", "between"):
        np.testing.assert_array_equal(getattr(again, part), getattr(prior, part))
    assert SpeakerPrior.from_state({"other": np.ones(1)}) is None
