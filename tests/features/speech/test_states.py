"""Our way through the layers against the models' own forward, one waveform at a time."""

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModel, WhisperModel

from fixtures.encoders import CONVOLUTIONAL, KINDS, N_LAYERS, PRE_NORM, WIDTH

LENGTHS = [400, 719, 720, 5001, 16_000]  # samples: one frame, the brink of a second, ...


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    """Noise that swells, around an offset, so that normalisation has something to do."""
    rng = np.random.default_rng(seed)
    envelope = np.linspace(0.02, 0.3, n_samples)
    return (rng.normal(size=n_samples) * envelope + 0.05).astype(np.float32)


def states_of(loaded, waveform):
    with torch.inference_mode():
        states, n_frames = loaded.encoder(
            torch.from_numpy(waveform)[None], torch.tensor([len(waveform)])
        )
    return states, int(n_frames)


def published_states(folder, waveform):
    """What `transformers` makes of one waveform, and the norm after its last layer."""
    model = AutoModel.from_pretrained(folder).eval()
    front_end = AutoFeatureExtractor.from_pretrained(folder)
    inputs = front_end(waveform, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        output = model(inputs.input_values, output_hidden_states=True)
    return output.hidden_states, output.last_hidden_state, model


def assert_close(state, expected, tolerance=1e-5):
    assert state.shape == expected.shape
    assert float((state - expected).abs().max() / expected.abs().max()) < tolerance


@pytest.mark.parametrize("kind", CONVOLUTIONAL)
@pytest.mark.parametrize("n_samples", LENGTHS)
def test_every_state_is_that_of_transformers(kind, n_samples, encoder_folder, load_kind):
    waveform = noise(n_samples)
    states, n_frames = states_of(load_kind(kind), waveform)
    expected, output, model = published_states(encoder_folder(kind), waveform)
    assert len(states) == len(expected) == N_LAYERS + 1
    assert n_frames == expected[0].shape[1]
    for state, own in zip(states[:-1], expected[:-1], strict=True):
        assert_close(state, own)
    # The last state is the encoder's output. Where a norm follows the last layer,
    # transformers lists that state before the norm.
    assert_close(states[-1], output)
    if kind in PRE_NORM:
        with torch.inference_mode():
            assert_close(states[-1], model.encoder.layer_norm(expected[-1]))
        assert not torch.allclose(expected[-1], output, atol=0.1)
    else:
        assert_close(states[-1], expected[-1])


@pytest.mark.parametrize("kind", CONVOLUTIONAL)
def test_as_many_frames_are_counted_as_transformers_counts(kind, encoder_folder, load_kind):
    lengths = torch.tensor([400, 401, 719, 720, 721, 1039, 1040, 16_000, 320_000])
    model = AutoModel.from_pretrained(encoder_folder(kind))
    expected = model._get_feat_extract_output_lengths(lengths)
    encoder = load_kind(kind).encoder
    torch.testing.assert_close(encoder.count_frames(lengths), expected)
    assert encoder.receptive_field == 400
    assert encoder.strides == (5, 2, 2, 2, 2, 2, 2)


@pytest.mark.parametrize("n_samples", [1, 320, 399])
@pytest.mark.parametrize("kind", ["wav2vec2", "xls-r"])
def test_a_click_is_one_frame_of_sound_with_silence_after_it(kind, n_samples, load_kind):
    loaded = load_kind(kind)
    click = noise(n_samples)
    states, n_frames = states_of(loaded, click)
    assert n_frames == 1
    # Silence is what the normalised sound has as its mean: an oracle in NumPy.
    normalised = (click - click.mean()) / np.sqrt(click.var() + 1e-7)
    loaded.encoder._normalize = False
    silent_end = np.pad(normalised, (0, 400 - n_samples)).astype(np.float32)
    for state, expected in zip(states, states_of(loaded, silent_end)[0], strict=True):
        assert_close(state, expected)


@pytest.fixture(scope="module")
def whisper(encoder_folder):
    folder = encoder_folder("whisper")
    model = WhisperModel.from_pretrained(folder).encoder.eval()
    front_end = AutoFeatureExtractor.from_pretrained(folder)

    def embed_and_run(waveform):
        mel = front_end(waveform, sampling_rate=16_000, return_tensors="pt").input_features
        with torch.inference_mode():
            # What the first layer takes is the first hidden state that it lists.
            return model(mel, output_hidden_states=True)

    return embed_and_run


@pytest.mark.parametrize("n_samples", [1, 160, 320, 321, 400, 5001, 16_000, 479_680, 479_681])
def test_whisper_embeds_the_clip_as_the_original_embeds_its_30_seconds(
    n_samples, whisper, load_kind
):
    waveform = noise(n_samples)
    with torch.inference_mode():
        hidden, n_frames = load_kind("whisper").encoder.embed(
            torch.from_numpy(waveform)[None], torch.tensor([n_samples])
        )
    assert int(n_frames) == hidden.shape[1] == -(-n_samples // 320)
    expected = whisper(waveform).hidden_states[0]
    assert expected.shape == (1, 1500, WIDTH)
    assert_close(hidden, expected[:, : int(n_frames)])


def test_whisper_on_30_seconds_is_the_original(whisper, load_kind):
    waveform = noise(480_000)
    waveform[-100:] = 0.9  # the very end is heard too
    states, n_frames = states_of(load_kind("whisper"), waveform)
    expected = whisper(waveform)
    assert n_frames == 1500
    for state, own in zip(states, expected.hidden_states, strict=True):
        assert_close(state, own)
    assert_close(states[-1], expected.last_hidden_state)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", range(N_LAYERS + 1))
def test_running_from_any_state_is_the_rest_of_the_whole_pass(kind, first, load_kind):
    loaded = load_kind(kind)
    waveforms = torch.zeros(2, 6000)
    n_samples = torch.tensor([6000, 2500])
    for row, n in enumerate(n_samples.tolist()):
        waveforms[row, :n] = torch.from_numpy(noise(n, seed=row))
    with torch.inference_mode():
        states, n_frames = loaded.encoder(waveforms, n_samples)
        rest = loaded.encoder.run(states[first], n_frames, first)
        between = loaded.encoder.run(states[first], n_frames, first, N_LAYERS - 1)
    assert len(rest) == N_LAYERS - first
    assert len(between) == max(N_LAYERS - 1 - first, 0)
    for state, expected in zip(rest, states[first + 1 :], strict=True):
        torch.testing.assert_close(state, expected, rtol=0, atol=0)
    for state, expected in zip(between, states[first + 1 : N_LAYERS], strict=True):
        torch.testing.assert_close(state, expected, rtol=0, atol=0)
