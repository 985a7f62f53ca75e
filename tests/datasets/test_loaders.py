import gzip

import pytest
import torch

from isocline._core.errors import BadFile, DataMissing
from isocline.datasets import digits, load_digits, load_fashion, load_mnist5k
from isocline.datasets.table import read_table


def random_bytes(*shape: int, high: int = 256) -> torch.Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(0))


def write_table(path, table: torch.Tensor) -> None:
    text = "\n".join(",".join(map(str, row)) for row in table.tolist()) + "\n"
    path.write_bytes(gzip.compress(text.encode(), compresslevel=1))


def write_idx(path, values: torch.Tensor) -> None:
    head = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    raw = head + bytes(values.flatten().tolist())
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def test_a_table_is_read_row_by_row(tmp_path):
    table = torch.cat([random_bytes(7, 9, high=17), random_bytes(7, 1, high=10)], dim=1)
    write_table(tmp_path / "t.csv.gz", table)
    pixels, labels = read_table(tmp_path / "t.csv.gz", count=7, side=3, largest=16)
    assert [[*p.flatten().tolist(), int(label)] for p, label in zip(pixels, labels, strict=True)] == table.tolist()
    assert pixels.shape == (7, 1, 3, 3)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"1,2,3,4,5\n", "should hold 2 rows of 5 numbers"),
        (b"1,2,3,4,5\n1,2,3,4\n", "not a complete gzipped table"),
        (b"1,2,3,4,5\n1,2,3,four,5\n", "not a complete gzipped table"),
        (b"1,2,3,4,5\n1,2,3,17,5\n", "pixels outside 0..16"),
        (b"1,2,3,4,5\n1,2,3,-1,5\n", "pixels outside 0..16"),
        (b"1,2,3,4,5\n1,2,3,4,10\n", "labels outside 0..9"),
        (b"", "should hold 2 rows"),
        (b"\xff\xfe", "not a complete gzipped table"),
    ],
)
def test_a_damaged_table_is_named(tmp_path, raw, text):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(raw))
    with pytest.raises(BadFile, match=text) as error:
        read_table(tmp_path / "t.csv.gz", count=2, side=2, largest=16)
    assert "t.csv.gz" in str(error.value)


def test_mnist_is_read_from_the_folder_named_or_fetched(tmp_path, monkeypatch):
    table = torch.cat([random_bytes(10, 784), random_bytes(10, 1, high=10)], dim=1).repeat(500, 1)
    write_table(tmp_path / "mnist_5k.csv.gz", table)
    images = load_mnist5k(tmp_path)
    assert torch.equal(images.pixels.flatten(1).long(), table[:, :784])
    assert torch.equal(images.labels, table[:, 784])
    monkeypatch.setenv("ISOCLINE_DATA", str(tmp_path / "data"))
    with pytest.raises(DataMissing, match="run `isocline data fetch mnist-5k`"):
        load_mnist5k()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mnist-5k").symlink_to(tmp_path)
    assert torch.equal(load_mnist5k().labels, images.labels)
    path = tmp_path / "mnist_5k.csv.gz"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BadFile, match="fetch it again"):
        load_mnist5k(tmp_path)


def test_the_digits_scaling_loses_nothing(tmp_path):
    counts = torch.arange(1797 * 64).reshape(1797, 64) % 17
    write_table(tmp_path / "digits.csv.gz", torch.cat([counts, torch.zeros(1797, 1, dtype=torch.int64)], dim=1))
    pixels = load_digits(tmp_path).pixels
    assert torch.equal((pixels.double() * 16 / 255).round().long().flatten(1), counts)
    assert pixels[0].flatten()[:17].tolist() == [round(255 * v / 16) for v in range(17)]


def test_the_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    counts, labels = datasets.load_digits(return_X_y=True)
    images = load_digits()
    assert torch.equal((images.pixels.double() * 16 / 255).round().flatten(1), torch.from_numpy(counts))
    assert torch.equal(images.labels, torch.from_numpy(labels).long())


def test_missing_digits_say_how_to_get_them(tmp_path, monkeypatch):
    with pytest.raises(DataMissing, match="run `pip install scikit-learn`"):
        load_digits(tmp_path)
    monkeypatch.setenv("ISOCLINE_DATA", str(tmp_path))
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    with pytest.raises(DataMissing, match=f"not in {tmp_path}/digits; run"):
        load_digits()


def test_fashion_reads_plain_and_gzipped_parts(tmp_path, monkeypatch):
    train, test = random_bytes(5, 28, 28), random_bytes(3, 28, 28)
    write_idx(tmp_path / "train-images-idx3-ubyte", train)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", torch.tensor([9, 0, 3, 3, 1]))
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", test)
    images = load_fashion(tmp_path)
    assert torch.equal(images.pixels[:, 0].long(), train)
    assert [images.names[i] for i in images.labels.tolist()][:3] == ["ankle boot", "T-shirt", "dress"]
    with pytest.raises(DataMissing, match="run `isocline data fetch fashion-mnist`"):
        load_fashion(tmp_path, train=False)  # its labels are lacking
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", torch.tensor([1, 2, 3]))
    assert torch.equal(load_fashion(tmp_path, train=False).pixels[:, 0].long(), test)
    monkeypatch.setenv("ISOCLINE_DATA", str(tmp_path))
    (tmp_path / "fashion-mnist").symlink_to(tmp_path)
    assert torch.equal(load_fashion().pixels[:, 0].long(), train)
