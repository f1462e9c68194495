"""Files that are not on this machine: object storage, through fsspec and its drivers."""
