"""fsspec and its drivers: the only place that knows them."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from koser.storage.faults import Fault, Kind, find_fault
from koser.storage.retrying import RETRIES

# Connections of one process: more than anybody reads or writes at once.
_N_CONNECTIONS = 64
_PART = {"chunksize": 2**24}  # bytes
_PUT_OPTIONS: dict[str, dict[str, Any]] = {"s3": _PART, "s3a": _PART}


def _s3_options(n_attempts: int) -> dict[str, Any]:
    config = {
        "connect_timeout": 10,  # seconds
        "read_timeout": 30,  # seconds without a byte
        "max_pool_connections": _N_CONNECTIONS,
        "retries": {"mode": "standard", "total_max_attempts": n_attempts},
    }
    # Of a file that is sent in parts, at most so many parts are in memory.
    return {"config_kwargs": config, "max_concurrency": 4}


def filesystem(url: str, *, is_patient: bool = False) -> tuple[Any, str]:
    """The driver of a URL, and what it calls the object.

    Parameters
    ----------
    url : str
        Any that an installed driver of fsspec handles.
    is_patient : bool
        Whether the driver itself tries each request several times, where it can: for what takes
        many requests, and would otherwise start anew for the failure of one.

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
        driver = _filesystem(root, is_patient, os.getpid())
        return driver, driver._strip_protocol(url)
    except Exception as error:  # of another package; raised again
        fault = find_fault(error)
        if isinstance(error, ValueError) and "Protocol not known" in str(error):
            fault = Fault(Kind.driver, fault.reason)
        raise fault.to_error(url, "opened", 1) from error


def put(file: Path, url: str) -> None:
    """One attempt to send a file of this machine to a store; raises what the driver raises."""
    driver, path = filesystem(url, is_patient=True)
    driver.put_file(str(file), path, **_PUT_OPTIONS.get(url.partition("://")[0].lower(), {}))


# By process: a driver's event loop does not survive a fork.
@lru_cache(maxsize=_N_CONNECTIONS)
def _filesystem(root: str, is_patient: bool, pid: int) -> Any:
    from fsspec.core import url_to_fs

    is_s3 = root.partition("://")[0].lower() in ("s3", "s3a")
    # koser counts its own attempts (`koser.storage.retrying`): three layers that each try eight
    # times would make 512 of them.
    options = _s3_options(RETRIES.n_attempts if is_patient else 1) if is_s3 else {}
    # fsspec would keep one for each thread, and readers come and go.
    driver, _ = url_to_fs(root, use_listings_cache=False, skip_instance_cache=True, **options)
    if is_s3:
        driver.retries = 1  # its own, which do not know a connection that was reset
    return driver
