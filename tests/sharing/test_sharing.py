import inspect
import json
import os
import shutil
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

import koser.sharing
from koser.config import resolve_config
from koser.errors import CheckpointError
from koser.inference.recognizer import load_recognizer
from koser.models.checkpoint import Checkpoint, find_checkpoint
from koser.models.shared import CONFIG, WEIGHTS
from koser.sharing import pull, push
from koser.systems.mfcc import MfccConfig, MfccSystem

LABELS = ("angry", "neutral", "calm")


@pytest.fixture
def run(tmp_path):
    """A run folder with an untrained network and a temperature."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = resolve_config(MfccConfig, overrides=["cnn.channels=[4, 6]", "cnn.hidden_size=8"])
        system = MfccSystem(LABELS, config)
    folder = tmp_path / "runs" / "mfcc"
    folder.mkdir(parents=True)
    made = system.to_checkpoint({"split": "none", "corpus": "우리 말뭉치"})
    Checkpoint(**{**vars(made), "temperature": 1.7}).write(folder / "best_model_mfcc.pth")
    (folder / "train.log").write_text("what is nobody's business")
    (folder / "parts").mkdir()
    return folder


@pytest.fixture
def sounds():
    rng = np.random.default_rng(0)
    return [rng.standard_normal(n).astype(np.float32) * 0.1 for n in (300, 16_000, 40_001)]


def test_what_is_pulled_says_exactly_what_the_run_says(run, sounds, tmp_path, koser):
    pushed = push(run, str(tmp_path / "shared"))
    assert pushed.files == ("README.md", CONFIG, WEIGHTS)
    pulled = pull(str(tmp_path / "shared"), tmp_path / "mine")
    assert pulled.files == pushed.files
    original = load_recognizer(run).predict_waveforms(sounds)
    for folder in (tmp_path / "shared", tmp_path / "mine", tmp_path / "mine" / WEIGHTS):
        recognizer = load_recognizer(folder)
        assert recognizer.labels == LABELS
        assert recognizer.origin == {"split": "none", "corpus": "우리 말뭉치"}
        np.testing.assert_array_equal(recognizer.predict_waveforms(sounds), original)
    again = Checkpoint.read(find_checkpoint(tmp_path / "mine"))
    before = Checkpoint.read(find_checkpoint(run))
    assert again.temperature == before.temperature == 1.7
    assert {name: tensor.dtype for name, tensor in again.state.items()} == {
        name: tensor.dtype for name, tensor in before.state.items()
    }


def test_a_second_push_takes_the_place_of_the_first(run, tmp_path):
    (run / "metrics.json").write_text("{}")
    assert "metrics.json" in push(run, str(tmp_path / "shared")).files
    (run / "metrics.json").unlink()
    push(run, str(tmp_path / "shared"))
    assert sorted(os.listdir(tmp_path / "shared")) == ["README.md", CONFIG, WEIGHTS]
    assert sorted(os.listdir(tmp_path)) == ["runs", "shared"], "something was left behind"


def test_the_card_of_the_run_goes_along_and_may_be_edited(run, tmp_path):
    (run / "README.md").write_text("# 우리 모델\n", encoding="utf-8")
    push(run, str(tmp_path / "shared"))
    (tmp_path / "shared" / "README.md").write_text("# edited on the hub\n")
    pull(str(tmp_path / "shared"), tmp_path / "mine")
    assert (tmp_path / "mine" / "README.md").read_text() == "# edited on the hub\n"


def test_a_card_is_made_with_score_protocol_and_warning(tmp_path, koser, tone_corpus):
    """From a real training, through the commands."""
    root = tone_corpus(n_speakers=4)
    koser("prepare", "folder", root, "--out", "m.parquet", "--speaker-pattern", r"(s\d)_")
    status, _, err = koser(
        "train", "--model", "mfcc", "--manifest", "m.parquet", "--split", "speaker", "--out", "run",
        "--workers", "1", "--set", "train.epochs=2", "--set", "cnn.channels=[4, 6]",
        "--set", "cnn.hidden_size=8",
    )  # fmt: skip
    assert status == 0, err
    for made in (tmp_path / "run").glob("README.md"):
        made.unlink()  # this is about runs that have none
    status, out, _ = koser("push", "run", "shared")
    assert status == 0
    assert out == "Pushed: shared (README.md, config.json, metrics.json, model.safetensors)\n"
    card = (tmp_path / "shared" / "README.md").read_text(encoding="utf-8")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert f"UAR {metrics['uar']:.3f}" in card
    assert f"(chance {metrics['chance_uar']:.3f})" in card
    assert "split speaker, n = " in card
    assert "licence of the corpus" in card
    status, out, _ = koser("pull", "shared", "--out", "mine")
    assert (status, out.split()[0]) == (0, "Pulled:")
    status, out, _ = koser("predict", "mine", next(root.rglob("*.wav")), "--format", "json")
    assert status == 0
    assert set(json.loads(out)[0]["probabilities"]) == {"angry", "neutral", "sadness"}


@pytest.mark.parametrize("name", [WEIGHTS, "metrics.json"])
def test_a_file_that_was_changed_is_refused(run, tmp_path, name):
    (run / "metrics.json").write_text("{}")
    push(run, str(tmp_path / "shared"))
    path = tmp_path / "shared" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}' is not the file that was shared") as error:
        pull(str(tmp_path / "shared"), tmp_path / "mine")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "mine").exists()
    if name == WEIGHTS:
        with pytest.raises(CheckpointError, match="is not the file that was shared"):
            load_recognizer(tmp_path / "shared")


def change_config(folder, **values):
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "other"}, "is not of a model that koser shared"),
        ({"files": {}}, "must name model.safetensors"),
        ({"files": {WEIGHTS: "0", "../../.bashrc": "0"}}, "only model.onnx and metrics.json"),
        ({"files": [WEIGHTS]}, "must name model.safetensors"),
        ({"labels": 7}, "damaged config.json"),
        ({"temperature": "hot"}, "damaged config.json"),
        ({"system": "nonsense"}, "No system is called 'nonsense'"),
        ({"labels": ["a", "b"]}, "weights are of another network"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(run, tmp_path, values, message):
    push(run, str(tmp_path / "shared"))
    change_config(tmp_path / "shared", **values)
    with pytest.raises(ValueError, match=message):
        load_recognizer(tmp_path / "shared")


def test_a_folder_of_somebody_else_is_not_overwritten(run, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "final.tex").touch()
    push(run, str(tmp_path / "shared"))
    for call in (
        lambda: push(run, str(tmp_path / "thesis")),
        lambda: pull(str(tmp_path / "shared"), tmp_path / "thesis"),
        lambda: pull(str(tmp_path / "shared"), tmp_path / "thesis" / "final.tex"),
    ):
        with pytest.raises(CheckpointError, match="exists and is no shared model"):
            call()
    assert os.listdir(tmp_path / "thesis") == ["final.tex"]


@pytest.mark.parametrize("source", ["runs/mfcc", "nowhere", "empty"])
def test_what_is_no_shared_model_is_not_pulled(run, tmp_path, source):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="is no shared model"):
        pull(str(tmp_path / source), tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_the_encoder_is_named_for_others(run, tmp_path):
    checkpoint = Checkpoint.read(find_checkpoint(run))
    local = {**checkpoint.config, "encoder": {"name": "/home/me/wav2vec2"}}
    Checkpoint(**{**vars(checkpoint), "config": local}).write(run / "best_model_mfcc.pth")
    (note,) = push(run, str(tmp_path / "shared")).notes
    assert "'/home/me/wav2vec2' is loaded (a folder of the machine" in note
    push(run, str(tmp_path / "shared"), encoder="facebook/wav2vec2-base-960h")
    config = (tmp_path / "shared" / CONFIG).read_text()
    assert "/home/me" not in config
    assert json.loads(config)["config"]["encoder"]["name"] == "facebook/wav2vec2-base-960h"


class FolderHub:
    """The hub's calls, with the real signatures, on a folder."""

    def __init__(self, root):
        self.root = root
        self.calls = []

    def __call__(self, **_):
        return self

    def __getattr__(self, name):
        signature = inspect.signature(getattr(HfApi, name))

        def call(*args, **kwargs):
            bound = signature.bind(self, *args, **kwargs)  # a wrong argument is a TypeError
            self.calls.append((name, dict(list(bound.arguments.items())[1:])))
            return getattr(self, f"do_{name}")(SimpleNamespace(**bound.arguments))

        return call

    def do_create_repo(self, given):
        (self.root / given.repo_id).mkdir(parents=True, exist_ok=given.exist_ok)

    def do_create_branch(self, given):
        pass

    def do_upload_folder(self, given):
        for path in given.folder_path.iterdir():
            shutil.copy(path, self.root / given.repo_id / path.name)
        (self.root / given.repo_id / ".gitattributes").touch()
        return f"https://huggingface.co/{given.repo_id}/commit/1"

    def do_snapshot_download(self, given):
        folder = self.root / given.repo_id
        if not folder.is_dir():
            address = httpx.Request("GET", "https://huggingface.co")
            raise RepositoryNotFoundError(
                "404 Client Error.\n\nRepository Not Found",
                response=httpx.Response(404, request=address),
            )
        for path in folder.iterdir():
            if path.name in given.allow_patterns:
                shutil.copy(path, given.local_dir / path.name)
        (given.local_dir / ".cache" / "huggingface").mkdir(parents=True)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    made = FolderHub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.HfApi", made)
    return made


