"""
Build the wheel (from the sdist), install it into a fresh environment, and see whether everything is there.

Run it with an interpreter that has ``build``; it ends with status 1 and one line at the first thing missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_SHIPPED = (".ci/", ".gitignore", ".dockerignore")


def run(*words: str | Path, cwd: Path = ROOT) -> str:
    """Run a program to its end and give its output; SystemExit with that output when it fails."""
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(words, cwd=cwd, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{words} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def require(truth: object, complaint: str) -> None:
    """End with a complaint unless something is true."""
    if not truth:
        raise SystemExit(f"check_wheel: {complaint}")


def sources() -> set[str]:
    """Name the files that belong to the project: those that Git knows of."""
    names = run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    return {name for name in names if (ROOT / name).exists() and not name.startswith(NOT_SHIPPED)}


def check_contents(dist: Path) -> Path:
    """Compare the sdist and the wheel with the sources; give the wheel."""
    sdist, wheel = next(dist.glob("*.tar.gz")), next(dist.glob("*.whl"))
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    require(sources() <= packed, f"the sdist lacks {sorted(sources() - packed)}")
    wanted = {name for name in sources() if name.startswith(("bkscaler/", "twisted/"))}
    installed = set(zipfile.ZipFile(wheel).namelist())
    require(wanted <= installed, f"the wheel lacks {sorted(wanted - installed)}")
    require("twisted/plugins/__init__.py" not in installed, "the wheel would hide Twisted's own plugins")
    return wheel


def check_install(wheel: Path, scratch: Path) -> None:
    """Install the wheel where nothing of the sources is in sight, and use it there."""
    run(sys.executable, "-m", "venv", "--without-pip", scratch / "venv")
    python = scratch / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", wheel, cwd=scratch)
    twistd = scratch / "venv" / "bin" / "twistd"
    require("bkscaler" in run(twistd, "--help", cwd=scratch), "twistd --help does not list bkscaler")
    version = run(twistd, "bkscaler", "--version", cwd=scratch).strip()
    require(wheel.name.split("-")[1] == version.split()[-1], f"twistd bkscaler --version says {version!r}")
    # Quick test modules, one of which reads test data: the installed tests can run.
    modules = ["bkscaler.test.test_config", "bkscaler.test.test_kube_support"]
    run(python, "-m", "twisted.trial", *modules, cwd=scratch)


def main() -> None:
    """Do all of it."""
    with tempfile.TemporaryDirectory(prefix="bkscaler-wheel-") as name:
        scratch = Path(name)
        run(sys.executable, "-m", "build", "--outdir", scratch / "dist", ROOT)
        wheel = check_contents(scratch / "dist")
        check_install(wheel, scratch)
        print(f"{wheel.name}: complete, and usable where it was installed")


if __name__ == "__main__":
    main()
