"""What pages tell a reader to type: every command parses and names what is there; what is cheap is run."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

import bench
import tasks
from models import registry
from results.plans import reader
from runner.commands.shared import arguments as command_line
from runner.commands.shared.arguments import names_in, settings_in
from schema.places import ROOT
from schema.settings import parameters
from tasks.harness.floors import sit
from tests.support.documents import PAGES, Command, code_blocks, commands, commands_in, name_of

EVERY = commands()
ANY = ("X", "NAME", "MODEL", "TASK", "FOLDER", "<name>")  # words that stand for what a reader chooses
OWN = ("my-hgrn2", "mine", "odd-one-out", "my-model")  # what a reader makes by these pages
PARTS = ("models", "recurrences")  # names of side-by-side benchmarks, which --tasks takes too
IS_FILE = re.compile(r"/|\.py$|\.txt|\.tar")
NEEDS_MORE = ("--launcher", "cuda", "--parallel")  # a package or a machine that a test has not


def read(command: Command):
    """A command's words, parsed as bench.py does it; the usage of one alone is none."""
    words = list(command.words)
    parser = command_line.parser("", bench.commands(words))
    with contextlib.redirect_stdout(None):
        return command_line.parsed(parser, words)


def unknown(command: Command) -> list[str]:
    """The comparisons, models, tasks and settings that a command names and that are nowhere."""
    parsed = vars(read(command))
    comparisons = [*reader.comparisons(ROOT / "results"), *ANY]
    wanted = [(parsed.get("comparison"), comparisons), (parsed.get("task"), [*tasks.names(), *ANY])]
    wanted += [(name, registry.names()) for name in names_in(parsed.get("models") or "")]
    wanted += [(name, registry.names()) for name in names_in(parsed.get("show") or "")]
    if command.words[0] == "run":
        wanted += [(name, [*tasks.names(), *PARTS]) for name in names_in(parsed.get("tasks") or "")]
    if command.words[0] in ("check", "profile"):
        wanted.append((parsed["model"], registry.names()))
    lost = [f"there is no {name}" for name, known in wanted if name and not _is_readers(name) and name not in known]
    return lost + _unknown_settings(parsed)


def _is_readers(name: str) -> bool:
    return name in (*ANY, *OWN) or bool(IS_FILE.search(name))


def _unknown_settings(parsed: dict) -> list[str]:
    lost = []
    for name, chosen in settings_in(parsed.get("set") or ()).items():
        if name in OWN:
            continue
        cls = tasks.class_of(name) if name in tasks.names() else registry.entry(name).cls
        lost += [f"{name} has no {setting}" for setting in chosen if setting not in parameters(cls)]
    return lost


def named(command: Command) -> bool:
    """Whether a command is about something: `bench.py run` alone is the command's name, in a sentence."""
    return len(command.words) > 1 or command.words[0] in ("list", "--help")


@pytest.mark.parametrize("command", [one for one in EVERY if named(one) and "--help" not in one.words], ids=str)
def test_a_command_parses_and_names_what_is_there(command: Command):
    if command.words[0].startswith("--completion"):
        with pytest.raises(SystemExit) as ended:
            read(command)
        assert ended.value.code in (0, None)
        return
    assert unknown(command) == []


BESIDE = {one.words[1] for one in EVERY if "--with-committed" in one.words and named(one)} - set(ANY)


def test_committed_rows_that_pages_set_beside_a_readers_were_measured_as_the_plan_is_now():
    assert BESIDE
    for comparison in BESIDE:
        (folder,) = (ROOT / "results" / "comparisons").glob(f"*/{comparison}")
        plan, packed = (
            tomllib.loads((where / "plan.toml").read_text(encoding="utf-8")) for where in (folder, folder / "reference")
        )
        for part in ("tasks", "budget", "size", "dtype", "threads"):
            assert plan.get(part) == packed.get(part), f"{comparison}: {part}"


