import io
import zlib

import polars as pl
import pytest

from koser.data.sealing import is_intact, write_sealed, write_table

TABLE = pl.DataFrame({"id": ["a", "b"], "share": [[0.5, None], None], "n": [1, None]})


@pytest.fixture
def path(tmp_path):
    write_sealed(TABLE, tmp_path / "t.parquet", {"about": "koser.crc32", "가": "나"})
    return tmp_path / "t.parquet"


def test_a_sealed_table_is_a_parquet_file_with_its_metadata(path):
    assert pl.read_parquet(path).equals(TABLE)
    metadata = pl.read_parquet_metadata(path)
    assert (metadata["about"], metadata["가"]) == ("koser.crc32", "나")


def test_the_checksum_is_that_of_the_file_with_zeros_in_its_place(path):
    digits = pl.read_parquet_metadata(path)["koser.crc32"].encode()
    raw = path.read_bytes()
    assert raw.count(digits) == 1
    assert int(digits, 16) == zlib.crc32(raw.replace(digits, b"0" * 8))


def test_every_flipped_bit_is_noticed(path):
    raw = path.read_bytes()
    digits = pl.read_parquet_metadata(path)["koser.crc32"].encode()
    # without the marker's own name the file is one of another program
    marker = range(raw.index(digits) - 2 - len("koser.crc32"), raw.index(digits))
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1 << place % 8
        found = is_intact(io.BytesIO(changed))
        assert found is False or (found is None and (place in marker or place >= len(raw) - 8))
    assert is_intact(io.BytesIO(raw)) is True


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\xff\xff\xff\xffPAR1", b"x" * 100])
def test_files_of_other_programs_have_no_checksum(content, tmp_path):
    assert is_intact(io.BytesIO(content)) is None
    TABLE.write_parquet(tmp_path / "other.parquet")
    with (tmp_path / "other.parquet").open("rb") as file:
        assert is_intact(file) is None


def test_a_table_that_cannot_be_written_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        write_table(TABLE, tmp_path / "missing" / "t.parquet")
