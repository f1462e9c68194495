"""Opening a file of this machine, or saying in one line why that cannot be."""

from __future__ import annotations

import os

from koser.errors import AudioError
from koser.storage.places import squeezed_url


def open_descriptor(path: str) -> int:
    """Open for reading; the caller closes it.

    Raises
    ------
    AudioError
        If there is no such file, or it may not be read.
    """
    try:
        # O_NONBLOCK: opening a named pipe would otherwise wait for its writer.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError as error:
        url = squeezed_url(path)
        way_out = "Check the path." if url is None else f"Give the URL as a str: '{url}'."
        raise AudioError(f"No audio file at '{path}'. {way_out}") from error
    except PermissionError as error:
        raise AudioError(
            f"No permission to read '{path}'. Ask its owner, or run: chmod u+r on the file "
            f"and u+x on its folders."
        ) from error
    except OSError as error:
        raise AudioError(f"Cannot open '{path}': {error.strerror}. Check the path.") from error
    except ValueError as error:  # a null character
        raise AudioError(f"{path!r} is no path: {error}. Check where it comes from.") from error
