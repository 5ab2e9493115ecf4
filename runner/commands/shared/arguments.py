"""What the commands share: the parser, what a command is, flags that several take, and the texts of flags turned into values."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import shtab
from rich.console import Console

from models import user_file
from models.ops.providers import PROVIDERS
from results.plans import sizes
from results.plans.files import LAPTOP
from results.plans.toml_reader import PlanError
from runner.checkpoints import model_files
from schema import shortened, suggestion

SETTING = {"metavar": "NAME.SETTING=VALUE", "action": "append", "default": [], "help": "a model's or task's setting"}

_NAMES = "for plan in results/*/plan.toml results/comparisons/*/*/plan.toml; do basename ${plan%/*}; done 2>/dev/null"
COMPLETES = {  # shell functions that complete a comparison's name
    "bash": f'_titanomachy_comparisons() {{ compgen -W "$({_NAMES})" -- "$1"; }}',
    "zsh": f"_titanomachy_comparisons() {{ compadd -- $({_NAMES}); }}",
}


class Command(NamedTuple):
    """One command of bench.py: its line in the list, what adds its flags, what it calls, and an example of its use.

    `call(arguments, console)` returns the exit status.
    """

    help: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    call: Callable[[argparse.Namespace, Console], int]
    example: str


class UsageError(ValueError):
    """Words that the command line does not know, or that say nothing."""


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError, in one sentence with the word that was probably meant, where argparse prints and exits."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{message}; {self.prog} --help lists what there is.")

    def _get_value(self, action: argparse.Action, text: str) -> Any:
        try:
            return super()._get_value(action, text)
        except argparse.ArgumentError:
            wanted = {int: "a whole number", float: "a number"}.get(action.type, "something else")
            raise argparse.ArgumentError(action, f"must be {wanted}, not {shortened(text)}") from None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            word, known = f"{shortened(value)}{suggestion(str(value), action.choices)}", ", ".join(action.choices)
            raise argparse.ArgumentError(action, f"there is no {word}; choose from {known}")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:
        """The words; UsageError for one that is left over."""
        found, left = self.parse_known_args(args, namespace)
        if left:
            command = self.command(found.command)
            flags = [flag for action in command._actions for flag in action.option_strings]
            word = f"{shortened(left[0])}{suggestion(left[0].partition('=')[0], flags)}"
            command.error(f"{found.command} does not know {word}")
        return found

    def command(self, name: str) -> argparse.ArgumentParser:
        """The parser of a command's own words."""
        return next(a.choices for a in self._actions if isinstance(a, argparse._SubParsersAction))[name]


def parser(description: str, commands: Mapping[str, Command | None]) -> argparse.ArgumentParser:
    """The parser of bench.py for these commands; None stands for one that is not called and whose flags nobody asks for."""
    top = Parser(prog="bench.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    shtab.add_argument_to(
        top, "--completion", help="print what completes the commands in this shell", preamble=COMPLETES
    )
    added = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in commands.items():
        if command is None:
            added.add_parser(name)
            continue
        one = added.add_parser(
            name,
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.",
            epilog=f"example: python bench.py {command.example}",
        )
        command.add_flags(one)
        one.set_defaults(action=command.call)
    return top


def parsed(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> argparse.Namespace:
    """The words of a command; a scale other than the laptop's becomes part of the comparison's name.

    Raises UsageError, also for a word without content: a shell variable that is not set would choose everything.
    """
    found = parser.parse_args(words)
    for action in parser.command(found.command)._actions:
        value = getattr(found, action.dest, None)
        for word in value if isinstance(value, list) else [value]:
            if isinstance(word, str) and not word.strip(", "):
                called = action.option_strings[-1] if action.option_strings else action.dest
                raise UsageError(f"{called} is empty; say what it is to be, or leave it out.")
    if getattr(found, "scale", None) not in (None, LAPTOP):
        found.comparison = f"{found.comparison}/{found.scale}"
    return found


def add_comparison(command: argparse.ArgumentParser, help: str, may_lack: bool = False) -> None:
    """Which comparison, and which of its plans."""
    command.add_argument("comparison", help=help, nargs="?" if may_lack else None).complete = dict.fromkeys(
        COMPLETES, "_titanomachy_comparisons"
    )
    command.add_argument(
        "--scale", metavar="NAME", help="laptop (plan.toml), one-gpu-quick, one-gpu, paper: the file beside it"
    )


def add_with_committed(command: argparse.ArgumentParser) -> None:
    """Whether committed rows stand beside this machine's."""
    command.add_argument(
        "--with-committed",
        action="store_true",
        help="models that were not measured here are shown from the committed rows, marked",
    )


def add_provider(command: argparse.ArgumentParser, default: str | None, more: str = "") -> None:
    """Whose form of each operation computes."""
    command.add_argument("--provider", default=default, help=f"auto, {', '.join(PROVIDERS)}{more}")


def add_model_files(command: argparse.ArgumentParser) -> None:
    """Where a model of the user's own is registered."""
    command.add_argument(
        "--models",
        metavar="FILE",
        help="your file or package/ in which a model of yours is registered; it is run",
    )


def model_files_of(arguments: argparse.Namespace) -> list[str]:
    """The user's files that a checkpoint may come from. Raises ValueError where --models names something else."""
    if arguments.models is None:
        return []
    files = names_in(arguments.models)
    if not files or not all(map(user_file.is_path, files)):
        raise ValueError(
            "--models names no Python file here; give the path/to/file.py or package/ that registers a model of yours."
        )
    model_files.name(files)
    return files


def settings_of(arguments: argparse.Namespace, subject: str, done: str, beside: str | None = None) -> dict[str, Any]:
    """The settings that --set gives the one model or task of a command. Raises ValueError where it names another but `beside`."""
    every = settings_in(arguments.set)
    if others := set(every) - {subject, beside}:
        raise ValueError(f"--set names {', '.join(sorted(others))}, but {subject} is {done}: set {subject}.X.")
    return every.get(subject, {})


def settings_in(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`["mamba2.states=64"]` -> `{"mamba2": {"states": 64}}`; the name is a model's or a task's."""
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        place, equals, value = text.partition("=")
        name, dot, setting = place.rpartition(".")
        if not (equals and dot and name and setting):
            raise PlanError(f"--set takes NAME.SETTING=VALUE (a model's or a task's name), not {shortened(text)}.")
        found.setdefault(name, {})[setting] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two: nested too deeply
        return {"true": True, "false": False}.get(text, text)
    return list(value) if isinstance(value, tuple) else value


def size_in(text: str) -> dict[str, int]:
    """`"width=64,depth=2"` -> `{"width": 64, "depth": 2}`; `"nano"` -> the size of that name."""
    if "=" not in text:
        return sizes.named(text.strip(), "--size")
    parts = [part.partition("=") for part in text.split(",")]
    if not all(equals for _, equals, _ in parts):
        raise PlanError(f"--size takes a name, or width=64,depth=2,heads=4 (any of them), not {shortened(text)}.")
    names = [name.strip() for name, _, _ in parts]
    if twice := [name for name in names if names.count(name) > 1]:
        raise PlanError(f"--size names {shortened(twice[0])} twice; leave one out.")
    return {name.strip(): _whole("--size", value) for name, _, value in parts}


def seeds_in(text: str) -> list[int]:
    """`"0,1"` -> `[0, 1]`."""
    return [_whole("--seeds", part) for part in text.split(",")]


def names_in(text: str) -> list[str]:
    """`"retnet, mamba"` -> `["retnet", "mamba"]`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _whole(flag: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise PlanError(f"{flag} takes whole numbers, not {shortened(text)}.") from None
