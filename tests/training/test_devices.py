import pytest
import torch

from koser.errors import AudioError, RunError
from koser.systems.mfcc import MfccTrain
from koser.training.devices import (
    choose_device,
    compute_logits,
    explained_memory_errors,
    is_bf16,
)
from koser.training.options import TrainOptions

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_a_gpu_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        assert choose_device("cuda").type == "cuda"
    else:
        with pytest.raises(RunError, match=r"--set train\.device=cpu"):
            choose_device("cuda")


@pytest.mark.parametrize(
    ("precision", "device", "is_supported", "expected"),
    [
        ("auto", CPU, True, False),
        ("bf16", CPU, False, True),
        ("float32", CPU, True, False),
        ("auto", GPU, True, True),
        ("auto", GPU, False, False),
        ("bf16", GPU, True, True),
        ("float32", GPU, True, False),
    ],
)
def test_auto_means_bf16_where_a_gpu_has_it(monkeypatch, precision, device, is_supported, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: is_supported)
    assert is_bf16(precision, device) is expected


def test_bf16_on_a_gpu_without_it_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    with pytest.raises(RunError, match=r"'Tesla T4' .* --set train\.precision=float32"):
        is_bf16("bf16", GPU)


def test_logits_are_float32_though_products_are_bf16():
    network = torch.nn.Linear(64, 3)
    seen = []
    network.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    inputs = (torch.randn(5, 64, generator=torch.Generator().manual_seed(0)),)
    exact, rounded = (compute_logits(network, inputs, each) for each in ("float32", "bf16"))
    assert seen == [torch.float32, torch.bfloat16]
    assert exact.dtype == rounded.dtype == torch.float32
    assert torch.equal(exact, network(*inputs))
    # bf16 has 8 significant bits
    assert 0 < (exact - rounded).abs().max() < 2**-7 * exact.abs().max() * 4
    assert rounded.sum().backward() is None
    assert network.weight.grad.dtype == torch.float32


class SecondsTrain(TrainOptions):
    """A system whose batches are bounded in seconds."""

    batch_seconds: float = 90.0


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            SecondsTrain(accumulate=2),
            r"of the GPU ended at train\.batch_seconds=90, train\.accumulate=2\. .*"
            r"--set train\.batch_seconds=45 --set train\.accumulate=4$",
        ),
        (
            MemoryError("Unable to allocate 3 GiB"),
            MfccTrain(batch_size=32),
            r"of this machine ended at train\.batch_size=32, .*"
            r"--set train\.batch_size=16 --set train\.accumulate=2$",
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't ..."),
            MfccTrain(batch_size=1),
            r"of this machine ended at train\.batch_size=1, ",
        ),
    ],
)
def test_a_lack_of_memory_becomes_one_line_with_the_way_out(error, options, message):
    with pytest.raises(RunError, match=message) as caught, explained_memory_errors(options):
        raise error
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), AudioError("no file")])
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as caught, explained_memory_errors(TrainOptions()):
        raise error
    assert caught.value is error
