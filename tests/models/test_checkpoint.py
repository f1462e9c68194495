import os
import pickle

import pytest
import torch

from koser.errors import CheckpointError
from koser.models.checkpoint import (
    Checkpoint,
    find_checkpoint,
    load_tensors,
    load_trained_state,
    read_system_name,
    read_tensors,
    save_tensors,
    trained_state,
)
from koser.models.shared import write_shared

CHECKPOINT = Checkpoint(
    system="mfcc",
    labels=("angry", "neutral"),
    config={"train": {"epochs": 3}},
    origin={"split": {"protocol": "speaker"}, "note": "한국어"},
    state={"weight": torch.arange(6.0).view(2, 3)},
    temperature=1.25,
)


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    CHECKPOINT.write(tmp_path / "a.pth")
    loaded = Checkpoint.read(tmp_path / "a.pth")
    assert torch.equal(loaded.state["weight"], CHECKPOINT.state["weight"])
    for name in ("system", "labels", "config", "origin", "temperature"):
        assert getattr(loaded, name) == getattr(CHECKPOINT, name)
    assert os.listdir(tmp_path) == ["a.pth"]


def test_a_checkpoint_from_before_temperatures_has_one_that_changes_nothing(tmp_path):
    CHECKPOINT.write(tmp_path / "a.pth")
    values = load_tensors(tmp_path / "a.pth")
    del values["temperature"]
    save_tensors(values, tmp_path / "old.pth")
    assert Checkpoint.read(tmp_path / "old.pth").temperature == 1.0


def test_the_system_of_a_checkpoint_is_named_without_its_weights(tmp_path):
    weights = torch.arange(100_000.0)
    Checkpoint(**{**vars(CHECKPOINT), "state": {"weight": weights}}).write(tmp_path / "a.pth")
    content = bytearray((tmp_path / "a.pth").read_bytes())
    content[content.index(weights.numpy().tobytes()[:4096])] ^= 1
    (tmp_path / "a.pth").write_bytes(content)
    assert read_system_name(tmp_path / "a.pth") == "mfcc"
    with pytest.raises(CheckpointError, match="is damaged"):
        Checkpoint.read(tmp_path / "a.pth")
    shared = tmp_path / "shared"
    shared.mkdir()
    write_shared(CHECKPOINT, shared)
    assert read_system_name(find_checkpoint(shared)) == "mfcc"
    torch.save({"state": {}}, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match="not a checkpoint of koser"):
        read_system_name(tmp_path / "b.pth")


def test_equal_checkpoints_are_equal_bytes(tmp_path):
    for name in ("a.pth", "b.pth"):
        CHECKPOINT.write(tmp_path / name)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    torch.save({"format": "koser-1", "state": Bomb()}, tmp_path / "bomb.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Bomb()))
    for name in ("bomb.pth", "plain.pth"):
        with pytest.raises(CheckpointError, match="no readable checkpoint"):
            Checkpoint.read(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("n_bytes", [0, 10, 500])
def test_a_damaged_file_is_refused(tmp_path, n_bytes):
    CHECKPOINT.write(tmp_path / "a.pth")
    os.truncate(tmp_path / "a.pth", n_bytes)
    with pytest.raises(CheckpointError, match="no readable checkpoint"):
        Checkpoint.read(tmp_path / "a.pth")


def test_another_programs_file_is_refused(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="not a checkpoint of koser"):
        Checkpoint.read(tmp_path / "a.pth")
    torch.save(torch.ones(2), tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match="holds a Tensor"):
        Checkpoint.read(tmp_path / "b.pth")


def test_a_missing_file_and_an_empty_run_folder_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="No checkpoint at"):
        Checkpoint.read(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"No best_model_\*.pth in") as refused:
        find_checkpoint(tmp_path)
    # Both commands that leave one, and what says how an unfinished folder of either goes on.
    for command in ("`koser train`", "`koser regress`", f"`koser doctor {tmp_path}`"):
        assert command in str(refused.value)


def test_a_run_folder_means_its_newest_model(tmp_path):
    for age, name in enumerate(["best_model_b.pth", "best_model_a.pth"]):
        CHECKPOINT.write(tmp_path / name)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    assert find_checkpoint(tmp_path).name == "best_model_b.pth"
    assert find_checkpoint(tmp_path / "best_model_a.pth").name == "best_model_a.pth"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.pth"
    save_tensors({"value": 1}, path)
    with pytest.raises(AttributeError):
        save_tensors({"value": lambda: None}, path)
    assert load_tensors(path) == {"value": 1}
    assert os.listdir(tmp_path) == ["a.pth"]


def half_frozen(seed, n_outputs=2):
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, n_outputs)
    )
    network[0].requires_grad_(False)
    network[1].requires_grad_(False)
    network[1].running_mean.fill_(seed)
    return network


def test_frozen_parameters_are_no_part_of_what_was_trained_but_buffers_are():
    network = half_frozen(1)
    names = {"1.running_mean", "1.running_var", "1.num_batches_tracked", "2.weight", "2.bias"}
    assert trained_state(network).keys() == names
    other = half_frozen(2)
    frozen = other[0].weight.clone()
    load_trained_state(other, trained_state(network))
    for name, tensor in trained_state(other).items():
        assert torch.equal(tensor, trained_state(network)[name]), name
    assert torch.equal(other[0].weight, frozen)


def test_a_frozen_parameter_with_two_names_is_left_out_under_both():
    network = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    network["b"].weight = network["a"].weight
    network["a"].requires_grad_(False)
    assert trained_state(network).keys() == {"b.bias"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("2.bias"), "1 of its 5 tensors differ.*no '2.bias'"),
        (lambda state: state.update({"0.weight": torch.zeros(4, 3)}), r"unknown '0\.weight'"),
        (
            lambda state: state.update({"2.bias": torch.zeros(3)}),
            r"'2\.bias' of shape \(3,\) instead of \(2,\)",
        ),
    ],
)
def test_other_names_or_shapes_than_those_trained_are_refused(change, message):
    network = half_frozen(1)
    state = {name: tensor.clone() for name, tensor in trained_state(half_frozen(2)).items()}
    change(state)
    before = network[2].weight.clone()
    with pytest.raises(CheckpointError, match=message):
        load_trained_state(network, state)
    assert torch.equal(network[2].weight, before), "a refused state was loaded in part"


def test_a_flipped_bit_is_noticed_in_a_file_and_in_what_another_process_read_of_it(tmp_path):
    path = tmp_path / "last.pth"
    values = {"weights": torch.arange(1000.0)}
    save_tensors(values, path)
    whole = path.read_bytes()
    assert read_tensors(whole, path)["weights"].equal(values["weights"])
    position = whole.index(values["weights"].numpy().tobytes()) + 40
    damaged = whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="no readable checkpoint"):
        load_tensors(path)
    with pytest.raises(CheckpointError, match="no readable checkpoint"):
        read_tensors(damaged, path)
