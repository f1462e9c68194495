"""A launcher and inputs for all tests that run whole commands."""

import pytest


@pytest.fixture(scope="session")
def launcher(tmp_path_factory):
    from faults.launching import Launcher

    with Launcher(tmp_path_factory.mktemp("log")) as started:
        yield started


@pytest.fixture(scope="session")
def inputs(tmp_path_factory, launcher):
    from faults.making import make_inputs

    return make_inputs(tmp_path_factory.mktemp("inputs"), launcher)
