"""`bench.py show` prints one question of a task, readable, what it follows from marked."""

from __future__ import annotations

import argparse

from rich.console import Console

import tasks
from runner.commands.shared.arguments import SETTING, Command, settings_of
from tasks.show import render


def add_flags(command: argparse.ArgumentParser) -> None:
    """The flags of `show`."""
    add = command.add_argument
    add("task", help="a task's name")
    add("--set", **SETTING)
    add("--split", default="test", choices=("validation", "test"))
    add("--number", type=int, default=0, help="which question of the split, from 0")
    add("--whole", action="store_true", help="do not cut a long text")


def show(arguments: argparse.Namespace, console: Console) -> int:
    """Print one question of a task: settings, text with what matters marked, answer."""
    settings = settings_of(arguments, arguments.task, "shown")
    task = tasks.create(arguments.task, **settings)
    console.print(render(task, settings, arguments.split, arguments.number, arguments.whole), soft_wrap=True)
    return 0


COMMANDS = {
    "show": Command("print one of a task's questions, readable", add_flags, show, "show needle --set needle.length=512")
}
