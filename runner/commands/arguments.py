"""The words of the command line: commands, flags and help texts, and what the flags change in a plan."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from results.plans.files import LAPTOP
from results.plans.plan import Plan
from runner.commands import overrides
from schema import shortened, suggestion

Action = Callable[..., int]
Commands = Any  # what argparse's add_subparsers gives; its type is private
SETTING = {"metavar": "NAME.SETTING=VALUE", "action": "append", "default": [], "help": "a model's or task's setting"}


class UsageError(ValueError):
    """Words that the command line does not know, or that say nothing."""


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError, in one sentence with the word that was probably meant, where argparse prints and exits."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{message}; {self.prog} --help lists what there is.")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            word, known = f"{shortened(value)}{suggestion(str(value), action.choices)}", ", ".join(action.choices)
            raise argparse.ArgumentError(action, f"there is no {word}; choose from {known}")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:
        """The words; UsageError for one that is left over."""
        found, left = self.parse_known_args(args, namespace)
        if left:
            commands = next(a.choices for a in self._actions if isinstance(a, argparse._SubParsersAction))
            flags = [flag for action in commands[found.command]._actions for flag in action.option_strings]
            word = f"{shortened(left[0])}{suggestion(left[0].partition('=')[0], flags)}"
            commands[found.command].error(f"{found.command} does not know {word}")
        return found


def parser(description: str, actions: Mapping[str, Action], providers: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of bench.py; `actions` holds what to call for each command, `providers` the names to choose from."""
    top = Parser(prog="bench.py", description=description, formatter_class=argparse.RawTextHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_list(commands)
    _add_run(commands, providers)
    _add_pages(commands)
    _add_check(commands)
    _add_profile(commands)
    _add_show(commands)
    _add_zero_shot(commands, providers)
    _add_ask(commands, providers)
    for name, command in commands.choices.items():
        command.set_defaults(action=actions[name])
    return top


def _add_list(commands: Commands) -> None:
    listed = commands.add_parser("list", help="models by family, tasks, comparisons")
    listed.add_argument("--markdown", action="store_true", help="the README's table of models")
    listed.add_argument(
        "--costs", action="store_true", help="parameters, state bytes and FLOPs per token of every model"
    )
    listed.add_argument("models", nargs="*", metavar="MODEL|FILE.py", help="with --costs: these alone, not all")
    listed.add_argument("--size", metavar="width=256,depth=4,heads=4", help="with --costs: the size")
    listed.add_argument("--length", type=int, default=1024, help="with --costs: tokens of context")


def _add_run(commands: Commands, providers: Sequence[str]) -> None:
    run = commands.add_parser("run", help="measure what is missing in a comparison, then draw its report")
    run.add_argument("comparison", help="a folder of results/ that holds a plan.toml")
    _add_scale(run)
    run.add_argument("--models", metavar="A,B", help="only these models; a path/to/file.py adds your own")
    run.add_argument("--tasks", metavar="A,B", help="only these tasks")
    run.add_argument("--seeds", metavar="0,1", help="these seeds instead of the plan's")
    run.add_argument(
        "--size", metavar="NAME|width=64,...", help="a size by name (nano to 1.3b), or width, depth, heads"
    )
    run.add_argument("--set", **SETTING)
    run.add_argument("--steps", type=int, help="training steps of every task")
    run.add_argument("--device", help="cpu or cuda")
    run.add_argument("--dtype", help="float32, float32+onednn or bfloat16")
    run.add_argument("--provider", help=f"auto, {', '.join(providers)}")
    run.add_argument("--workers", type=int, help="training cells side by side, one thread each")
    run.add_argument("--parallel", help="ddp or fsdp2: several processes of one machine train each cell")
    run.add_argument("--processes", type=int, help="with --parallel: how many")
    run.add_argument("--launcher", default="local", choices=("local", "ray"), help="where cells are measured")
    run.add_argument(
        "--ray-address", metavar="HOST:PORT", help="with --launcher ray: a cluster; default: start one here"
    )
    run.add_argument("--snapshot-minutes", type=float, metavar="N", help="keep a training in progress every N minutes")
    run.add_argument("--no-checkpoints", action="store_true", help="keep no trained models, use none that are kept")
    run.add_argument("--cache", metavar="DIR", help="where trained models and prepared corpora are kept, not .cache")
    run.add_argument("--retry-failed", action="store_true", help="measure failed cells again")
    run.add_argument("--dry-run", action="store_true", help="print the cells and their cost, measure nothing")
    _add_with_committed(run)
    run.add_argument("--quiet", action="store_true", help="print failures and the end only")


def _add_pages(commands: Commands) -> None:
    """What is done with rows that are there: report, submit, verify."""
    shown = commands.add_parser("report", help="redraw tables and figures from the stored rows")
    shown.add_argument("comparison", help="a folder of results/ that holds rows.jsonl")
    shown.add_argument("--reference", action="store_true", help="redraw the committed reference instead")
    _add_with_committed(shown)
    shown.add_argument("--adopt", action="store_true", help="the same as submit")
    submitted = commands.add_parser("submit", help="make this machine's rows the reference: rows, plan, predictions")
    submitted.add_argument("comparison", help="a folder of results/ whose plan is measured here as a whole")
    verified = commands.add_parser("verify", help="mark a comparison's predictions again and compare")
    verified.add_argument("comparison", help="a folder of results/ that holds rows and predictions")
    verified.add_argument("--reference", action="store_true", help="the committed rows, with their hashes and tables")
    for command in (shown, submitted, verified):
        _add_scale(command)


def _add_with_committed(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--with-committed",
        action="store_true",
        help="models that were not measured here are shown from the committed rows, marked",
    )


def _add_scale(command: argparse.ArgumentParser) -> None:
    command.add_argument("--scale", metavar="NAME", help="laptop (plan.toml), or one-gpu, paper: the file beside it")


def _add_check(commands: Commands) -> None:
    checked = commands.add_parser("check", help="hold a model to the contract")
    checked.add_argument("model", nargs="?", help="a registered name, a path/to/file.py, or all")
    checked.add_argument("--parity", action="store_true", help="compare with other packages' code, where installed")
    checked.add_argument(
        "--rows", metavar="FILE", help="with --parity: take from FILE what cannot be run here; keep all there"
    )
    checked.add_argument("--markdown", action="store_true", help="with --parity: the page docs/parity.md")
    checked.add_argument("--thorough", action="store_true", help="the long properties too")
    checked.add_argument(
        "--size",
        metavar="NAME|width=64,...",
        help="a size by name, or vocab, width, depth, heads; else width 32, two layers",
    )
    checked.add_argument("--set", **SETTING)


def _add_profile(commands: Commands) -> None:
    profiled = commands.add_parser("profile", help="where the time of a training step goes, on the CPU")
    profiled.add_argument("model", help="a registered name, or an opponent of the contests")
    profiled.add_argument("--size", metavar="width=256,heads=4", help="of the layer")
    profiled.add_argument("--length", type=int, default=1024, help="tokens in a row")
    profiled.add_argument("--batch", type=int, default=2, help="rows")
    profiled.add_argument("--dtype", default="float32", help="float32, float32+onednn or bfloat16")
    profiled.add_argument("--threads", type=int, default=1, help="threads of a product")
    profiled.add_argument("--set", **SETTING)


def _add_zero_shot(commands: Commands, providers: Sequence[str]) -> None:
    asked = commands.add_parser("zero-shot", help="ask a kept model the tasks of lm-evaluation-harness")
    asked.add_argument("checkpoint", help="a checkpoint's folder, as .cache/checkpoints/0123456789abcdef")
    asked.add_argument("--tasks", metavar="A,B", help="the harness's names; those of Titans' first table by default")
    _add_model_files(asked)
    asked.add_argument("--include", metavar="DIR", help="a folder with task files of your own, whose code is run")
    asked.add_argument("--limit", type=int, metavar="N", help="the first N questions of each task")
    asked.add_argument("--device", default="cpu", help="cpu or cuda")
    asked.add_argument("--provider", default="auto", help=f"auto, {', '.join(providers)}")


def _add_ask(commands: Commands, providers: Sequence[str]) -> None:
    asked = commands.add_parser("ask", help="a kept model, or one of Hugging Face, sits the test of a task here")
    asked.add_argument("model", help="a checkpoint's folder, or a Hugging Face model's folder or hub name")
    asked.add_argument("task", help="a task's name; it reads text by the model's own tokenizer")
    _add_model_files(asked)
    asked.add_argument("--gguf", metavar="FILE", help="the GGUF file in the folder, of a quantised model")
    asked.add_argument("--set", **SETTING)
    asked.add_argument("--device", default="cpu", help="cpu or cuda")
    asked.add_argument("--provider", default="auto", help=f"auto, {', '.join(providers)}; of a kept model")


def _add_model_files(command: argparse.ArgumentParser) -> None:
    command.add_argument("--models", metavar="FILE", help="your file in which a kept model is registered; it is run")


def _add_show(commands: Commands) -> None:
    show = commands.add_parser("show", help="print one of a task's questions, readable")
    show.add_argument("task", help="a task's name")
    show.add_argument("--set", **SETTING)
    show.add_argument("--split", default="test", choices=("validation", "test"))
    show.add_argument("--number", type=int, default=0, help="which question of the split, from 0")
    show.add_argument("--whole", action="store_true", help="do not cut a long text")


def parsed(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> argparse.Namespace:
    """The words of a command; a scale other than the laptop's becomes part of the comparison's name.

    Raises UsageError, also for a word without content: a shell variable that is not set would choose everything.
    """
    found = parser.parse_args(words)
    for name, value in vars(found).items():
        for word in value if isinstance(value, list) else [value]:
            if isinstance(word, str) and not word.strip(", "):
                flag = name if name in ("comparison", "model", "task", "checkpoint") else f"--{name.replace('_', '-')}"
                raise UsageError(f"{flag} is empty; say what it is to be, or leave it out.")
    if getattr(found, "scale", None) not in (None, LAPTOP):
        found.comparison = f"{found.comparison}/{found.scale}"
    return found


def changes(arguments: argparse.Namespace, models: Sequence[str], files: Sequence[str]) -> dict[str, Any]:
    """What `Plan.with_overrides` takes, from parsed flags; `models` are the chosen names, `files` the user's own.

    A flag that is called as a field of the plan replaces it as it is; the others are read here.
    """
    plain = {field.name for field in fields(Plan)} - {"comparison"}
    return {name: value for name, value in vars(arguments).items() if name in plain} | {
        "models": list(models) or None,
        "tasks": overrides.names(arguments.tasks or "") or None,
        "seeds": overrides.seeds(arguments.seeds) if arguments.seeds else None,
        "size": overrides.size(arguments.size) if arguments.size else None,
        "settings": overrides.settings(arguments.set),
        "steps": arguments.steps,
        "model_files": [str(Path(file).expanduser().resolve()) for file in files],
    }
