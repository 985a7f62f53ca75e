import io
import stat
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isocline._core.errors import BadFile
from isocline.datasets.archives import read_members


def tar(members: dict[str, bytes | tarfile.TarInfo], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def ar(parts: dict[str, bytes]) -> bytes:
    out = b"!<arch>\n"
    for name, content in parts.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    return out


def deb(members: dict[str, bytes | tarfile.TarInfo], compression: str = "xz") -> bytes:
    data = tar(members, f"w:{compression}")
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", f"data.tar.{compression}": data}
    return ar(parts)


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/hostname"
    return info


def wheel(members: dict[str, bytes], mode: int = stat.S_IFREG | 0o644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return buffer.getvalue()


@given(before=st.dictionaries(st.text("abc", min_size=1, max_size=9), st.binary(max_size=5)), content=st.binary())
def test_the_data_part_is_found_behind_any_other_parts(before, content):
    raw = ar({**before, "data.tar.xz": tar({"./usr/x": content}, "w:xz")})
    assert read_members("p_all.deb", raw, ["usr/x"]) == {"usr/x": content}


@pytest.mark.parametrize("compression", ["xz", "gz"])
def test_a_debian_package_gives_the_listed_members_only(compression):
    raw = deb({"./usr/a": b"A", "./usr/b": b"B", "../../evil": b"!"}, compression)
    assert read_members("p_all.deb", raw, ["usr/b"]) == {"usr/b": b"B"}


def test_wheels_and_npm_packages_give_the_listed_members_only():
    members = {"p/a": b"A", "p/b": b"B", "../evil": b"!"}
    assert read_members("p-none-any.whl", wheel(members), ["p/a"]) == {"p/a": b"A"}
    assert read_members("p.tgz", tar(members, "w:gz"), ["p/a", "p/b"]) == {"p/a": b"A", "p/b": b"B"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_tar_member_that_is_not_a_regular_file_is_refused(kind):
    members = {"usr/x": link("usr/x", kind)}
    for file, raw in (("p_all.deb", deb(members)), ("p.tgz", tar(members, "w:gz"))):
        with pytest.raises(BadFile, match="does not hold 'usr/x' as a regular file"):
            read_members(file, raw, ["usr/x"])


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_zip_member_that_is_not_a_regular_file_is_refused(kind):
    with pytest.raises(BadFile, match="does not hold 'p/x' as a regular file"):
        read_members("p-none-any.whl", wheel({"p/x": b"/etc/hostname"}, kind | 0o777), ["p/x"])


def test_a_missing_member_is_named():
    with pytest.raises(BadFile, match="does not hold 'p/z'"):
        read_members("p-none-any.whl", wheel({"p/a": b"A"}), ["p/a", "p/z"])


@pytest.mark.parametrize("file", ["p-none-any.whl", "p_all.deb", "p.tgz"])
@pytest.mark.parametrize("keep", [0, 0.3, 0.9])
def test_a_truncated_package_is_named(file, keep):
    members = {"p/a": bytes(range(256)) * 20}
    raw = {"p-none-any.whl": wheel(members), "p_all.deb": deb(members), "p.tgz": tar(members, "w:gz")}[file]
    with pytest.raises(BadFile, match=f"^{file} "):
        read_members(file, raw[: int(keep * len(raw))], ["p/a"])
