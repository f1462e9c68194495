import numpy as np
import pytest
import torch
from torch import nn

from koser.models.checkpoint import trained_state
from koser.models.fusion import FusionOptions, make_fusion
from koser.training.pairs import Pair, collate_pairs

KINDS = ("concat", "gated", "cross_attention")
N_AUDIO, N_TEXT, N_LABELS = 5, 7, 3
RNG = np.random.default_rng(0)


def network(kind, *, seed=0, **options):
    torch.manual_seed(seed)
    chosen = FusionOptions(kind=kind, width=8, n_heads=2, **options)
    made = make_fusion(chosen, audio_shape=(N_AUDIO,), n_text=N_TEXT, n_labels=N_LABELS)
    with torch.no_grad():
        for modality in (made.audio, made.text):
            modality.standardizer.mean.normal_()
            modality.standardizer.scale.uniform_(0.5, 2)
    return made.eval()


def arrays(kind, *, n_frames=9, n_tokens=4):
    if kind == "cross_attention":
        shapes = (N_AUDIO, n_frames), (N_TEXT, n_tokens)
    else:
        shapes = (N_AUDIO,), (N_TEXT,)
    return Pair(*(RNG.normal(size=shape).astype(np.float32) for shape in shapes))


def logits(made, kind, pairs):
    sizes = (N_AUDIO, N_TEXT)
    inputs = collate_pairs(pairs, sizes, has_sequences=kind == "cross_attention")
    with torch.inference_mode():
        return made(*inputs).numpy()


def test_the_documents_network_is_exactly_what_it_says():
    made = make_fusion(FusionOptions(), audio_shape=(40,), n_text=768, n_labels=7)
    sizes = [
        (layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else type(layer)
        for layer in made.layers
    ]
    assert sizes == [
        (808, 256), nn.GELU, nn.Dropout, (256, 128), nn.GELU, nn.Dropout, (128, 7),
    ]  # fmt: skip


def test_the_documents_network_concatenates_what_is_standardised():
    made = network("concat")
    pair = arrays("concat")
    by_hand = torch.cat(
        [
            (torch.from_numpy(values) - modality.standardizer.mean) / modality.standardizer.scale
            for values, modality in ((pair.audio, made.audio), (pair.text, made.text))
        ]
    )
    with torch.inference_mode():
        expected = made.layers(by_hand).numpy()
    np.testing.assert_allclose(logits(made, "concat", [pair])[0], expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missing_is_a_vector_that_is_learned(kind):
    made = network(kind)
    pair = arrays(kind)
    without = Pair(pair.audio, None)
    before = logits(made, kind, [without])
    sizes = (N_AUDIO, N_TEXT)
    inputs = collate_pairs([without, pair], sizes, has_sequences=kind == "cross_attention")
    made(*inputs)[0].sum().backward()
    assert float(made.text.missing.grad.abs().max()) > 0
    assert made.audio.missing.grad is None or float(made.audio.missing.grad.abs().max()) == 0
    assert {"text.missing", "audio.missing"} <= trained_state(made).keys()
    with torch.no_grad():
        made.text.missing.add_(1.0)
    assert np.abs(logits(made, kind, [without]) - before).max() > 1e-3
    # and an empty text is no average one
    mean = made.text.standardizer.mean.numpy()
    average = mean[:, None] if kind == "cross_attention" else mean
    assert np.abs(logits(made, kind, [Pair(pair.audio, average)]) - before).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_both_modalities_count(kind):
    made = network(kind)
    pair, other = arrays(kind), arrays(kind)
    plain = logits(made, kind, [pair])
    for changed in (Pair(other.audio, pair.text), Pair(pair.audio, other.text)):
        assert np.abs(logits(made, kind, [changed]) - plain).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_an_utterance_is_the_same_alone_and_in_any_batch(kind):
    made = network(kind)
    pairs = [
        arrays(kind, n_frames=n, n_tokens=m) for n, m in ((1, 1), (4, 9), (17, 2), (30, 5), (6, 1))
    ]
    pairs += [Pair(pairs[2].audio, None), Pair(None, pairs[3].text)]
    together = logits(made, kind, pairs)
    for place, pair in enumerate(pairs):
        np.testing.assert_allclose(together[place], logits(made, kind, [pair])[0], atol=1e-5)


def test_a_frame_of_cross_attention_is_a_mean_over_real_frames_only():
    made = network("cross_attention")
    pair = arrays("cross_attention", n_frames=6)
    # The last two of six frames are one: their mean, not a quarter of their sum.
    twice = np.concatenate([pair.audio[:, :4], pair.audio[:, 4:].repeat(2, axis=1)], axis=1)
    expected = logits(made, "cross_attention", [Pair(twice, pair.text)])
    got = logits(made, "cross_attention", [pair])
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_gate_lets_either_side_through_alone():
    made = network("gated")
    pair, other = arrays("gated"), arrays("gated")
    for bias, changed in (
        (50.0, Pair(pair.audio, other.text)),
        (-50.0, Pair(other.audio, pair.text)),
    ):
        with torch.no_grad():
            made.gate.weight.zero_()
            made.gate.bias.fill_(bias)
        np.testing.assert_allclose(
            logits(made, "gated", [pair]), logits(made, "gated", [changed]), atol=1e-6
        )
