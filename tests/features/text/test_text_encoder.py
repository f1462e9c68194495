import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, BertModel

from fixtures.encoders import save_encoder
from fixtures.text import TEXT_KINDS, WIDTH, save_text_model
from koser.errors import EncoderError
from koser.features.text.embedding import embed_texts, text_key, text_keys
from koser.features.text.encoder import TextExtractor, TextOptions, load_text_encoder

TEXTS = ["a", "abcdefgh", "the quick brown fox", "ok", "z y x"]


def load(folder, **options):
    return load_text_encoder(TextOptions(name=str(folder), **options))


def refusal(folder, **options):
    with pytest.raises(EncoderError) as caught:
        load(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@torch.inference_mode()
def last_states(folder, text):
    """What transformers makes of one text [shape=(n_tokens, width)]."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    return model(**tokenizer([text], return_tensors="pt")).last_hidden_state[0].numpy()


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_each_pooling_is_that_of_transformers_for_the_text_alone(kind, text_folder):
    folder = text_folder(kind)
    cls = TextExtractor(load(folder), keep="pooled").extract(TEXTS)
    mean = TextExtractor(load(folder, pooling="mean"), keep="pooled").extract(TEXTS)
    tokens = TextExtractor(load(folder), keep="tokens").extract(TEXTS)
    for place, text in enumerate(TEXTS):
        expected = last_states(folder, text)
        np.testing.assert_allclose(cls[place], expected[0], atol=1e-5)
        np.testing.assert_allclose(mean[place], expected.mean(0), atol=1e-5)
        # Half precision: half a unit in the last of 11 bits.
        np.testing.assert_allclose(tokens[place], expected.T, rtol=2**-11, atol=1e-5)


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_a_text_does_not_depend_on_what_it_is_batched_with(kind, text_folder):
    for pooling in ("cls", "mean"):
        extractor = TextExtractor(load(text_folder(kind), pooling=pooling), keep="pooled")
        together = extractor.extract(TEXTS)
        backwards = extractor.extract(TEXTS[::-1])[::-1]
        for place, text in enumerate(TEXTS):
            (alone,) = extractor.extract([text])
            np.testing.assert_allclose(together[place], alone, atol=1e-5)
            np.testing.assert_allclose(backwards[place], alone, atol=1e-5)


def test_a_missing_pooler_is_never_a_random_one(text_folder, tmp_path):
    whole = load(text_folder("bert"))
    assert "pooler.dense.weight" in load_file(text_folder("bert") / "model.safetensors")
    folder = shutil.copytree(text_folder("bert"), tmp_path / "without")
    BertModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    assert "pooler.dense.weight" not in load_file(folder / "model.safetensors")
    without = load(folder)
    assert without.options.fingerprint == whole.options.fingerprint
    assert not [name for name in without.model.state_dict() if "pooler" in name]
    vectors = [TextExtractor(each, keep="pooled").extract(TEXTS) for each in (whole, without)]
    np.testing.assert_array_equal(vectors[0], vectors[1])


def test_a_prefix_is_part_of_the_text(text_folder):
    prefixed = TextExtractor(load(text_folder(), prefix="query: "), keep="pooled").extract(TEXTS)
    plain = TextExtractor(load(text_folder()), keep="pooled")
    np.testing.assert_allclose(prefixed, plain.extract([f"query: {text}" for text in TEXTS]))


def test_a_text_that_is_too_long_is_cut_and_said_to_be(text_folder, caplog):
    extractor = TextExtractor(load(text_folder(), max_tokens=6), keep="tokens")
    long, short = extractor.extract(["abcdefghij", "abc"])
    assert (long.shape, short.shape) == ((WIDTH, 6), (WIDTH, 5))
    assert "1 texts are longer than 6 tokens" in caplog.text
    # The model knows 40 positions, whatever is asked for.
    assert load(text_folder(), max_tokens=500).options.max_tokens == 40
    assert load(text_folder("roberta"), max_tokens=500).options.max_tokens == 38
    for kind in ("bert", "roberta"):
        TextExtractor(load(text_folder(kind)), keep="pooled").extract(["a" * 100])


def test_a_text_model_is_its_weights_and_its_vocabulary(text_folder, tmp_path):
    found = load(text_folder())
    moved = load(shutil.copytree(text_folder(), tmp_path / "moved"))
    assert moved.describe() == found.describe()
    other = save_text_model(tmp_path / "other", seed=1)
    assert load(other).options.fingerprint != found.options.fingerprint
    message = refusal(other, fingerprint=found.options.fingerprint)
    assert re.search(r"not the text model that is wanted.*--text-model", message)
    swapped = shutil.copytree(text_folder(), tmp_path / "swapped")
    tokenizer = (swapped / "tokenizer.json").read_text(encoding="utf-8")
    swapped_text = tokenizer.replace('"a": 5', '"a": 6').replace('"b": 6', '"b": 5')
    (swapped / "tokenizer.json").write_text(swapped_text, encoding="utf-8")
    assert load(swapped).options.fingerprint != found.options.fingerprint


def _incomplete(folder):
    save_text_model(folder)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _without_tokenizer(folder):
    save_text_model(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


def _of_another(folder):
    from transformers import BertConfig

    save_text_model(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=20, intermediate_size=32, **sizes)).save_pretrained(folder)


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (lambda folder: save_encoder("wav2vec2", folder), r"no text model .*'wav2vec2'.*bert"),
        (lambda folder: folder.mkdir(), r"holds no model .*tokenizer\.json"),
        (_incomplete, r"lacks 1 of the text model's weights .*output\.dense\.bias"),
        (_without_tokenizer, r"no readable tokenizer"),
        (_of_another, r"has 71 tokens, its model 20: it is of another model"),
    ],
)
def test_a_wrong_folder_is_refused_in_one_line(make, pattern, tmp_path):
    make(tmp_path / "model")
    message = refusal(tmp_path / "model")
    assert re.search(pattern, message), message


def test_texts_are_stored_by_content_and_embedded_once(text_folder, tmp_path, monkeypatch):
    extractor = TextExtractor(load(text_folder()), keep="pooled")
    texts = ["abc", None, "ok", "abc"]
    seen = []
    original = TextExtractor.extract
    monkeypatch.setattr(
        TextExtractor, "extract", lambda self, got: seen.append(list(got)) or original(self, got)
    )
    store = embed_texts(texts, extractor, tmp_path).open()
    assert seen == [["abc", "ok"]]
    keys = text_keys(texts)
    assert (keys[0], keys[1]) == (keys[3], b"")
    np.testing.assert_array_equal(store.read(bytes(keys[2])), original(extractor, ["ok"])[0])
    embed_texts([*texts, "new"], extractor, tmp_path)
    assert seen[1:] == [["new"]]


def test_composed_and_decomposed_hangul_are_the_same_text():
    composed, decomposed = chr(0xAC00), chr(0x1100) + chr(0x1161)
    assert composed != decomposed
    assert text_key(composed) == text_key(decomposed)
    assert len({text_key(text) for text in ("a", "b", "", None)}) == 4
