from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.encoders import KINDS, N_LAYERS, WIDTH
from koser.errors import ConfigError
from koser.features.speech.extractors import TrunkExtractor
from koser.features.speech.windows import split_windows
from koser.models.heads import HeadOptions
from koser.models.speech import (
    FineTunedEncoder,
    FramesHead,
    StatisticsHead,
    TuneOptions,
    join_windows,
)
from koser.training.batches import pad_windows

N_LABELS = 3
WINDOW_SECONDS = 0.6
POOLINGS = ["mean", "mean+std", "attentive"]
PLAIN = HeadOptions()


def randomize(module):
    """Give every parameter of a head a value that counts, as after training."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5, generator=generator)


def sounds(*lengths):
    rng = np.random.default_rng(0)
    return [
        rng.normal(0.01 * i, 0.1 + 0.05 * i, n).astype(np.float32) for i, n in enumerate(lengths)
    ]


def tuned(loaded, tune, head=PLAIN, *, from_waveforms=True):
    """A network whose head is random, the same for the same arguments."""
    torch.manual_seed(0)  # of attentive pooling and of adapters
    network = FineTunedEncoder(
        loaded.encoder, N_LABELS, head, tune, from_waveforms=from_waveforms
    ).eval()
    randomize(network.classifier)
    return network


def windows_of(waveforms):
    return pad_windows([split_windows(each, round(16_000 * WINDOW_SECONDS)) for each in waveforms])


def logits_of(network, waveforms):
    with torch.no_grad():
        return network(*windows_of(waveforms))


def step(network, waveforms, *, only=lambda name: True):
    """One step of plain gradient descent of the parameters that `only` picks."""
    loss = torch.nn.functional.cross_entropy(
        network(*windows_of(waveforms)), torch.arange(len(waveforms)) % N_LABELS
    )
    network.zero_grad()
    loss.backward()
    trained = [p for name, p in network.named_parameters() if p.requires_grad and only(name)]
    torch.optim.SGD(trained, lr=0.1).step()


# Heads on what is stored of a frozen encoder.


@pytest.mark.parametrize(("pooling", "n_statistics"), [("mean", 1), ("mean+std", 2)])
@pytest.mark.parametrize("layers", ["weighted", "last", 1])
def test_a_head_on_statistics_looks_at_the_chosen_states_and_moments(pooling, n_statistics, layers):
    head = StatisticsHead(4, 8, N_LABELS, HeadOptions(layers=layers, pooling=pooling)).eval()
    randomize(head)
    statistics = torch.randn(5, 4, 2, 8)
    before = head(statistics)
    assert before.shape == (5, N_LABELS)
    looked_at = HeadOptions(layers=layers).states(3)
    for state in range(4):
        for moment in range(2):
            changed = statistics.clone()
            changed[:, state, moment] += 1.0
            is_same = torch.equal(head(changed), before)
            assert is_same == (state not in looked_at or moment >= n_statistics)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_head_on_frames_ignores_padding(pooling):
    torch.manual_seed(0)
    head = FramesHead(3, 8, N_LABELS, HeadOptions(pooling=pooling)).eval()
    randomize(head)
    frames, n_frames = torch.randn(2, 3, 8, 11), torch.tensor([11, 4])
    alone = [head(frames[i : i + 1, :, :, :n], n_frames[i : i + 1]) for i, n in enumerate((11, 4))]
    frames[1, :, :, 4:] = 1e6
    torch.testing.assert_close(head(frames, n_frames), torch.cat(alone))


@pytest.mark.parametrize("pooling", ["mean", "mean+std"])
def test_heads_on_frames_and_on_their_statistics_are_the_same_head(pooling):
    options = HeadOptions(pooling=pooling)
    frames = torch.randn(4, 3, 8, 50, dtype=torch.float64).float()
    on_frames = FramesHead(3, 8, N_LABELS, options).eval()
    randomize(on_frames)
    on_statistics = StatisticsHead(3, 8, N_LABELS, options).eval()
    on_statistics.load_state_dict(on_frames.state_dict())
    statistics = torch.stack([frames.mean(3), frames.std(3, correction=0)], 2)
    logits = on_frames(frames, torch.full((4,), 50))
    torch.testing.assert_close(on_statistics(statistics), logits, rtol=1e-3, atol=1e-3)


# The last layers of an encoder, trained.


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_trunk_gives_the_logits_of_the_waveforms(kind, load_kind):
    loaded = load_kind(kind, window_seconds=WINDOW_SECONDS)
    waveforms = sounds(25_000, 320, 6000, 14_000)  # 3, 1, 1 and 2 windows
    tune = TuneOptions(layers=2)
    plain = logits_of(tuned(loaded, tune), waveforms)
    stored = TrunkExtractor(loaded, N_LAYERS - 2, dtype="float32").extract(waveforms)
    network = tuned(loaded, tune, from_waveforms=False)
    with torch.no_grad():
        logits = network(*pad_windows(stored))
    assert logits.shape == (4, N_LABELS)
    torch.testing.assert_close(logits, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layers", [1, "all"])
def test_logits_of_an_utterance_do_not_depend_on_its_batch(pooling, layers, load_kind):
    head = HeadOptions(pooling=pooling)
    network = tuned(load_kind("data2vec"), TuneOptions(layers=layers), head)
    waveforms = sounds(25_000, 320, 6000, 14_000)
    alone = torch.cat([logits_of(network, [waveform]) for waveform in waveforms])
    torch.testing.assert_close(logits_of(network, waveforms), alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("layers", "states"), [("weighted", [1, 2, 3]), ("last", [3]), (2, [2]), (3, [3])]
)
def test_a_tuned_head_pools_the_states_from_the_trunk_on(layers, states, load_kind):
    loaded = load_kind("xls-r")
    (waveform,) = sounds(8000)
    network = tuned(loaded, TuneOptions(layers=2), HeadOptions(layers=layers))
    with torch.no_grad():
        pooled = network.pool(*windows_of([waveform]))
        every, _ = loaded.encoder(torch.from_numpy(waveform)[None], torch.tensor([8000]))
    expected = torch.stack([every[state].mean(1) for state in states], 1)
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layers", [0, 1])
def test_a_head_below_the_trained_layers_is_refused(layers, load_kind):
    with pytest.raises(ConfigError, match=rf"head\.layers = {layers} lies below .*Give 2 or more"):
        tuned(load_kind("wav2vec2"), TuneOptions(layers=2), HeadOptions(layers=layers))


@pytest.mark.parametrize("layers", [0, -1, N_LAYERS + 1])
def test_more_layers_than_the_encoder_has_cannot_be_trained(layers, load_kind):
    with pytest.raises(ConfigError, match=rf"tune\.layers = {layers}: .* 3 layers\. Give 1 to 3"):
        tuned(load_kind("wav2vec2"), TuneOptions(layers=layers))


@pytest.mark.parametrize("kind", KINDS)
def test_training_changes_the_last_layers_and_leaves_the_trunk(kind, load_kind):
    loaded = load_kind(kind, window_seconds=WINDOW_SECONDS)
    loaded.encoder.requires_grad_(True)  # as another network may have left it
    network = tuned(loaded, TuneOptions(layers=2))
    before = {name: value.clone() for name, value in loaded.encoder.state_dict().items()}
    network.train()
    step(network, sounds(9000, 3000, 5000))
    changed = {
        name
        for name, value in loaded.encoder.state_dict().items()
        if not torch.equal(value, before[name])
    }
    # The gradient of a key's bias is 0: it adds the same to all scores of a query.
    above = {
        name
        for name, _ in loaded.encoder.named_parameters()
        if name.startswith(("layers.1.", "layers.2.", "final_norm."))
        and not name.endswith("k_proj.bias")
    }
    assert changed - {name for name in changed if name.endswith("k_proj.bias")} == above
    for name, parameter in loaded.encoder.named_parameters():
        is_tuned = name.startswith(("layers.1.", "layers.2.", "final_norm."))
        assert parameter.requires_grad == is_tuned, name
        assert (parameter.grad is not None) == is_tuned, name


def test_the_trunk_is_no_part_of_the_network(load_kind):
    loaded = load_kind("hubert")
    network = tuned(loaded, TuneOptions(layers=1))
    own = {id(parameter) for parameter in network.parameters()}
    trunk = {id(parameter) for parameter in loaded.encoder.layers[:2].parameters()}
    assert own.isdisjoint(trunk)
    assert {id(p) for p in loaded.encoder.layers[2].parameters()} < own


@pytest.mark.parametrize("kind", ["wav2vec2", "whisper"])
def test_in_training_dropout_is_on_in_the_last_layers_and_off_in_the_trunk(kind, load_kind):
    loaded = load_kind(kind)
    network = tuned(loaded, TuneOptions(layers=1)).train()
    for module in loaded.encoder.layers[2].modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.1  # as published Whispers have none
    *below, last = loaded.encoder.layers
    assert not any(module.training for layer in below for module in layer.modules())
    assert all(module.training for module in last.modules())
    windows, n_samples, owners = windows_of(sounds(8000))
    first, second = (network.run_trunk(windows, n_samples)[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(
        network.pool(windows, n_samples, owners), network.pool(windows, n_samples, owners)
    )
    assert not any(module.training for module in network.eval().modules())


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_encoder_can_be_trained(kind, load_kind):
    loaded = load_kind(kind, window_seconds=WINDOW_SECONDS)
    network = tuned(loaded, TuneOptions(layers="all"))
    before = {name: value.clone() for name, value in loaded.encoder.named_parameters()}
    buffers = {name: value.clone() for name, value in loaded.encoder.named_buffers()}
    network.train()
    step(network, sounds(9000, 3000, 5000))
    for name, parameter in loaded.encoder.named_parameters():
        assert parameter.requires_grad, name
        if not name.endswith("k_proj.bias"):
            assert not torch.equal(parameter, before[name]), name
    # What was measured or fixed in pretraining stays: batch norms, sinusoids.
    assert ("positions" in buffers) == (kind == "whisper")
    for name, value in loaded.encoder.named_buffers():
        torch.testing.assert_close(value, buffers[name], rtol=0, atol=0)


def test_padding_has_no_part_in_training_where_there_is_batch_normalisation(load_kind):
    loaded = load_kind("hubert-batch-norm", window_seconds=WINDOW_SECONDS)
    network = tuned(loaded, TuneOptions(layers="all")).train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in loaded.encoder.layers:
        layer.attention.dropout = 0.0
    short, long = sounds(3000, 9000)
    alone, together = logits_of(network, [short]), logits_of(network, [short, long])
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["wav2vec2", "xls-r", "wavlm", "whisper"])
@pytest.mark.parametrize("layers", [1, 3, "all"])
@pytest.mark.parametrize("lora_rank", [0, 2])
def test_every_trained_parameter_has_one_rate_that_decreases_downwards(
    kind, layers, lora_rank, load_kind
):
    loaded = load_kind(kind)
    tune = TuneOptions(layers=layers, lora_rank=lora_rank, rate=0.2, rate_decay=0.5)
    network = tuned(loaded, tune)
    groups = network.parameter_groups()
    grouped = [id(parameter) for parameters, _ in groups for parameter in parameters]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in network.parameters() if p.requires_grad}
    rate = {id(p): share for parameters, share in groups for p in parameters}

    def rates(module):
        return {rate[id(p)] for p in module.parameters() if p.requires_grad}

    n_tuned = N_LAYERS if layers == "all" else layers
    of_layers = [rates(layer) for layer in loaded.encoder.layers[N_LAYERS - n_tuned :]]
    assert of_layers == [{0.2 * 0.5**depth} for depth in reversed(range(n_tuned))]
    assert all(max(below) < min(above) for below, above in pairwise(of_layers))
    assert rates(network.classifier) == {1.0}
    if loaded.encoder.final_norm is not None and not lora_rank:
        assert rates(loaded.encoder.final_norm) == {0.2}
    if layers == "all" and not lora_rank:
        front = loaded.encoder.conv1 if kind == "whisper" else loaded.encoder.convolutions
        assert rates(front) == {0.2 * 0.5**N_LAYERS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [2, "all"])
def test_adapters_start_without_effect_and_gain_it_in_training(kind, layers, load_kind):
    waveforms = sounds(9000, 3000, 5000)
    loaded = load_kind(kind, window_seconds=WINDOW_SECONDS)
    plain = logits_of(tuned(loaded, TuneOptions(layers=layers)), waveforms)
    loaded = load_kind(kind, window_seconds=WINDOW_SECONDS)
    network = tuned(loaded, TuneOptions(layers=layers, lora_rank=2))
    torch.testing.assert_close(logits_of(network, waveforms), plain, rtol=1e-4, atol=1e-4)

    trained = {name for name, p in loaded.encoder.named_parameters() if p.requires_grad}
    n_tuned = N_LAYERS if layers == "all" else layers
    assert len(trained) == n_tuned * 2 * 2  # layers, places of a layer, factors of an adapter
    assert all("lora_" in name for name in trained)
    assert all(p.requires_grad for p in network.classifier.parameters())

    is_adapter = lambda name: "lora_" in name  # noqa: E731
    for _ in range(2):  # one factor starts at zero: the other's gradient does too
        step(network, waveforms, only=is_adapter)
    gradients = {n: p.grad for n, p in loaded.encoder.named_parameters() if p.requires_grad}
    assert all(bool((gradient != 0).any()) for gradient in gradients.values())
    difference = (logits_of(network, waveforms) - plain).abs().max()
    assert float(difference) > 1e-3


def test_adapters_are_far_fewer_than_what_they_stand_for(load_kind):
    def n_trained(lora_rank):
        network = tuned(load_kind("wav2vec2"), TuneOptions(layers=2, lora_rank=lora_rank))
        return sum(p.numel() for p in network.tuned.parameters() if p.requires_grad)

    assert n_trained(1) == 2 * 2 * 2 * WIDTH
    assert n_trained(2) == 2 * n_trained(1)
    assert 10 * n_trained(2) < n_trained(0)


# Windows of an utterance, one after another.


@settings(max_examples=30, deadline=None)
@given(
    n_windows=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    data=st.data(),
)
def test_windows_are_joined_as_a_loop_joins_them(n_windows, data):
    total = sum(n_windows)
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=total, max_size=total))
    frames = torch.arange(total * 6 * 2, dtype=torch.float32).reshape(total, 6, 2) + 1
    owners = torch.repeat_interleave(torch.arange(len(n_windows)), torch.tensor(n_windows))
    joined, n_frames = join_windows(frames, torch.tensor(lengths), owners)
    assert len(joined) == len(n_windows)
    for utterance in range(len(n_windows)):
        expected = []
        for window in range(total):
            if owners[window] == utterance:
                expected += frames[window, : lengths[window]].tolist()
        assert n_frames[utterance] == len(expected)
        assert joined[utterance, : len(expected)].tolist() == expected
