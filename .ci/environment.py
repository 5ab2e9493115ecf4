"""Makes a virtual environment for the Makefile: `python3 environment.py .venv --extras test [--gpu]`.

The standard library alone, since nothing is installed yet. torch goes in first and alone, since the build that is wanted
depends on the machine: PyTorch's CPU build where no NVIDIA driver is found, else the default of the package index, which
brings CUDA. `uv` installs, which pip brings where it is not there; pip itself where it has sources of its own.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

OLDEST = (3, 11)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SECONDS = 5.0  # that the index may take to answer
SOURCES = ("index-url", "find-links", "no-index")  # settings of pip that say where packages lie
ROOT = Path(__file__).resolve().parent.parent


def has_nvidia_driver() -> bool:
    """Whether this machine can run CUDA code: its kernel module is loaded, or its tool is there (WSL has only that)."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def answers(url: str, seconds: float = SECONDS) -> bool:
    """Whether `url` answers within so many seconds, the look-up of its name, which no timeout of a socket covers, included."""
    found: list[bool] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(url, timeout=seconds) as reply:
                found.append(reply.status < 400)
        except (OSError, ValueError):
            found.append(False)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return bool(found) and found[0]


def torch_index(gpu: bool) -> str | None:
    """The index that torch is looked up in beside the default one; None for the default alone. Says what it decides."""
    if gpu or platform.system() != "Linux":  # elsewhere the default build is the CPU's
        return None
    if has_nvidia_driver():
        print("An NVIDIA driver is there: taking PyTorch's CUDA build.", flush=True)
        return None
    if answers(f"{CPU_INDEX}/torch/"):
        return CPU_INDEX
    print(
        f"No NVIDIA driver is there, but PyTorch's CPU index did not answer within {SECONDS:.0f} s: "
        "going on with the default build, which may bring CUDA's gigabytes.",
        flush=True,
    )
    return None


def uv_for(python: Path) -> str | None:
    """`uv`, which installs several times as fast as pip: the machine's own, else one that pip brings into the environment.

    None where pip is to install: it is told where packages lie (a mirror, a folder of wheels), which uv does not read, or it
    cannot bring uv, which is said.
    """
    told = subprocess.run([str(python), "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    if any(source in told for source in SOURCES):
        return None
    if found := shutil.which("uv"):
        return found
    brought = subprocess.run([*_pip(python), "--retries", "1", "uv"], stderr=subprocess.DEVNULL)
    if brought.returncode == 0:
        return str(python.with_name("uv"))
    print("pip could not bring uv, which is faster: going on with pip.", flush=True)
    return None


def _pip(python: Path) -> list[str]:
    pins = str(ROOT / "constraints.txt")
    return [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", pins]


def install(python: Path, uv: str | None, *packages: str) -> None:
    """Install packages, held to the pins, into the environment of `python`: by uv where it is there and can, else by pip."""
    if uv:
        # The pinned torch lies in two indexes: of both the best version is wanted, as pip takes it. Certificates are the
        # machine's, as pip's are.
        chosen = ["--index-strategy", "unsafe-best-match", "-c", str(ROOT / "constraints.txt")]
        command = [uv, "pip", "install", "--quiet", "--python", str(python), *chosen, *packages]
        if subprocess.run(command, env={"UV_SYSTEM_CERTS": "1", **os.environ}).returncode == 0:
            return
        print("uv could not install this (it says why above): going on with pip.", flush=True)
    subprocess.run([*_pip(python), *packages], check=True)


def make(folder: Path, extras: str, gpu: bool) -> None:
    """The environment `folder` with pinned torch, then the project from its checkout with `extras`."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    index, uv = torch_index(gpu), uv_for(python)
    install(python, uv, *(["--extra-index-url", index] if index else []), "torch")
    install(python, uv, "-e", f"{ROOT}[{extras}]")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--extras", default="test", help="of pyproject.toml, comma-separated")
    parser.add_argument("--gpu", action="store_true", help="take PyTorch's CUDA build, whatever the machine")
    arguments = parser.parse_args()
    if sys.version_info < OLDEST:
        print("Python 3.11 or newer is needed; call make PYTHON=python3.11.", file=sys.stderr)
        return 2
    try:
        make(arguments.folder, arguments.extras, arguments.gpu)
    except subprocess.CalledProcessError as error:
        print(f"environment: this command failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
