"""Build the wheel and use it from outside the source tree.

The wheel goes into an environment of its own. That environment sees the dependencies of the one this script runs in
(installing torch a second time would take a minute), but not its editable install: a folder named in a ``.pth`` file is
put on the path without reading the ``.pth`` files inside it, and `isocline` is asserted to come from the wheel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 10_000_000  # bytes
NEEDED = ("isocline/py.typed", "isocline/cli/app.py")

IMPORT = """
import sys
from pathlib import Path
import isocline
assert Path(isocline.__file__).is_relative_to(sys.prefix), f"{isocline.__file__} is not the wheel's"
assert isocline.__version__, "there is no version"
"""


def build(folder: Path) -> Path:
    """Return the wheel, built without a network from what is installed here."""
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """Refuse a wheel that lacks a file of the package, holds a stray one, or is too large."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    files = [path for path in (ROOT / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    missing = sorted({*NEEDED, *(path.relative_to(ROOT / "src").as_posix() for path in files)} - names)
    if missing:
        raise SystemExit(f"the wheel lacks {', '.join(missing)}")
    if not any(name.endswith(".safetensors") for name in names):
        raise SystemExit("the wheel holds no bundled weights (*.safetensors)")
    strays = [name for name in names if not name.startswith(("isocline/", "isocline-"))]
    if strays:
        raise SystemExit(f"the wheel holds files outside the package: {', '.join(sorted(strays))}")
    size = wheel.stat().st_size
    if size > LARGEST:
        raise SystemExit(f"the wheel has {size / 1e6:.1f} MB, more than {LARGEST / 1e6:.0f} MB")
    print(f"{wheel.name}: {size / 1e6:.2f} MB, {len(names)} files")


def install(wheel: Path, folder: Path) -> Path:
    """Return the programs folder of a new environment that holds the wheel and sees the dependencies of this one."""
    call(sys.executable, "-m", "venv", "--without-pip", folder)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    own = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    call(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel)
    (Path(own) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return scripts


def use(scripts: Path, folder: Path) -> None:
    """Import the package and call its command in an empty folder with an empty home."""
    home = folder / "home"
    home.mkdir()
    printed = call(scripts / "python", "-I", "-W", "error", "-c", IMPORT, cwd=folder, home=home)
    if printed:
        raise SystemExit(f"importing isocline printed: {printed}")
    if list(home.iterdir()):
        raise SystemExit(f"importing isocline wrote {[path.name for path in home.iterdir()]} into the user's home")
    version = call(scripts / "python", "-I", "-c", "import isocline; print(isocline.__version__)", cwd=folder).strip()
    told = call(scripts / "isocline", "--version", cwd=folder, home=home)
    if version not in told:
        raise SystemExit(f"isocline --version says {told.strip()!r}, the package {version}")
    listed = call(scripts / "isocline", "methods", cwd=folder, home=home)
    keys = call(scripts / "python", "-I", "-c", KEYS, cwd=folder, home=home).split()
    missing = [key for key in keys if key not in listed]
    if missing or not keys:
        raise SystemExit(f"isocline methods does not list {', '.join(missing) or 'anything'}")
    print(f"isocline {version}: {len(keys)} methods, from outside the tree")


KEYS = "from isocline._core.registry import methods; print(*(m.key for m in methods()))"


def call(*command: str | Path, cwd: Path | None = None, home: Path | None = None) -> str:
    """Return what the command printed on both streams; stop where it fails."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "XDG_"))}
    environment |= {"HOME": str(home)} if home else {}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(str(part) for part in command)}\n{done.stdout}")
    return done.stdout


def main() -> None:
    """Build, look into the wheel, install it, use it."""
    folder = Path(tempfile.mkdtemp(prefix="isocline-wheel-"))
    try:
        wheel = build(folder / "dist")
        check_contents(wheel)
        use(install(wheel, folder / "env"), folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
