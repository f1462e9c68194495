"""What is wrong with a cluster is said in one line; no cluster is started here."""

import socket
import sys

import pytest

from koser.engines import cluster
from koser.engines.choosing import EngineOptions, opened_engine
from koser.engines.cluster import Resources, connected, worker_count
from koser.engines.local import LocalEngine
from koser.errors import ConfigError, EngineError, describe_missing_module


def open_ray(address):
    with opened_engine(EngineOptions("ray", address=address)):
        pytest.fail("there is no cluster")


def test_an_address_where_nothing_listens():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))  # bound, so that nobody else has it, and not listening
        address = f"127.0.0.1:{opened.getsockname()[1]}"
        with pytest.raises(EngineError, match=f"No Ray cluster answers at {address} .*ray start"):
            open_ray(address)


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:ray"])
def test_an_address_that_is_none(address):
    with pytest.raises(EngineError, match=r"give HOST:PORT of the head node, or auto\."):
        open_ray(address)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError) as caught, connected("127.0.0.1:6379"):
        pass
    assert "pip install 'koser[ray]'" in describe_missing_module(caught.value)


def test_another_version_of_ray_is_told_in_its_own_words():
    from ray._private.utils import check_version_info

    with pytest.raises(RuntimeError) as caught:
        check_version_info({"ray_version": "2.9.0", "python_version": "3.9.1"}, "this process")
    line = cluster._explain("head:6379", caught.value)
    assert line.startswith("The cluster at head:6379 is of another version: ")
    assert "2.9.0" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("nodes", "each", "wanted", "count"),
    [
        ([{"CPU": 4}, {"CPU": 2}], Resources(), None, 6),
        ([{"CPU": 4}, {"CPU": 2}], Resources(), 3, 3),
        ([{"CPU": 4}, {"CPU": 2}], Resources(), 9, 6),
        ([{"CPU": 4}, {"CPU": 3}], Resources(cpus=2), None, 3),  # not 7 / 2
        ([{"CPU": 16, "GPU": 2}], Resources(1, 0.5), None, 4),
        ([{"CPU": 16, "GPU": 2}], Resources(1, 0.7), None, 2),  # 0.3 of each is left
        ([{"CPU": 3, "GPU": 2}], Resources(1, 0.5), None, 3),
        ([{"CPU": 99, "GPU": 1}], Resources(1, 0.1), None, 10),
        ([{"CPU": 16, "GPU": 5}], Resources(1, 2), None, 2),
        ([{"CPU": 64}, {"CPU": 4, "GPU": 1}], Resources(1, 1), None, 1),
    ],
)
def test_workers_fit_onto_nodes(monkeypatch, nodes, each, wanted, count):
    import ray

    # What Ray says of nodes is replaced: what is tested is the arithmetic on it.
    found = [{"Alive": True, "Resources": node} for node in nodes]
    gone = {"Alive": False, "Resources": {"CPU": 100, "GPU": 100}}
    monkeypatch.setattr(ray, "nodes", lambda: [*found, gone])
    assert worker_count(wanted, each) == count


@pytest.mark.parametrize(
    ("nodes", "each", "why"),
    [
        ([{"CPU": 4}], Resources(1, 0.5), "4 CPUs and 0 GPUs .* --worker-gpus 0.5 asks for a GPU"),
        ([{"CPU": 4}, {"CPU": 4}], Resources(6), "no.* room for a worker of 6 CPUs and 0 GPUs"),
        ([{"CPU": 1, "GPU": 1}], Resources(2, 1), "no.* room for a worker of 2 CPUs and 1 GPUs"),
        ([{}], Resources(), "has 0 CPUs"),
    ],
)
def test_a_worker_that_fits_nowhere(monkeypatch, nodes, each, why):
    import ray

    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": n} for n in nodes])
    with pytest.raises(EngineError, match=why):
        worker_count(None, each)


def test_the_local_engine_has_a_worker_per_core_unless_told():
    with opened_engine(EngineOptions(n_workers=3)) as engine:
        assert engine == LocalEngine(3)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"n_workers": 0}, "--workers 0: give a number above 0"),
        ({"kind": "ray", "worker_gpus": -1.0}, "--worker-gpus -1: give a number above 0"),
        ({"batch_rows": 5, "address": "h:1"}, "--address, --batch-rows: of a Ray cluster"),
    ],
)
def test_options_out_of_range_or_place(options, why):
    with pytest.raises(ConfigError, match=why):
        EngineOptions(**options)
