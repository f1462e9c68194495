import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fixtures.encoders import N_LAYERS, WIDTH, save_encoder
from koser.audio.augmentation import change_speed
from koser.errors import EncoderError, StoreError
from koser.features.extraction import BatchExtractor
from koser.features.speech import extractors
from koser.features.speech.extractors import FramesExtractor, StatisticsExtractor, TrunkExtractor
from koser.features.speech.loading import EncoderOptions, load_encoder
from koser.features.speech.windows import split_windows

WINDOW_SECONDS = 0.6
MADE = {
    "statistics": StatisticsExtractor,
    "frames": lambda loaded, **options: FramesExtractor(loaded, (0, 2, 3), **options),
    "trunk": lambda loaded, **options: TrunkExtractor(loaded, 1, **options),
}


def sounds(*lengths):
    rng = np.random.default_rng(0)
    return [
        rng.normal(0.01 * i, 0.1 + 0.05 * i, n).astype(np.float32) for i, n in enumerate(lengths)
    ]


@pytest.fixture(scope="module")
def loaded(load_kind):
    return load_kind("wav2vec2", window_seconds=WINDOW_SECONDS)


def window_states(loaded, waveform):
    """States of each window by itself [each shape=(n_states, n_frames, width), float64]."""
    with torch.inference_mode():
        return [
            np.stack(
                loaded.encoder(torch.from_numpy(window)[None], torch.tensor([len(window)]))[0]
            )[:, 0].astype(np.float64)
            for window in split_windows(waveform, round(16_000 * WINDOW_SECONDS))
        ]


@pytest.mark.parametrize("n_samples", [320, 5000, 25_000])
def test_statistics_are_those_of_numpy_over_the_frames_of_all_windows(loaded, n_samples):
    (waveform,) = sounds(n_samples)
    frames = np.concatenate(window_states(loaded, waveform), axis=1)
    (statistics,) = StatisticsExtractor(loaded, dtype="float32").extract([waveform])
    assert statistics.shape == (N_LAYERS + 1, 2, WIDTH)
    np.testing.assert_allclose(statistics[:, 0], frames.mean(1), rtol=0, atol=1e-5)
    # A deviation is the root of a difference: of one frame it is 0, but for rounding.
    np.testing.assert_allclose(statistics[:, 1], frames.std(1), rtol=0, atol=1e-5)