def test_a_repository_is_pushed_to_and_pulled_from(run, sounds, tmp_path, hub):
    pushed = push(run, "hf:me/ser-mfcc")
    assert pushed.place == "https://huggingface.co/me/ser-mfcc/commit/1"
    pulled = pull("hf:me/ser-mfcc@v1", tmp_path / "mine")
    assert pulled.files == ("README.md", CONFIG, WEIGHTS)
    np.testing.assert_array_equal(
        load_recognizer(tmp_path / "mine").predict_waveforms(sounds),
        load_recognizer(run).predict_waveforms(sounds),
    )
    calls = dict(hub.calls)
    assert calls["create_repo"]["private"] is True
    assert calls["snapshot_download"]["revision"] == "v1"
    assert "create_branch" not in calls
    push(run, "hf:me/ser-mfcc@next", is_public=True)
    calls = dict(hub.calls)
    assert calls["create_repo"]["private"] is False
    assert calls["upload_folder"]["revision"] == calls["create_branch"]["branch"] == "next"


def test_a_repository_that_is_not_there_is_one_line(tmp_path, hub):
    with pytest.raises(
        CheckpointError, match=r"'hf:me/none': 404 Client Error.*hf auth login"
    ) as error:
        pull("hf:me/none", tmp_path / "mine")
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("address", ["hf:", "hf:me", "hf:me/", "hf:/x", "hf:a/b/c", "hf:@main"])
def test_an_address_that_is_none_is_refused(run, tmp_path, address):
    for call in (lambda: push(run, address), lambda: pull(address, tmp_path / "mine")):
        with pytest.raises(CheckpointError, match=r"is no hf:OWNER/NAME"):
            call()


def test_a_pull_that_fails_leaves_the_old_model_alone(run, sounds, tmp_path):
    push(run, str(tmp_path / "shared"))
    pull(str(tmp_path / "shared"), tmp_path / "mine")
    before = load_recognizer(tmp_path / "mine").predict_waveforms(sounds)
    (tmp_path / "shared" / WEIGHTS).write_bytes(b"x")
    with pytest.raises(CheckpointError):
        pull(str(tmp_path / "shared"), tmp_path / "mine")
    np.testing.assert_array_equal(
        load_recognizer(tmp_path / "mine").predict_waveforms(sounds), before
    )


def test_nothing_of_the_hub_is_loaded_for_a_folder():
    assert "huggingface_hub" not in vars(koser.sharing)
