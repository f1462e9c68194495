"""A checksum of a table's content, whatever wrote the file it lies in.

Parquet's own checksums are optional, and the reader used here does not look at them: a
flipped bit in a label or a path would otherwise be believed.
"""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl


def table_digest(table: pl.DataFrame, *others: str) -> str:
    """32 hexadecimal digits over every value of `table`, its column names, and `others`.

    Parameters
    ----------
    table : pl.DataFrame
        Of strings, numbers and booleans, and lists and structs of them.
    *others : str
        What belongs to the table beside its values, such as its metadata.

    Examples
    --------
    >>> one = pl.DataFrame({"id": ["a", "b"], "age": [None, 30]})
    >>> table_digest(one) == table_digest(one.clone())
    True
    >>> table_digest(one) == table_digest(one.with_columns(age=pl.lit(30)))
    False
    """
    digest = hashlib.blake2b(digest_size=16)
    for text in others:
        digest.update(text.encode())
        digest.update(b"\0")
    for column in table.get_columns():
        _add(digest, column)
    return digest.hexdigest()


def _add(digest: hashlib.blake2b, column: pl.Series) -> None:
    digest.update(f"{column.name} {column.dtype} {len(column)}\0".encode())
    if column.null_count():
        digest.update(np.packbits(column.is_null().to_numpy()).tobytes())
        column = column.drop_nulls()
    if isinstance(column.dtype, pl.List):
        digest.update(column.list.len().to_numpy().astype("<u4").tobytes())
        _add(digest, column.list.explode(keep_nulls=False, empty_as_null=False))
    elif isinstance(column.dtype, pl.Struct):
        for field in column.struct.unnest().get_columns():
            _add(digest, field)
    elif column.dtype == pl.String:
        digest.update(column.str.len_bytes().to_numpy().astype("<u4").tobytes())
        digest.update((column.str.join("").item() or "").encode())
    else:
        digest.update(np.ascontiguousarray(column.to_numpy()).tobytes())
