"""On what a result was made."""

from __future__ import annotations

import platform
import sys
from typing import Any

import numpy as np
import torch

from koser import __version__


def describe_environment() -> dict[str, Any]:
    """Versions and machine, as JSON values."""
    return {
        "koser": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "executable": sys.implementation.name,
    }
