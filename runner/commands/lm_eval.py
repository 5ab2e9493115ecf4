"""A checkpoint asked in lm-evaluation-harness, for `bench.py zero-shot`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from runner.checkpoints import store
from runner.commands.shared.arguments import Command, add_model_files, add_provider, model_files_of, names_in


def add_flags(command: argparse.ArgumentParser) -> None:
    """The flags of `zero-shot`."""
    add = command.add_argument
    add("checkpoint", help="a checkpoint's folder, as .cache/checkpoints/0123456789abcdef")
    add("--tasks", metavar="A,B", help="the harness's names; those of Titans' first table by default")
    add_model_files(command)
    add("--include", metavar="DIR", help="a folder with task files of your own, whose code is run")
    add("--limit", type=int, metavar="N", help="the first N questions of each task")
    add("--device", default="cpu", help="cpu or cuda")
    add_provider(command, "auto")


def zero_shot(arguments: argparse.Namespace, console: Console) -> int:
    """Ask a checkpoint the tasks of lm-evaluation-harness, those of the Titans paper's first table unless others are named."""
    asked = arguments.provider, arguments.device, arguments.limit, arguments.include, model_files_of(arguments)
    console.print(zero_shot_table(arguments.checkpoint, names_in(arguments.tasks or ""), *asked))
    return 0


def zero_shot_table(
    folder: str,
    names: Sequence[str],
    provider: str,
    device: str,
    limit: int | None,
    include: str | None,
    model_files: Sequence[str] = (),
) -> Table:
    """What the harness's tasks `names` give for the model of a checkpoint; none named: those of Titans' first table.

    `model_files` are the user's own that register the model.

    Raises ValueError where lm-eval is not installed, for an unknown task, and for a model whose tokens are no text.
    """
    try:
        from baselines.oracles.adapters import lm_evaluation_harness
    except ModuleNotFoundError as error:
        raise ValueError(f"lm-evaluation-harness is not installed ({error}): pip install -e '.[lm-eval]'.") from None
    kept = store.load(folder, provider, device, model_files)
    if kept.tokenizer is None:
        raise ValueError(f"{kept.facts['model']} was trained on {kept.facts['task']}, whose tokens are no text.")
    found = lm_evaluation_harness.ask(
        kept.model, kept.tokenizer, names or lm_evaluation_harness.TITANS_TASKS, device, limit, include
    )
    table = Table("task", "metric", "value", title=f"{kept.facts['model']}, trained on {kept.facts['task']}, zero-shot")
    for name, metrics in found.items():
        for metric, value in metrics.items():
            if isinstance(value, float) and "stderr" not in metric:
                table.add_row(name, metric.removesuffix(",none"), f"{value:.4f}")
    return table


COMMANDS = {
    "zero-shot": Command(
        "ask a checkpoint the tasks of lm-evaluation-harness",
        add_flags,
        zero_shot,
        "zero-shot .cache/checkpoints/0123456789abcdef --tasks lambada_openai --limit 100",
    )
}