@pytest.mark.parametrize("name", bench.COMMANDS)
def test_every_command_has_the_help_that_pages_speak_of(name: str, capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main([name, "--help"])
    assert ended.value.code == 0 and f"example: python bench.py {name}" in " ".join(capsys.readouterr().out.split())


def test_a_command_that_is_wrong_is_found():
    text = (
        "    $ python bench.py run quik --models retnett --set mamba2.stats=3    a comment\n\n`bench.py show nedle`\n"
    )
    wrong = [unknown(Command("a page", words)) for words in commands_in(text)]
    assert wrong == [
        ["there is no quik", "there is no retnett", "mamba2 has no stats"],
        ["there is no nedle"],
    ]
    with pytest.raises(command_line.UsageError):
        read(Command("a page", ("run", "quick", "--modles", "retnet")))


SHOWN = {one.words: one for one in EVERY if one.words[0] == "show" and not any(map(_is_readers, one.words[1:2]))}


@pytest.mark.parametrize("words", [words for words in SHOWN if not IS_FILE.search(" ".join(words))], ids=" ".join)
def test_what_is_shown_is_shown(words: tuple[str, ...], capsys):
    if any("tokenizer" in word for word in words):
        pytest.importorskip("tokenizers")
    assert bench.main(list(words)) == 0, capsys.readouterr().err
    assert f"{words[1]}, test question 0" in capsys.readouterr().out


def dry() -> list[tuple[str, ...]]:
    """Every documented run of what is there, once, without what it would measure."""
    of_runs = [one.words for one in EVERY if one.words[0] == "run" and named(one)]
    kept = [
        words
        for words in of_runs
        if not any(_is_readers(name) for word in words[1:] for name in re.split("[,=]", word))
    ]
    kept = [words for words in kept if not any(more in words for more in NEEDS_MORE)]
    return list(dict.fromkeys((*(word for word in words if word != "--dry-run"), "--dry-run") for words in kept))


@pytest.mark.slow
@pytest.mark.parametrize("words", dry(), ids=" ".join)
def test_a_documented_run_can_be_run(words: tuple[str, ...], capsys):
    assert bench.main(list(words)) == 0, capsys.readouterr().err
    assert "to be measured" in capsys.readouterr().out


def test_make_and_extras_that_pages_name_are_there():
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        typed = re.findall(r"(?:^    |`)make ([a-z][a-z-]*)", text, re.MULTILINE)
        assert set(typed) <= targets, name_of(page)
        extras = {one.strip() for group in re.findall(r"\.\[([a-z, -]+)\]", text) for one in group.split(",")}
        assert extras <= set(project["optional-dependencies"]), name_of(page)


@pytest.mark.parametrize("page", ["draw.md", "models.md"])
def test_python_of_a_page_runs(page: str, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for block in code_blocks(ROOT / "docs" / page, "python"):
        exec(compile(block, page, "exec"), {})
    assert capsys.readouterr().out


def test_the_task_of_the_tutorial_is_a_task(tmp_path: Path):
    """Drawn, solved by whoever knows, and by nobody who takes a shortcut."""
    (source,) = code_blocks(ROOT / "docs" / "add_a_task.md", "python")
    path = tmp_path / "odd_one_out.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("odd_one_out", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    task = module.OddOneOut(pairs=4, test_pairs=(4,), samples=64)
    assert task.training(0, 0, 0.5, 256).tokens.max() < task.vocab
    assert all(one.value == 1.0 for one in sit(task, task.oracle))
    scores = {name: found[0].value for name, found in task.floors().items()}
    assert set(scores) == set(task.readers()) and all(score < 0.4 for score in scores.values())
    exam = next(task.exams("test"))
    (place,) = task.sources(exam.batch.tokens[0].tolist(), 9)
    assert exam.batch.tokens[0, place] == exam.batch.targets[0, 9]
    with pytest.raises(ValueError, match="more symbols"):
        module.OddOneOut(pairs=64)
