"""Reading chosen members of package files (wheel, Debian package, npm package) without unpacking anything.

A wheel is a zip file, an npm package a gzipped tar file. A Debian package is an ``ar`` archive, that is the line
``!<arch>`` followed by files, each behind a header of 60 bytes (name in bytes 0-15, size in bytes 48-57, even
offsets); the file ``data.tar.*`` holds what is installed. Contents are returned as bytes: no path of an archive is
ever written to.
"""

from __future__ import annotations

import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Collection

from isocline._core.errors import BadFile

_MAGIC, _HEADER = b"!<arch>\n", 60


def read_members(file: str, raw: bytes, names: Collection[str]) -> dict[str, bytes]:
    """Return the contents of the members `names` of a package.

    Args:
        file: the package's file name; its ending (``.whl``, ``.deb``, ``.tgz``) says what it is.
        raw: the package's bytes.
        names: paths inside the package, relative to its root.

    Raises:
        BadFile: the package is damaged, lacks a member, or a member is not a regular file.
    """
    try:
        found = _zip_members(raw, names) if file.endswith(".whl") else _tar_members(_tar_of(file, raw), names)
    except (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, OSError, EOFError) as error:
        raise BadFile(f"{file} is a damaged package ({type(error).__name__}: {error})") from error
    if lacking := sorted(set(names) - set(found)):
        raise BadFile(f"{file} does not hold {lacking[0]!r} as a regular file")
    return found


def _zip_members(raw: bytes, names: Collection[str]) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        infos = [info for info in archive.infolist() if info.filename in names and _is_regular(info)]
        return {info.filename: archive.read(info) for info in infos}


def _is_regular(info: zipfile.ZipInfo) -> bool:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was written without Unix modes
    return not info.is_dir() and kind in (0, stat.S_IFREG)


def _tar_members(raw: bytes, names: Collection[str]) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:*") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if name in names and member.isreg() and (content := archive.extractfile(member)):
                found[name] = content.read()
    return found


def _tar_of(file: str, raw: bytes) -> bytes:
    return _data_part(file, raw) if file.endswith(".deb") else raw


def _data_part(file: str, raw: bytes) -> bytes:
    if not raw.startswith(_MAGIC):
        raise BadFile(f"{file} is not a Debian package")
    start = len(_MAGIC)
    while start + _HEADER <= len(raw):
        header, start = raw[start : start + _HEADER], start + _HEADER
        digits = header[48:58].strip()
        if not digits.isdigit():
            break
        if header[:16].startswith(b"data.tar"):
            return raw[start : start + int(digits)]
        start += int(digits) + int(digits) % 2
    raise BadFile(f"{file} is a damaged Debian package: it has no data part")
