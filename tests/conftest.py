"""One thread for every test process: two busy threads on a core each run many times slower than one.

Temporary files, the machine's timing lock among them, lie in a folder of the tests' own: a comparison that is being timed beside
them would hold the lock for hours.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_NAME = f"titanomachy-tests-{os.getuid()}"
_folder = Path(tempfile.gettempdir())
if _folder.name != _NAME:  # a worker of pytest-xdist finds it set
    _folder /= _NAME
    _folder.mkdir(exist_ok=True)
    tempfile.tempdir = os.environ["TMPDIR"] = str(_folder)

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # read when torch is imported, so before any test module

import pytest  # noqa: E402
import torch  # noqa: E402

from tests.support.tiny_plan import tiny_plan  # noqa: E402

torch.set_num_threads(1)


os.environ["XDG_STATE_HOME"] = str(_folder / "state")  # what tests name is not what the user of this machine named


@pytest.hookimpl(tryfirst=True)  # before slow tests are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`sampled(n)`: of a test's many settings the quick suite takes every n-th, the slow suite the others."""
    settings: dict[tuple, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled") and not item.get_closest_marker("slow"):
            settings.setdefault((item.path, item.originalname), []).append(item)
    for several in settings.values():
        several.sort(key=lambda item: tuple(item.callspec.indices.values()))  # in whatever order they are run
        every = several[0].get_closest_marker("sampled").args[0]
        for place, item in enumerate(several):
            if place % every:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def one_thread_and_one_seed() -> None:
    """One thread again, as a cell that is timed inside a test leaves torch at as many as its plan says; and the same draws.

    Whatever ran before, a test that draws from torch's own generator gets the same numbers: one that fails, fails again.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def light_fonts(monkeypatch) -> None:
    """PDF figures with outlines of the letters they use: choosing them from a font file takes as long as the drawing.

    For tests that read a report's words, tables or other figures; those of the figures themselves draw as users do.
    """
    from results.report.figures import style

    monkeypatch.setitem(style.SETTINGS, "pdf.fonttype", 3)


@pytest.fixture
def results(tmp_path, monkeypatch, light_fonts) -> Path:
    """A results folder of its own with one comparison, `tiny`, and the place of a cache beside it."""
    from runner.commands.shared import comparison  # needs more than the environment of the kernels' tests has

    monkeypatch.setattr(comparison, "RESULTS", tmp_path)
    monkeypatch.setenv("TITANOMACHY_CACHE", str(tmp_path / "cache"))  # and put back what --cache changes
    (tmp_path / "cache").mkdir()
    (_folder / "native").mkdir(exist_ok=True)
    (tmp_path / "cache" / "native").symlink_to(
        _folder / "native"
    )  # what is compiled once serves the processes of all tests
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "plan.toml").write_text(tiny_plan())
    return tmp_path


def _users_modules() -> list[str]:
    return [name for name in sys.modules if name.startswith("yours_")]


@pytest.fixture(autouse=True)
def no_user_file_stays() -> Iterator[None]:
    """A test that leaves a user's file loaded fails itself, instead of whichever loads a file of that name after it."""
    yield
    left = _users_modules()
    for name in left:
        del sys.modules[name]
    assert not left, f"{', '.join(left)} of a user's file stays loaded; use the fixture no_user_files."


@pytest.fixture
def no_user_files(no_user_file_stays, monkeypatch) -> Iterator[None]:
    """A test that begins without user files and leaves none behind."""
    from models import registry, user_file

    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(user_file, "_brought", {})
    yield
    for name in _users_modules():
        del sys.modules[name]
