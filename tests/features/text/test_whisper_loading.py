import json
import re
import shutil

import huggingface_hub
import pytest

from fixtures.text import CREDULOUS, demo_speech, save_text_model, save_whisper
from koser.errors import EncoderError
from koser.features.text.transcriber import Transcriber
from koser.features.text.whisper import WhisperOptions, find_whisper


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("KOSER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refusal(name, **options):
    with pytest.raises(EncoderError) as caught:
        find_whisper(WhisperOptions(name=str(name), **options)).load()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_folder_of_transformers_is_converted_once_and_says_the_same(
    whisper_folders, cache, monkeypatch
):
    original, converted = whisper_folders
    found = find_whisper(WhisperOptions(name=str(original), **CREDULOUS))
    assert found.path.parent == cache / "whisper"
    assert [path.name for path in (cache / "whisper").iterdir()] == [found.path.name]
    speech = demo_speech(4)
    # Converted weights are kept in half precision: hardly anything changes.
    texts = [
        [each.avg_logprob for each in Transcriber(folder.load(), "ko").transcribe(speech)]
        for folder in (found, find_whisper(WhisperOptions(name=str(converted), **CREDULOUS)))
    ]
    assert texts[0] == pytest.approx(texts[1], abs=0.05)
    monkeypatch.setattr("ctranslate2.converters.TransformersConverter", pytest.fail)
    assert find_whisper(WhisperOptions(name=str(original), **CREDULOUS)) == found


def test_a_whisper_is_its_content_not_its_place(whisper_folder, tmp_path):
    found = find_whisper(WhisperOptions(name=str(whisper_folder)))
    copy = shutil.copytree(whisper_folder, tmp_path / "copy")
    moved = find_whisper(WhisperOptions(name=str(copy)))
    assert moved.describe("ko") == found.describe("ko")
    assert found.describe("en") != found.describe("ko")
    wanted = WhisperOptions(name=str(copy), fingerprint=found.options.fingerprint)
    assert find_whisper(wanted).options.fingerprint == found.options.fingerprint
    with (copy / "model.bin").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(EncoderError, match=r"not the Whisper that is wanted.*--whisper"):
        find_whisper(wanted)


@pytest.mark.parametrize("key", ["beam_size", "silence_seconds", "min_logprob", "context"])
def test_what_changes_a_transcript_changes_its_address(whisper_folder, key):
    plain = find_whisper(WhisperOptions(name=str(whisper_folder)))
    value = {"beam_size": 1, "silence_seconds": 4.0, "min_logprob": -2.0, "context": "full"}[key]
    other = find_whisper(WhisperOptions(name=str(whisper_folder), **{key: value}))
    assert other.describe("ko") != plain.describe("ko")


@pytest.mark.parametrize("key", ["n_threads", "batch_seconds", "device"])
def test_where_and_how_fast_it_runs_does_not(whisper_folder, key):
    plain = find_whisper(WhisperOptions(name=str(whisper_folder)))
    value = {"n_threads": 3, "batch_seconds": 7.0, "device": "cpu"}[key]
    other = find_whisper(WhisperOptions(name=str(whisper_folder), **{key: value}))
    assert other.describe("ko") == plain.describe("ko")


def _damaged(folder, whisper):
    shutil.copytree(whisper, folder)
    (folder / "model.bin").write_bytes(b"no weights")


def _without_tokenizer(folder, whisper):
    shutil.copytree(whisper, folder)
    (folder / "tokenizer.json").unlink()


def _bert(folder, _):
    save_text_model(folder)


def _empty(folder, _):
    folder.mkdir()


def _incomplete(folder, _):
    save_whisper(folder)
    (folder / "model.safetensors").unlink()


def _broken(folder, _):
    save_whisper(folder)
    (folder / "model.safetensors").write_bytes(b"no weights")


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (_damaged, r"cannot be loaded .*Download or convert it again"),
        (_without_tokenizer, r"has no tokenizer\.json"),
        (_bert, r"is no Whisper: its config\.json says 'bert'"),
        (_empty, r"holds no model that can be loaded .*config\.json"),
        (_incomplete, r"neither model\.bin nor model\.safetensors"),
        (_broken, r"cannot be converted for CTranslate2"),
    ],
)
def test_a_wrong_folder_is_refused_in_one_line(make, pattern, whisper_folder, tmp_path, cache):
    make(tmp_path / "model", whisper_folder)
    message = refusal(tmp_path / "model")
    assert re.search(pattern, message), message
    assert not list((cache / "whisper").glob("*")) if cache.exists() else True


def test_an_unknown_size_is_refused_with_those_there_are():
    message = refusal("smal")
    assert re.search(r"No Whisper is called 'smal'\. Give a size \(.*small.*large-v3.*\)", message)


def test_a_file_is_no_folder(whisper_folder):
    assert "is a file. Give the folder" in refusal(whisper_folder / "model.bin")


def test_a_compute_type_that_the_device_lacks_is_refused(whisper_folder):
    message = refusal(whisper_folder, compute_type="float8", device="cpu")
    assert re.search(r"whisper\.compute_type = float8: this cpu computes in .*float32", message)


@pytest.mark.parametrize("name", ["small", "openai/whisper-small", "someone/whisper-korean"])
def test_without_a_connection_the_cache_and_the_way_out_are_named(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    message = refusal(name)
    assert f"cannot be reached and '{name}' is not in its cache" in message
    assert "--whisper FOLDER" in message


def test_the_hubs_cache_is_used_without_asking_the_hub(monkeypatch, tmp_path, whisper_folder):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--Systran--faster-whisper-small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc123", encoding="utf-8")
    shutil.copytree(whisper_folder, repository / "snapshots" / "abc123")
    for name in ("small", "openai/whisper-small", "Systran/faster-whisper-small"):
        found = find_whisper(WhisperOptions(name=name))
        assert found.path == repository / "snapshots" / "abc123"
        assert json.loads((found.path / "config.json").read_text(encoding="utf-8"))
