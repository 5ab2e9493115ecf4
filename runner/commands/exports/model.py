"""`bench.py export`: a checkpoint as a folder that transformers loads."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from results.plans import reader
from results.rows import store as rows
from runner.checkpoints.export import export
from runner.commands.shared.arguments import Command, add_model_files, model_files_of
from runner.commands.shared.comparison import RESULTS, shown


def add_flags(command: argparse.ArgumentParser) -> None:
    """The flags of `export`."""
    command.add_argument("checkpoint", help="a checkpoint's folder, as .cache/checkpoints/0123456789abcdef")
    command.add_argument("folder", help="a new folder for what transformers loads")
    add_model_files(command)


def export_checkpoint(arguments: argparse.Namespace, console: Console) -> int:
    """Write a checkpoint as a folder for `AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)`."""
    from models import user_file

    user_file.load_files(model_files_of(arguments))
    written = export(arguments.checkpoint, Path(arguments.folder).expanduser(), _rows())
    console.print(f"exported: {shown(written)}")
    return 0


def _rows() -> Iterator[dict[str, Any]]:
    """The rows of every comparison here that can be read."""
    for name in reader.comparisons(RESULTS):
        try:
            yield from rows.read(reader.folder_of(RESULTS, name) / "rows.jsonl")
        except rows.RecordError:
            continue  # what cannot be read is told where it is asked for; a card goes without


COMMANDS = {
    "export": Command(
        "a checkpoint as a folder that transformers loads",
        add_flags,
        export_checkpoint,
        "export .cache/checkpoints/0123456789abcdef my-model",
    )
}
