"""Cells that train: a trial judged on the validation split, a training examined on the test split; and a task's floors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

import tasks
from models import registry, user_file
from models.conformance import causality, costs, streaming
from models.matching.counts import parameter_count, state_bytes
from models.shell.decoding import without_records
from results.cell import UNKNOWN_RATE, Cell
from results.plans import learning_rates
from runner.build import settings_of, terms
from runner.cell_key import without_memory
from runner.checkpoints import added_memory
from runner.checkpoints.trained_model import CheckpointSettings, TrainedModel, learn
from schema.terms import Progress
from tasks.harness import peak_memory, predictions
from tasks.harness.evaluate import LONG as LONG_TEXT
from tasks.harness.evaluate import PIECE, evaluate, validation_loss
from tasks.harness.train import recipe
from tasks.speed.throughput import over_a_period

LONG = 1000  # steps from which on a training's loss is recorded by tenths


def floors(cell: Cell, progress: Progress) -> dict[str, Any]:
    task = tasks.create(cell.task, **cell.task_settings)
    found = [(name, *m) for name, measurements in task.floors().items() for m in measurements]
    return {"protocol": task.protocol, "measurements": found}


def tried(cell: Cell, progress: Progress, checkpoints: CheckpointSettings | None) -> dict[str, Any]:
    """A trial of a learning rate: a short training, judged on the validation split."""
    task = tasks.create(cell.task, **cell.task_settings)
    trained_model = learn(cell, task, checkpoints, progress, partial(_admit, longest=0, own=_is_own(cell)))
    model = trained_model.model.eval()
    begun = time.perf_counter()
    judged = validation_loss(model, task, dtype=cell.dtype, device=cell.device, progress=progress)
    seconds = time.perf_counter() - begun
    return {
        "parameters": parameter_count(model),
        "protocol": task.protocol,
        "measurements": [
            (None, learning_rates.METRIC, judged.value, judged.count, dict(cell.where)),
            *_training_seconds(trained_model),
            (None, "evaluation_seconds", seconds, 1, {}),
        ],
        "ran": trained_model.providers,
    }


def trained(cell: Cell, progress: Progress, checkpoints: CheckpointSettings | None) -> dict[str, Any]:
    """A model trained on the task's training split and examined on its test split."""
    if cell.lr == UNKNOWN_RATE:
        raise FloatingPointError("no learning rate of the grid came through its trial")
    task = tasks.create(cell.task, **cell.task_settings)
    run = {"dtype": cell.dtype, "device": cell.device}
    longest = max(getattr(task, "test_lengths", ()), default=0)
    admit = partial(_admit, longest=longest, own=_is_own(cell))
    peak_memory.reset_peak(cell.device)
    trained_model = learn(without_memory(cell), task, checkpoints, progress, admit)
    most = peak_memory.peak(cell.device)
    model, of_memory = added_memory.add(cell, task, trained_model.model.eval(), progress)
    losses = trained_model.training.losses
    admit(model)
    begun, longest, kept = time.perf_counter(), [1], []

    def examined(news: dict[str, Any]) -> None:
        longest.append(news["length"])
        progress(news)

    def keep(*answered: Any) -> None:
        kept.append(predictions.keep(task, *answered))

    found = [(None, *m) for m in evaluate(model, task, **run, progress=examined, keep=keep)]
    state_of = partial(largest_state, context=max(longest), device=cell.device)
    tail = losses[-max(1, len(losses) // 10) :]
    found += [
        (None, "training_loss", sum(tail) / len(tail), len(tail), {"over": "last tenth of the steps"}),
        *_training_seconds(trained_model),
        *([(None, "training_peak_memory_bytes", float(most), 1, {})] if trained_model.age is None else []),
        (None, "evaluation_seconds", time.perf_counter() - begun, 1, {}),
        *_curve(losses),
        *_equal_work(cell, task.vocab),
        *of_memory,
        *added_memory.size(model, state_of),
    ]
    return {
        "parameters": parameter_count(model),
        "state_bytes": state_of(model),
        "protocol": task.protocol,
        "measurements": found,
        "predictions": kept,
        "ran": trained_model.providers,
    }


def _training_seconds(trained_model: TrainedModel) -> list[tuple]:
    """What training took, in all its resumed runs; of weights that were kept, how long ago that was."""
    log = trained_model.training
    took = [(None, "training_seconds", log.seconds, len(log.losses), {"tokens": log.tokens, **recipe()})]
    return took if trained_model.age is None else [*took, (None, "weights_age_seconds", trained_model.age, 1, {})]


def _equal_work(cell: Cell, vocab: int) -> list[tuple]:
    """Of a cell whose training operations are matched: the model's, and the reference's as `aim`. A state has its column."""
    size, match = terms(cell.size, vocab)
    if match.by != "flops":
        return []
    found = costs.match_report(cell.model, size, match, **settings_of(cell))
    where = {"length": match.flops_length, "aim": found.aim}
    return [] if found.figure is None else [(None, "matched_flops_per_token", found.figure, 1, where)]


def _is_own(cell: Cell) -> bool:
    """Whether a file of the user's registered the cell's model, or a mixer of it: no test has held it to the contract."""
    return bool(user_file.files_of(registry.together(cell.model, cell.settings)))


def _admit(model: torch.nn.Module, longest: int, own: bool) -> None:
    """Refuse, before training and after it, a user's model that looks ahead, and any that would be fed in pieces and may not."""
    if own:
        causality.admit(model)
    if longest > PIECE:
        streaming.admit(model, longest)


def _curve(losses: Sequence[float]) -> list[tuple]:
    """The mean loss of each tenth of a long training; of a short one its last tenth says enough."""
    if len(losses) < LONG:
        return []
    cuts = [len(losses) * tenth // 10 for tenth in range(11)]
    tenths = [losses[low:high] for low, high in zip(cuts, cuts[1:], strict=False)]
    return [
        (None, "loss_in_training", sum(part) / len(part), len(part), {"tenth": number})
        for number, part in enumerate(tenths, 1)
    ]


@torch.no_grad()
def largest_state(model: torch.nn.Module, context: int, device: str) -> int:
    """Bytes of the largest state over one period after `context` tokens, for one row; a long text is fed in pieces."""
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    context, state = max(1, context), None
    piece = context if context <= LONG_TEXT else PIECE
    for start in range(0, context, piece):
        _, state = model(token.expand(1, min(piece, context - start)), state)
    with without_records():  # a state's spare memory hangs on whether earlier tokens have left a record of their step
        return max(map(state_bytes, over_a_period(model, token, state)))
