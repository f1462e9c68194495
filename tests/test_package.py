"""What `import koser` does, and does not do."""

import os
import subprocess
import sys

import pytest

NAME = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


@pytest.mark.parametrize(("before", "after"), [({}, "64"), ({NAME: "7"}, "7")])
def test_importing_bounds_onednns_cache_unless_somebody_else_does_and_loads_no_torch(before, after):
    program = f"import os, sys, koser; print(os.environ['{NAME}'], 'torch' in sys.modules)"
    others = {key: value for key, value in os.environ.items() if key != NAME}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**others, **before}, capture_output=True, text=True
    )
    assert done.stdout.split() == [after, "False"], done.stderr
