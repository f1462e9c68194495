"""fsspec and its drivers: the only place that knows them."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from koser.storage.faults import Fault, Kind, find_fault

# Connections of one process: more than anybody reads or writes at once.
_N_CONNECTIONS = 64
_S3 = {
    "config_kwargs": {
        "connect_timeout": 10,  # seconds
        "read_timeout": 30,  # seconds without a byte
        "max_pool_connections": _N_CONNECTIONS,
        # koser's own attempts are counted (`koser.storage.retrying`); three layers that each
        # try five times would make 125 of them.
        "retries": {"mode": "standard", "total_max_attempts": 1},
    },
    "max_concurrency": 4,  # parts of a file sent at once, each of them in memory
}
_OPTIONS: dict[str, dict[str, Any]] = {"s3": _S3, "s3a": _S3}
_PART = {"chunksize": 2**24}  # bytes
_PUT_OPTIONS: dict[str, dict[str, Any]] = {"s3": _PART, "s3a": _PART}


def filesystem(url: str) -> tuple[Any, str]:
    """The driver of a URL, and what it calls the object.

    Parameters
    ----------
    url : str
        Any that an installed driver of fsspec handles.

    Returns
    -------
    driver : fsspec.AbstractFileSystem
        One for all threads of this process. It lists anew every time: an index of everything
        ever listed would not stay small.
    path : str
        The driver's name of the object.

    Raises
    ------
    StorageError
        If the driver, or fsspec itself, is not installed, or cannot start.
    """
    scheme, _, rest = url.partition("://")
    root = f"{scheme}://{rest.partition('/')[0]}"
    try:
        driver = _filesystem(root, os.getpid())
        return driver, driver._strip_protocol(url)
    except Exception as error:  # of another package; raised again
        fault = find_fault(error)
        if isinstance(error, ValueError) and "Protocol not known" in str(error):
            fault = Fault(Kind.driver, fault.reason)
        raise fault.to_error(url, "opened", 1) from error


def put(file: Path, url: str) -> None:
    """One attempt to send a file of this machine to a store; raises what the driver raises."""
    driver, path = filesystem(url)
    driver.put_file(str(file), path, **_PUT_OPTIONS.get(url.partition("://")[0].lower(), {}))


# By process: a driver's event loop does not survive a fork.
@lru_cache(maxsize=_N_CONNECTIONS)
def _filesystem(root: str, pid: int) -> Any:
    from fsspec.core import url_to_fs

    options = _OPTIONS.get(root.partition("://")[0].lower(), {})
    # fsspec would keep one for each thread, and readers come and go.
    driver, _ = url_to_fs(root, use_listings_cache=False, skip_instance_cache=True, **options)
    if hasattr(driver, "retries"):  # s3fs has attempts of its own too
        driver.retries = 1
    return driver
