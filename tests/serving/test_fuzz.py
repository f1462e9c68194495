"""The benchmarks' fuzzing, in small: nothing that is sent makes a 500, a crash or a leak."""

import http.client
import importlib
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
import soundfile

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script():
    """Import a script or a module of the benchmarks."""
    before = list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module
    sys.path[:] = before
    for name in ("mutations", "serving", "measuring", "inputs", "42_server_schema"):
        sys.modules.pop(name, None)


def test_malformed_uploads_are_refused_and_leave_nothing_behind(served, script):
    mutations = script("mutations")
    connection = http.client.HTTPConnection(*served.address, timeout=60)
    statuses = Counter()
    n_open = []
    for number, upload in enumerate(mutations.iter_uploads(400, seed=1)):
        if number in (100, 399):
            n_open.append(len(os.listdir("/proc/self/fd")))
        status, media_type, body = mutations.send(connection, upload)
        statuses[status] += 1
        assert status in (200, 400, 413, 415, 422), (upload, body)
        assert status == 200 or media_type == "application/problem+json"
    connection.close()
    assert len(statuses) >= 4
    assert statuses[200] > 20, "nothing came through: what is tested then?"
    assert n_open[1] <= n_open[0] + 1
    assert served.service.buffered._n_bytes == 0
    assert served.service.n_timelines == served.service.n_explanations == 0


def test_whole_files_are_among_the_uploads(script, tmp_path):
    seeds = script("mutations").seeds()
    for number, content in enumerate(seeds):
        (tmp_path / str(number)).write_bytes(content)
        assert soundfile.info(tmp_path / str(number)).frames > 0
    assert len(seeds) == len({bytes(each[:200]) for each in seeds})


def test_uploads_are_the_same_for_the_same_seed_and_of_every_kind(script):
    mutations = script("mutations")
    files = mutations.seeds()  # the serial numbers of Ogg streams are drawn by its writer
    first, again, other = (
        list(mutations.iter_uploads(200, seed=seed, files=files)) for seed in (3, 3, 4)
    )
    assert first == again != other
    kinds = {upload.kind.partition(",")[0] for upload in first}
    assert kinds == {"header", "bytes", "cut", "spliced", "random", "magic", "whole"}


@pytest.mark.parametrize(("kind", "n_operations"), [("served", 11), ("served_values", 6)])
def test_the_server_does_what_its_openapi_says(request, script, kind, n_operations):
    server = request.getfixturevalue(kind)
    done = script("42_server_schema").check(server.address[1], 8, 0)
    assert done.returncode == 0, done.stdout[-5000:]
    assert f"{n_operations}/{n_operations}" in done.stdout