def test_frames_are_those_of_the_chosen_states_window_after_window(loaded):
    (waveform,) = sounds(25_000)
    windows = window_states(loaded, waveform)
    assert len(windows) == 3
    (frames,) = FramesExtractor(loaded, (0, 2, 3), dtype="float32").extract([waveform])
    expected = np.concatenate(windows, axis=1)[[0, 2, 3]].transpose(0, 2, 1)
    np.testing.assert_allclose(frames, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("state", range(N_LAYERS + 1))
def test_the_trunk_is_one_state_window_by_window(loaded, state):
    (waveform,) = sounds(25_000)
    (trunk,) = TrunkExtractor(loaded, state, dtype="float32").extract([waveform])
    expected = np.stack([window[state].T for window in window_states(loaded, waveform)])
    np.testing.assert_allclose(trunk, expected, rtol=0, atol=1e-4)
    assert trunk.shape == (3, WIDTH, 25)  # windows of 8334 samples: 25 frames


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_what_is_extracted_together_does_not_matter(loaded, make):
    waveforms = sounds(25_000, 320, 9600, 4000, 9601)
    extractor = make(loaded, dtype="float32")
    together = extractor.extract(waveforms)
    assert len(together) == len(waveforms)
    for waveform, features in zip(waveforms, together, strict=True):
        np.testing.assert_allclose(features, extractor.extract([waveform])[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_long_utterance_is_computed_in_batches_of_bounded_size(loaded, make, monkeypatch):
    sizes = []
    embed = loaded.encoder.embed

    def measure(waveforms, n_samples):
        sizes.append(waveforms.numel())
        return embed(waveforms, n_samples)

    extractor = make(loaded, dtype="float32")
    waveforms = sounds(100_000, 6000)
    plain = extractor.extract(waveforms)
    monkeypatch.setattr(loaded.encoder, "embed", measure)
    monkeypatch.setattr(extractors, "_CPU_BATCH_SECONDS", 1.3)
    bounded = extractor.extract(waveforms)
    assert len(sizes) > 3
    assert max(sizes) <= 1.3 * 16_000
    for one, other in zip(plain, bounded, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_half_precision_rounds_single_precision(loaded, make):
    waveforms = sounds(9000)
    (single,) = make(loaded, dtype="float32").extract(waveforms)
    (half,) = make(loaded).extract(waveforms)
    assert (single.dtype, half.dtype) == (np.float32, np.float16)
    np.testing.assert_array_equal(half, single.astype(np.float16))


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_states_too_large_for_half_precision_are_refused(load_kind, make):
    loaded = load_kind("wav2vec2")
    with torch.no_grad():
        for layer in loaded.encoder.layers:
            layer.final_layer_norm.weight *= 1e6
        loaded.encoder.embedding_norm.weight *= 1e6
    with pytest.raises(StoreError, match=r"Hidden states of '.*' reach .*, which float16 cannot.*"):
        make(loaded).extract(sounds(5000))
    assert np.isfinite(make(loaded, dtype="float32").extract(sounds(5000))[0]).all()


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_states_that_are_no_numbers_are_not_blamed_on_the_precision(load_kind, make, dtype, value):
    """No precision would hold them: the advice to keep float32 could not help."""
    loaded = load_kind("wav2vec2")
    with torch.no_grad():
        loaded.encoder.embedding_norm.bias[0] = float(value)
    with pytest.raises(EncoderError, match=r"weights .* are damaged.*NaN.*again\.$") as caught:
        make(loaded, dtype=dtype).extract(sounds(5000))
    assert str(loaded.options.name) in str(caught.value)
    assert "keep" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_faster_voice_is_that_of_the_waveform_made_faster_before(loaded, make):
    waveforms = sounds(12_000, 5000)
    fast = make(loaded, speed=1.1, dtype="float32").extract(waveforms)
    changed = [change_speed(waveform, 1.1) for waveform in waveforms]
    expected = make(loaded, dtype="float32").extract(changed)
    for one, other in zip(fast, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_is_extracted_of_nothing(loaded):
    assert StatisticsExtractor(loaded).extract([]) == []


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_an_extractor_is_one_for_the_store_and_for_workers(loaded, make):
    extractor = make(loaded, speed=0.9)
    assert isinstance(extractor, BatchExtractor)
    assert not extractor.is_on_gpu
    copy = pickle.loads(pickle.dumps(extractor))
    assert copy.describe() == extractor.describe()
    waveforms = sounds(3000)
    np.testing.assert_array_equal(copy.extract(waveforms)[0], extractor.extract(waveforms)[0])


def test_a_worker_refuses_an_encoder_that_has_changed_meanwhile(tmp_path):
    folder = save_encoder("wav2vec2", tmp_path / "encoder")
    pickled = pickle.dumps(StatisticsExtractor(load_encoder(EncoderOptions(name=str(folder)))))
    save_encoder("wav2vec2", folder, seed=1)
    with pytest.raises(ValueError, match="is not the encoder that is wanted"):
        pickle.loads(pickled)


# What is described: all that a result depends on, and nothing else.


def describe(folder, *, window_seconds=WINDOW_SECONDS, **options):
    loaded = load_encoder(EncoderOptions(name=str(folder), window_seconds=window_seconds))
    return FramesExtractor(loaded, options.pop("states", (0, 1)), **options).describe()


def set_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture
def folder(encoder_folder, tmp_path):
    return shutil.copytree(encoder_folder("wav2vec2"), tmp_path / "elsewhere" / "other name")


def test_a_description_is_json_and_knows_no_path(encoder_folder, folder):
    text = json.dumps(describe(folder), sort_keys=True)
    assert text == json.dumps(describe(encoder_folder("wav2vec2")), sort_keys=True)
    assert "other name" not in text


@pytest.mark.parametrize(
    "options",
    [{"window_seconds": 0.7}, {"speed": 0.9}, {"states": (0, 2)}],
    ids=lambda each: next(iter(each)),
)
def test_a_description_tells_settings_apart(folder, options):
    assert describe(folder) != describe(folder, **options)


@pytest.mark.parametrize(
    "name",
    ["encoder.layers.2.final_layer_norm.bias", "feature_extractor.conv_layers.0.conv.weight"],
)
def test_one_changed_weight_is_another_encoder(folder, name):
    before = describe(folder)
    weights = load_file(folder / "model.safetensors")
    weights[name].view(-1)[0] += 1e-4
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert describe(folder) != before


@pytest.mark.parametrize(
    "setting",
    [
        {"num_attention_heads": 4},
        {"hidden_act": "relu"},
        {"feat_extract_activation": "relu"},
        {"layer_norm_eps": 1e-3},
        {"conv_stride": [5, 2, 2, 2, 2, 2, 1]},
    ],
    ids=lambda each: next(iter(each)),
)
def test_the_same_weights_used_otherwise_are_another_encoder(folder, setting, loaded):
    before = describe(folder)
    set_json(folder / "config.json", **setting)
    other = load_encoder(EncoderOptions(name=str(folder), window_seconds=WINDOW_SECONDS))
    features = [
        TrunkExtractor(each, 1, dtype="float32").extract(sounds(5000))[0]
        for each in (loaded, other)
    ]
    assert features[0].shape != features[1].shape or not np.allclose(*features, atol=1e-6)
    assert describe(folder) != before


def test_unnormalised_waveforms_are_another_encoder(folder):
    before = describe(folder)
    set_json(folder / "preprocessor_config.json", do_normalize=False)
    assert describe(folder) != before


@pytest.mark.parametrize("setting", [{"hidden_dropout": 0.5}, {"mask_time_prob": 0.3}])
def test_what_only_training_uses_does_not_count(folder, setting):
    before = describe(folder)
    set_json(folder / "config.json", **setting)
    assert describe(folder) == before
