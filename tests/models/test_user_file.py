"""A user's own file: what it registers, what is refused and how, and that the page's worked example is true."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

import baselines  # noqa: F401  fills the registry
from models import registry
from models.check import check
from models.language_model import Size, build
from models.user_file import BadFile, load_file

PAGE = Path(__file__).resolve().parents[2] / "docs" / "add_a_baseline.md"
MINE = """
from torch import nn
from models.registry import register


@register("{name}", paper="none", equation="y = W x")
class Mine(nn.Module):
    fixed_state = True

    def __init__(self, width: int, heads: int, scale: float = {scale}):
        super().__init__()
        self.scale, self.out = scale, nn.Linear(width, width)

    def forward(self, x, state=None):
        return self.scale * self.out(x), ()
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Every test begins without user files and leaves none behind."""
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("yours_"):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    """A function that writes a file and returns its path."""

    def put(source: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
        return path

    return put


def test_file_joins_as_family_yours_under_a_stable_module(write):
    path = write(MINE.format(name="mine", scale=1.0))
    assert load_file(path) == ["mine"]
    entry = registry.entry("mine")
    assert (entry.family, entry.file, entry.cls.__module__) == ("yours", path.resolve(), "yours_mine")
    assert registry.names()[-1] == "mine"
    logits, _ = build("mine", Size(16, 8, 1, 2), scale=2.0)(torch.zeros(1, 3, dtype=torch.long))
    assert logits.shape == (1, 3, 16)


def test_all_names_of_a_file_are_returned_and_no_others(write):
    path = write(MINE.format(name="mine", scale=1.0) + MINE.format(name="a-second", scale=1.0))
    assert load_file(str(path)) == ["a-second", "mine"]


def test_file_loaded_again_is_run_again(write):
    path = write(MINE.format(name="mine", scale=1.0))
    load_file(path)
    write(MINE.format(name="mine", scale=2.25))
    assert load_file(path) == ["mine"]
    assert build("mine", Size(16, 8, 1, 2)).blocks[0].mixer.scale == 2.25


def test_relative_path_is_found_from_where_the_user_stands(write, monkeypatch):
    path = write(MINE.format(name="mine", scale=1.0))
    monkeypatch.chdir(path.parent)
    assert load_file("mine.py") == ["mine"]


@pytest.mark.parametrize("path", ["missing.py", ".", "notes.txt"])
def test_missing_file_folder_and_other_files_are_refused(tmp_path, path):
    (tmp_path / "notes.txt").write_text("x = 1")
    with pytest.raises(BadFile, match="There is no Python file .*; give the path"):
        load_file(tmp_path / path)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("x = 1\nimport nowhere", r"line 2: ModuleNotFoundError: No module named 'nowhere'"),
        ("def broken(:\n", r"line 1: SyntaxError"),
        ("def deep():\n    raise RuntimeError('boom')\n\ndeep()", r"line 2: RuntimeError: boom"),
        (
            MINE.format(name="retnet", scale=1.0),
            r"line \d+: ValueError: The name 'retnet' is already taken by .*retnet.py",
        ),
    ],
    ids=["import", "syntax", "runtime", "taken name"],
)
def test_file_that_fails_to_import_tells_error_and_line(write, source, told):
    with pytest.raises(BadFile, match="mine.py fails to import, " + told):
        load_file(write(source))
    assert "yours_mine" not in sys.modules
    assert "mine" not in registry.names()


def test_file_can_be_loaded_once_it_is_mended(write):
    with pytest.raises(BadFile):
        load_file(write("1 / 0"))
    assert load_file(write(MINE.format(name="mine", scale=1.0))) == ["mine"]


def test_file_that_registers_nothing_is_refused(write):
    with pytest.raises(BadFile, match="mine.py registers no model; decorate its class with @register"):
        load_file(write("x = 1"))


def test_second_file_of_the_same_name_is_refused(write):
    load_file(write(MINE.format(name="mine", scale=1.0)))
    with pytest.raises(BadFile, match="Another file called mine.py is loaded already .*rename one"):
        load_file(write(MINE.format(name="other", scale=1.0), "elsewhere/mine.py"))


def test_worked_example_of_the_page_passes_the_check(write, monkeypatch):
    monkeypatch.delitem(registry._entries, "hgrn2", raising=False)
    example = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL).group(1)
    assert load_file(write(example, "hgrn2_of_the_page.py")) == ["hgrn2"]
    answers = check("hgrn2")
    assert len(answers) > 15
    assert [answer for answer in answers if not answer.passed] == []
