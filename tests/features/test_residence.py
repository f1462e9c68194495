import logging
import re
import sys

import numpy as np
import pytest

from koser.features.residence import use_and_free


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap, and /proc")
def test_what_a_model_took_is_given_back_before_the_next_one_comes(caplog):
    """Blocks of a size that glibc keeps when they are freed, below one that is still in use."""
    kept = []

    def load():
        return [np.ones(8_000) for _ in range(5_000)]  # 320 MB

    def use(model):
        kept.append(np.ones(8_000))
        return len(model)

    with caplog.at_level(logging.INFO, logger="koser.features.residence"):
        assert use_and_free("blocks", load, use) == 5_000
    before, after = (
        float(re.search(r"([\d.]+) GB resident", record.message)[1]) for record in caplog.records
    )
    assert after - before < 0.1
