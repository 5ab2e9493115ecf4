"""A user's own file: what it registers, what is refused and how, and that the page's worked example is true."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import torch

import baselines  # noqa: F401  fills the registry
from models import registry
from models.conformance.kit import check
from models.language_model import Size, build
from models.law import NONE
from models.user_file import BadFile, blamed, files_in, files_of, is_path, load_file, load_files, source_of
from runner.schedule.worker import reason
from schema.places import ROOT

pytestmark = pytest.mark.usefixtures("no_user_files")

PAGE = ROOT / "docs" / "add_a_baseline.md"
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


@pytest.mark.parametrize("path", ["missing.py", "notes.txt"])
def test_missing_file_and_other_files_are_refused(tmp_path, path):
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
    assert load_file(write(MINE.format(name="mine", scale=1.0), "elsewhere/mine.py")) == [
        "mine"
    ]  # nothing of it is left


def test_second_file_of_the_same_name_is_refused(write):
    load_file(write(MINE.format(name="mine", scale=1.0)))
    with pytest.raises(BadFile, match="Another file called mine.py is loaded already .*rename one"):
        load_file(write(MINE.format(name="other", scale=1.0), "elsewhere/mine.py"))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import sys\nsys.exit(0)", "mine.py fails to import, line 2: SystemExit: 0"),
        ("import os\nos._exit(0)", "mine.py fails to import, line 2: SystemExit: os._exit(0)"),
        ("raise KeyboardInterrupt", "mine.py fails to import, line 1: KeyboardInterrupt"),
        ("class Rude(BaseException):\n    pass\nraise Rude('no')", "mine.py fails to import, line 3: Rude: no"),
        (
            "class Mute(Exception):\n    def __str__(self): 1 / 0\nraise Mute",
            "mine.py fails to import, line 3: Mute",
        ),
    ],
)
def test_a_file_that_ends_the_process_fails_to_import(write, source, told):
    with pytest.raises(BadFile) as caught:
        load_file(write(source))
    assert str(caught.value) == told and os._exit.__module__ == "posix"


def test_a_long_message_is_one_cut_line(write):
    with pytest.raises(BadFile) as caught:
        load_file(write("raise ValueError('line one\\nline two\\n' + 'x' * 5000 + '\\x1b[31m')"))
    told = str(caught.value)
    assert told.startswith("mine.py fails to import, line 1: ValueError: line one line two xxx")
    assert len(told) < 400 and told.isprintable()


def test_a_file_that_fails_after_it_registered_leaves_nothing(write):
    with pytest.raises(BadFile):
        load_file(write(MINE.format(name="mine", scale=1.0) + "\n1 / 0"))
    assert "mine" not in registry.names()


IMPOLITE = """
import os, sys, torch
import torch.nn.functional as F
torch.set_default_dtype(torch.float64)
F.cross_entropy = lambda *a, **k: 0.0
os.environ["MINE"] = "1"
sys.path.insert(0, "/mine")
torch.manual_seed(3)
"""


def test_what_a_file_changes_outside_itself_is_put_back_and_told(write):
    real, drawn = torch.nn.functional.cross_entropy, torch.get_rng_state()
    with pytest.warns(UserWarning) as caught:
        assert load_file(write(IMPOLITE + MINE.format(name="mine", scale=1.0))) == ["mine"]
    told = "mine.py changes the default dtype, torch.nn.functional.cross_entropy, which is put back"
    assert [str(warning.message).partition(":")[0] for warning in caught] == [told]
    assert torch.get_default_dtype() == torch.float32 and torch.nn.functional.cross_entropy is real
    assert "MINE" not in os.environ and "/mine" not in sys.path and torch.equal(torch.get_rng_state(), drawn)


def test_in_a_process_of_its_own_a_file_keeps_its_search_path_but_not_its_torch(write, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.warns(UserWarning, match="which is put back"):
        load_file(
            write(IMPOLITE.replace('os.environ["MINE"] = "1"', "") + MINE.format(name="mine", scale=1.0)),
            own_process=True,
        )
    assert "/mine" in sys.path and torch.get_default_dtype() == torch.float32


def test_models_are_known_by_the_file_that_brought_them(write):
    path = write(MINE.format(name="mine", scale=1.0))
    load_file(path)
    assert files_of(["retnet", "mine", "mine"]) == [str(path)]
    path.write_text("raise ValueError('run again')")
    load_files([path])  # is loaded already
    registry._entries.pop("mine")
    with pytest.raises(BadFile, match="run again"):
        load_files([path])


def test_an_exception_out_of_a_user_s_code_is_told_with_its_line(write):
    load_file(
        write(
            MINE.format(name="mine", scale=1.0).replace(
                "self.scale, self.out =", "assert scale < 1\n        self.scale, self.out ="
            )
        )
    )
    with pytest.raises(AssertionError) as caught:
        build("mine", Size(16, 8, 1, 2))
    assert re.fullmatch(r"mine\.py, line \d+: AssertionError", blamed(caught.value))
    assert re.fullmatch(r"AssertionError \(mine\.py, line \d+\)", reason(caught.value))  # of a failed row
    assert reason(ValueError("of the house")) == "ValueError: of the house"
    assert blamed(ValueError("of the house")) is None


@pytest.mark.parametrize(("place", "name"), [(0, "my-hgrn2"), (1, "my-rwkv")])
def test_worked_examples_of_the_page_pass_the_check(place, name, write, monkeypatch):
    monkeypatch.delitem(registry._entries, name, raising=False)
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert load_file(write(examples[place], f"example_{place}_of_the_page.py")) == [name]
    answers = check(name)
    assert len(answers) > 15
    assert [answer for answer in answers if not answer.passed] == []
    assert registry.entry(name).law != NONE


@pytest.fixture
def package(write):
    """The folder of a package whose model and whose numbers lie in two files, with a file of data beside them."""
    write("from . import model  # noqa: F401", "mine/__init__.py")
    write("WIDTH = 2.0\n", "mine/numbers.py")
    write(
        MINE.format(name="mine", scale="numbers.WIDTH").replace("from torch", "from . import numbers\nfrom torch", 1),
        "mine/model.py",
    )
    return write("1 2 3", "mine/data.txt").parent


def test_a_package_of_several_files_joins_and_is_run_again_whole(package, write):
    assert load_file(f"{package}{os.sep}") == ["mine"] and is_path(f"mine{os.sep}") and not is_path("mine")
    entry = registry.entry("mine")
    assert (entry.family, entry.file, entry.cls.__module__) == ("yours", package / "model.py", "yours_mine.model")
    assert files_of(["mine"]) == [str(package)] and source_of("mine") == package
    write("WIDTH = 3.5\n", "mine/numbers.py")
    os.utime(package / "numbers.py", (1, 1))
    assert load_file(package) == ["mine"]
    assert build("mine", Size(16, 8, 1, 2)).blocks[0].mixer.scale == 3.5


def test_a_package_that_fails_names_the_file_and_leaves_nothing(package, write):
    write("x = 1\n1 / 0\n", "mine/numbers.py")
    with pytest.raises(BadFile, match="mine/numbers.py fails to import, line 2: ZeroDivisionError"):
        load_file(package)
    assert not [name for name in sys.modules if name.startswith("yours_mine")] and "mine" not in registry.names()


def test_a_folder_without_init_is_refused(tmp_path):
    with pytest.raises(BadFile, match=f"The folder {re.escape(str(tmp_path))} has no __init__.py; write one"):
        load_file(tmp_path)
    with pytest.raises(BadFile, match="There is no Python file .*or of a folder with an __init__.py"):
        load_file(tmp_path / "none")


def test_a_package_that_imports_its_own_files_otherwise_says_how(package, write):
    (package / "model.py").write_text("import numbers_of_mine\n")
    (package / "numbers_of_mine.py").write_text("WIDTH = 1.0\n")
    with pytest.raises(
        BadFile, match=r"mine/model.py fails to import, line 1: .*; write `from .numbers_of_mine import ...`"
    ):
        load_file(package)
    write("from .numbers import WIDTH\n", "mine/model.py")
    with pytest.raises(BadFile, match=r"; give the folder that holds it instead \(mine/\), with an __init__.py"):
        load_file(package / "model.py")
    (package / "model.py").write_text("import numbers_of_mine\n")
    with pytest.raises(BadFile, match="; a single file imports no other of yours: give the folder"):
        load_file(package / "model.py")
    (package / "model.py").write_text("import nowhere_at_all\n")
    with pytest.raises(BadFile, match="No module named 'nowhere_at_all'$"):
        load_file(package)


def test_a_package_without_its_slash_is_told_so(package, monkeypatch):
    monkeypatch.chdir(package.parent)
    with pytest.raises(registry.UnknownModel, match="A package of yours is named with a slash: mine/."):
        registry.entry("mine")


def test_files_of_a_package_are_all_but_what_is_hidden_or_cached(package, write):
    write("", "mine/.hidden")
    load_file(package)
    assert [path.name for path in files_in(package)] == ["__init__.py", "data.txt", "model.py", "numbers.py"]
