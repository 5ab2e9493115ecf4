"""The environment that `make` makes: which build of torch it takes, with what, and what it says where it cannot have it."""

from __future__ import annotations

import importlib.util
import re
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from schema.places import ROOT


@pytest.fixture
def environment(monkeypatch):
    """The script as a module, on a Linux machine without a driver and without uv on its path."""
    spec = importlib.util.spec_from_file_location("environment", ROOT / ".ci" / "environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.platform, "system", lambda: "Linux")
    monkeypatch.setattr(module, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    return module


@pytest.fixture
def pip() -> SimpleNamespace:
    """What pip says that it was told, and whether it can bring uv."""
    return SimpleNamespace(told="global.cert='/etc/ssl/cert.pem'\n", brings_uv=True)


@pytest.fixture
def commands(environment, pip, monkeypatch) -> list[list[str]]:
    """The commands that the script runs, which are noted instead."""
    noted: list[list[str]] = []

    def run(command, **_):
        if "config" in command:
            return subprocess.CompletedProcess(command, 0, stdout=pip.told)
        noted.append([*map(str, command)])
        fails = "broken-uv" in str(command[0]) or (command[-1] == "uv" and not pip.brings_uv)
        return subprocess.CompletedProcess(command, int(fails))

    monkeypatch.setattr(environment.subprocess, "run", run)
    return noted


@pytest.fixture
def server():
    """The address of a small index on this machine."""

    class Index(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    index = HTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=index.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{index.server_port}"
    index.shutdown()
    index.server_close()


def test_without_a_driver_the_cpu_index_is_taken_where_it_answers(environment, commands, server, monkeypatch):
    monkeypatch.setattr(environment, "CPU_INDEX", server)
    environment.make(Path("env"), "test", gpu=False)
    torch = next(command for command in commands if command[-1] == "torch")
    assert torch[torch.index("--extra-index-url") + 1] == server
    assert [command[-1] for command in commands] == ["env", "uv", "torch", f"{ROOT}[test]"]  # torch first and alone


def test_an_index_that_does_not_answer_is_one_sentence_within_seconds(environment, commands, capsys, monkeypatch):
    with socket.socket() as silent:  # takes the connection and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(environment, "CPU_INDEX", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(environment, "SECONDS", 0.3)
        monkeypatch.setattr(environment.answers, "__defaults__", (0.3,))
        begun = time.monotonic()
        environment.make(Path("env"), "test", gpu=False)
    assert time.monotonic() - begun < 5
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "did not answer" in said and "default build" in said
    assert not any("--extra-index-url" in command for command in commands)


@pytest.mark.parametrize("case", ["gpu asked for", "driver", "another system"])
def test_the_default_build_is_taken_without_asking_the_cpu_index(case, environment, commands, monkeypatch):
    monkeypatch.setattr(environment, "answers", lambda url: pytest.fail("the CPU index was asked"))
    monkeypatch.setattr(environment, "has_nvidia_driver", lambda: case == "driver")
    monkeypatch.setattr(environment.platform, "system", lambda: "Darwin" if case == "another system" else "Linux")
    environment.make(Path("env"), "test", gpu=case == "gpu asked for")
    assert not any("--extra-index-url" in command for command in commands)


def test_uv_installs_where_it_is_there(environment, commands, server, monkeypatch):
    monkeypatch.setattr(environment, "CPU_INDEX", server)
    monkeypatch.setattr(environment.shutil, "which", lambda name: "/usr/bin/uv" if name == "uv" else None)
    environment.make(Path("env"), "test", gpu=False)
    assert [command[0] for command in commands[1:]] == ["/usr/bin/uv", "/usr/bin/uv"]


def test_pip_brings_uv_where_it_is_not_there(environment, commands):
    environment.make(Path("env"), "test", gpu=True)
    assert [command[0] for command in commands] == [sys.executable, "env/bin/python", "env/bin/uv", "env/bin/uv"]


def test_pip_that_cannot_bring_uv_says_so_and_installs(environment, commands, pip, capsys):
    pip.brings_uv = False
    environment.make(Path("env"), "test", gpu=True)
    assert [command[0] for command in commands[1:]] == ["env/bin/python"] * 3
    assert capsys.readouterr().out == "pip could not bring uv, which is faster: going on with pip.\n"


@pytest.mark.parametrize("told", ["global.index-url='https://mirror/simple'", ":env:.find-links='/wheels'"])
def test_pip_installs_where_it_is_told_where_packages_lie(told, environment, commands, pip, monkeypatch):
    pip.told = told
    monkeypatch.setattr(environment.shutil, "which", lambda name: "/usr/bin/uv" if name == "uv" else None)
    environment.make(Path("env"), "test", gpu=True)
    assert [command[0] for command in commands[1:]] == ["env/bin/python"] * 2


def test_pip_goes_on_in_one_sentence_where_uv_cannot(environment, commands, capsys, monkeypatch):
    monkeypatch.setattr(environment.shutil, "which", lambda name: "/usr/bin/broken-uv" if name == "uv" else None)
    environment.make(Path("env"), "test", gpu=True)
    assert [command[1:3] for command in commands if "broken" not in command[0]][1:] == [["-m", "pip"]] * 2
    assert capsys.readouterr().out.count("going on with pip") == 2


def test_a_failed_install_is_a_sentence_and_exit_2(environment, capsys, monkeypatch):
    def fail(command, **_):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(environment.subprocess, "run", fail)
    monkeypatch.setattr(environment.sys, "argv", ["environment.py", "env", "--gpu"])
    assert environment.main() == 2
    assert capsys.readouterr().err.startswith("environment: this command failed:")


def test_a_plain_install_is_refused_in_one_sentence():
    code = "import sys; sys.path.insert(0, '.ci'); import build_backend; build_backend.build_wheel('x')"
    done = subprocess.run(
        [sys.executable, "-c", "import sys, types; m = types.ModuleType('setuptools.build_meta'); m.__all__ = []; "
         "sys.modules['setuptools'] = types.ModuleType('setuptools'); sys.modules['setuptools.build_meta'] = m; " + code],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.strip().count("\n") == 0 and "pip install -e ." in done.stderr


def pinned(name: str) -> dict[str, str]:
    """Packages of a file of pins, with the version of each; names as the package index spells them."""
    lines = (ROOT / name).read_text().splitlines()
    pairs = (line.split(";")[0].strip(" \\").split("==") for line in lines if "==" in line and line[0].isalpha())
    return {package.lower().replace("_", "-"): version.strip() for package, version in pairs}


def test_the_locks_hold_what_constraints_pin_and_every_file_has_a_hash():
    pins, cuda, cpu = map(pinned, ("constraints.txt", "requirements/cuda.txt", "requirements/cpu.txt"))
    shared = pins.keys() & cuda.keys()  # pins of other extras are in no lock
    assert {name: cuda[name] for name in shared} == {name: pins[name] for name in shared} and len(shared) > 50
    assert cpu == {name: version for name, version in cuda.items() if name in cpu}
    left_out = cuda.keys() - cpu.keys()
    assert {"torch", "triton"} <= left_out
    assert all(name in ("torch", "triton") or name.startswith(("nvidia-", "cuda-")) for name in left_out)
    for name in ("cuda", "cpu"):
        blocks = re.split(r"\n(?=[a-z])", (ROOT / "requirements" / f"{name}.txt").read_text())[1:]
        assert all("--hash=sha256:" in block for block in blocks)


def test_a_lock_without_uv_is_one_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "lock.py"], env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert (
        done.returncode == 1 and done.stderr.strip() == "The locks are made by uv: pip install uv, then run this again."
    )
