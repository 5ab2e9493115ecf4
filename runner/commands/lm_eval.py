"""A kept model asked in lm-evaluation-harness, for `bench.py zero-shot`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from runner.checkpoints import store


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
        from baselines.oracles.adapters import lm_evaluation_harness as harness
    except ModuleNotFoundError as error:
        raise ValueError(f"lm-evaluation-harness is not installed ({error}): pip install -e '.[lm-eval]'.") from None
    kept = store.load(folder, provider, device, model_files)
    if kept.tokenizer is None:
        raise ValueError(f"{kept.facts['model']} was trained on {kept.facts['task']}, whose tokens are no text.")
    found = harness.ask(kept.model, kept.tokenizer, names or harness.TITANS_TASKS, device, limit, include)
    table = Table("task", "metric", "value", title=f"{kept.facts['model']}, trained on {kept.facts['task']}, zero-shot")
    for name, metrics in found.items():
        for metric, value in metrics.items():
            if isinstance(value, float) and "stderr" not in metric:
                table.add_row(name, metric.removesuffix(",none"), f"{value:.4f}")
    return table
