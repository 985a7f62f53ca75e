import gzip

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isocline._core.errors import BadFile, DataMissing
from isocline.datasets.idx import read_idx


def idx_bytes(values: torch.Tensor) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + bytes(values.flatten().tolist())


@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=3), gzipped=st.booleans(), seed=st.integers(0, 99))
def test_what_was_written_is_read(tmp_path_factory, shape, gzipped, seed):
    values = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    path = tmp_path_factory.mktemp("idx") / ("x.gz" if gzipped else "x")
    path.write_bytes(gzip.compress(idx_bytes(values)) if gzipped else idx_bytes(values))
    assert torch.equal(read_idx(path), values)


GOOD = idx_bytes(torch.arange(6, dtype=torch.uint8).reshape(2, 3))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (GOOD[:-1], "should hold 6 values, it holds 5"),
        (GOOD + b"\0", "should hold 6 values, it holds 7"),
        (GOOD[:6], "should hold|holds no values"),
        (b"\0\0\x0d" + GOOD[3:], "not an IDX file of unsigned bytes"),
        (b"\x89PNG" + GOOD[4:], "not an IDX file"),
        (b"", "not an IDX file"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 0]), "holds no values"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, raw, text):
    path = tmp_path / "images"
    path.write_bytes(raw)
    with pytest.raises(BadFile, match=text) as error:
        read_idx(path)
    assert str(path) in str(error.value)


def test_a_truncated_or_false_gzip_file_is_named(tmp_path):
    whole = gzip.compress(GOOD * 100)
    for raw in (whole[: len(whole) // 2], GOOD):
        (tmp_path / "x.gz").write_bytes(raw)
        with pytest.raises(BadFile, match=r"x\.gz is not a complete gzip file"):
            read_idx(tmp_path / "x.gz")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataMissing, match=r"there is no file .*nothing"):
        read_idx(tmp_path / "nothing")
