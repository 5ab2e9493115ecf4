"""Writes the two locks: `python .ci/lock.py` needs `uv`. Every package that `make test` installs, with the hashes of its files.

`requirements/cuda.txt` is whole. `requirements/cpu.txt` is the same without torch and what only its CUDA build brings: PyTorch's
CPU build lies in an index of its own, whose files have other hashes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
ONLY_CUDA = ("torch==", "triton==", "nvidia-", "cuda-")
COMMAND = [
    "uv",
    "pip",
    "compile",
    "pyproject.toml",
    "--extra",
    "test",
    "-c",
    "constraints.txt",
    "--no-progress",
    "--universal",
]
COMMAND += ["--python-version", "3.11", "--generate-hashes", "--no-annotate", "--no-header"]
ABOUT = "# Made by .ci/lock.py; python -m pip install --require-hashes --no-deps -r {name}\n"


def without_cuda(lock: str) -> str:
    """The lock without the packages of torch's CUDA build: each starts a line, its hashes follow indented."""
    kept, drops = [], False
    for line in lock.splitlines(keepends=True):
        if not line[0].isspace():
            drops = line.startswith(ONLY_CUDA)
        if not drops:
            kept.append(line)
    return "".join(kept)


def main() -> None:
    try:
        made = subprocess.run(COMMAND, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    except FileNotFoundError:
        sys.exit("The locks are made by uv: pip install uv, then run this again.")
    except subprocess.CalledProcessError as fault:
        sys.exit(f"uv could not make the locks (it says why above), exit {fault.returncode}.")
    FOLDER.mkdir(exist_ok=True)
    for name, lock in {"cuda.txt": made, "cpu.txt": without_cuda(made)}.items():
        (FOLDER / name).write_text(ABOUT.format(name=f"requirements/{name}") + lock)


if __name__ == "__main__":
    main()
