"""Batch composition must not change a result: every guard, and that its loss would show."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.encoders import KINDS
from koser.features.speech import convolutional
from koser.features.speech.convolutional import ConvolutionalEncoder
from koser.features.speech.encoder import SpeechEncoder, pad_waveforms

# Clips of 20 ms, about one receptive field, and far longer ones.
LENGTHS = st.one_of(st.sampled_from([1, 320, 399, 400, 401, 719, 720]), st.integers(1, 24_000))


@pytest.fixture(scope="module", params=KINDS)
def encoder(request, load_kind):
    return load_kind(request.param).encoder


def sounds(lengths):
    """Noises of very different level and offset: what one says of another's would show."""
    rng = np.random.default_rng(sum(lengths))
    return [
        (rng.normal(rng.uniform(-0.2, 0.2), rng.uniform(0.01, 0.3), n)).astype(np.float32)
        for n in lengths
    ]


def run(encoder, waveforms):
    """States of each waveform's real frames [each n_states arrays of (n_frames, width)]."""
    with torch.inference_mode():
        states, n_frames = encoder(*pad_waveforms(waveforms))
    return [[state[row, :n] for state in states] for row, n in enumerate(n_frames.tolist())]


def largest_difference(one, other):
    """Relative to a state's largest magnitude, or absolute where that is below 1."""
    assert [state.shape for state in one] == [state.shape for state in other]
    return max(
        float((a - b).abs().max() / a.abs().max().clamp_min(1.0))
        for a, b in zip(one, other, strict=True)
    )


def leak(encoder, lengths):
    """How much a batch changes each waveform's states, at most."""
    waveforms = sounds(lengths)
    together = run(encoder, waveforms)
    return max(
        largest_difference(run(encoder, [waveform])[0], states)
        for waveform, states in zip(waveforms, together, strict=True)
    )


@settings(max_examples=12, deadline=None)
@given(lengths=st.lists(LENGTHS, min_size=2, max_size=4))
def test_an_utterance_is_the_same_alone_and_in_a_batch(encoder, lengths):
    assert leak(encoder, lengths) < 1e-4


def test_a_click_beside_a_long_recording_is_the_same(encoder):
    assert leak(encoder, [320, 80_000, 399, 400, 401]) < 1e-4


def test_the_order_within_a_batch_does_not_matter(encoder):
    waveforms = sounds([3000, 12_000, 320])
    order = [2, 0, 1]
    plain, other = run(encoder, waveforms), run(encoder, [waveforms[place] for place in order])
    for place, states in zip(order, other, strict=True):
        assert largest_difference(plain[place], states) < 1e-5


def test_what_stands_after_the_real_frames_of_a_state_has_no_effect(encoder):
    """`run` starts from stored states, whose padding is whatever a batch put there."""
    with torch.inference_mode():
        hidden, n_frames = encoder.embed(*pad_waveforms(sounds([9000, 3000])))
        expected = encoder.run(hidden, n_frames)
        hidden[1, int(n_frames[1]) :] = 1e4
        states = encoder.run(hidden, n_frames)
    n = int(n_frames[1])
    for state, own in zip(states, expected, strict=True):
        torch.testing.assert_close(state[1, :n], own[1, :n], rtol=1e-5, atol=1e-5)


def test_training_on_a_cpu_rounds_lengths_up_and_real_frames_are_the_same(encoder):
    with torch.no_grad():
        hidden, n_frames = encoder.embed(*pad_waveforms(sounds([9000, 13_000, 3000])))
        expected = encoder.run(hidden, n_frames)
    assert hidden.shape[1] % 32
    states = encoder.run(hidden, n_frames)
    for state, plain in zip(states, expected, strict=True):
        assert state.shape[1] % 32 == 0
        for row, n in enumerate(n_frames.tolist()):
            assert largest_difference([plain[row, :n]], [state[row, :n].detach()]) < 1e-5


def test_all_states_are_finite_where_the_sound_is_silent(encoder):
    for states in run(encoder, [np.zeros(n, np.float32) for n in (320, 5000)]):
        assert all(bool(state.isfinite().all()) for state in states)


# What was a guard is taken away: the tests above have to notice.


def _attend_to_padding(patch):
    patch.setattr(SpeechEncoder, "_context", lambda *_: None)


def _attend_to_padding_in_wavlm(patch):
    context = convolutional.WavLmEncoder._context
    patch.setattr(
        convolutional.WavLmEncoder, "_context", lambda self, hidden, _: context(self, hidden, None)
    )


def _standardize_padding(patch):
    def over_everything(waveforms, n_samples):
        centred = waveforms - waveforms.mean(1, keepdim=True)
        return centred / torch.sqrt(centred.square().mean(1, keepdim=True) + 1e-7)

    patch.setattr(convolutional, "_standardize", over_everything)


def _norm_over_padding(patch):
    patch.setattr(convolutional, "_over_real_frames", lambda layer, hidden, _: layer(hidden))


def _position_padding(patch):
    patch.setattr(ConvolutionalEncoder, "_position", lambda self, hidden, _: self.positions(hidden))


def _project_padding(patch):
    """What the projection makes of padding reaches the positional convolution."""
    everything = torch.ones(1, 1, dtype=torch.bool)
    patch.setattr(convolutional, "frame_mask", lambda *_: everything)


@pytest.mark.parametrize(
    ("kind", "break_guard"),
    [
        ("wav2vec2", _attend_to_padding),
        ("whisper", _attend_to_padding),
        ("wavlm", _attend_to_padding_in_wavlm),
        ("xls-r", _standardize_padding),
        ("hubert", _norm_over_padding),
        ("data2vec", _position_padding),
        ("hubert-batch-norm", _position_padding),
        ("wavlm", _project_padding),  # it normalises no waveforms: nothing else is masked
    ],
)
def test_a_missing_guard_is_noticed(kind, break_guard, load_kind, monkeypatch):
    encoder = load_kind(kind).encoder
    assert leak(encoder, [3000, 12_000]) < 1e-4
    break_guard(monkeypatch)
    assert leak(encoder, [3000, 12_000]) > 1e-2
