"""Side-by-side benchmarks: training steps of several candidates, ours and other people's, timed in turn."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch

from baselines.oracles.adapters.operation_alone import Given, given
from models.matching.counts import parameter_count
from models.ops import providers
from results.cell import Cell
from results.plans.contests import DECODING, TRAINING
from results.rows import store
from runner.build import build, layer, opponents
from runner.cell_key import identify
from schema.terms import Progress
from tasks.speed import contest
from tasks.speed.throughput import train_step


def contested(cell: Cell, progress: Progress) -> list[dict[str, Any]]:
    """Rows of a side-by-side benchmark: what each candidate's training steps took, or why there is none."""
    asked, begun = cell.task_settings, time.perf_counter()
    made: dict[str, dict[str, Any]] = {entrant["name"]: {} for entrant in cell.entrants}
    errors: dict[str, float] = {}
    entrants = [
        contest.TimedCandidate(
            entrant["name"],
            partial(entrant_step, cell, entrant, made[entrant["name"]], errors),
            entrant["repeats"],
            entrant["longest"],
            counted=is_counted(entrant) and asked["level"] != "operation",
        )
        for entrant in cell.entrants
    ]
    run = {"limit": asked["limit"], "dtype": cell.dtype, "device": cell.device}
    outcome = contest.hold(entrants, length=cell.where["length"], progress=progress, **run)
    found = list(contest.findings(outcome, asked["reference"], cell.where, _direction(cell)))
    rows, identity, seconds = [], identify(cell), time.perf_counter() - begun
    for entrant in cell.entrants:
        own, who = cell.of(entrant), identity.of(entrant["name"])
        standing = outcome.standings[entrant["name"]]
        if standing.status != "ok":
            rows += store.failure(own, who, standing.reason, standing.status)
            continue
        mine = [(None, *m) for name, m in found if name == entrant["name"]]
        mine += [(None, "timing_seconds", seconds, 1, cell.where)]
        mine += [(None, "law_error", errors[entrant["name"]], 1, cell.where)] if entrant["name"] in errors else []
        rows += store.rows(own, who, store.Measured(protocol="contest", measurements=mine, **made[entrant["name"]]))
    return store.one_attempt(rows)


def is_counted(entrant: dict[str, Any]) -> bool:
    """Whether a candidate's matrix products can be counted, which gives it a floor."""
    return not entrant["opponent"] or opponents().OPPONENTS[entrant["opponent"]].shares_layer


def _direction(cell: Cell) -> str:
    return cell.task_settings.get("direction", TRAINING)


def entrant_step(cell: Cell, entrant: dict[str, Any], made: dict[str, Any], errors: dict[str, float]) -> contest.Step:
    """One candidate's step; what is known of the candidate besides, its parameters and provider, goes into `made`.

    The error of an operation against its law goes into `errors`, under the candidate's name.
    """
    own, draw = cell.of(entrant), torch.Generator().manual_seed(cell.seed)
    shape, trains = (cell.task_settings["batch"], cell.where["length"]), _direction(cell) == TRAINING
    if cell.task_settings["level"] == "model":
        model = build(own, 256).to(cell.device)
        made["parameters"] = parameter_count(model)
        text = torch.randint(256, shape, generator=draw).to(cell.device)
        step = partial(train_step, model, text) if trains else contest.reading_step(lambda text: model(text)[0], text)
    else:
        mixer = layer(own, entrant).to(cell.device)
        made["parameters"] = sum(p.numel() for p in mixer.parameters())
        x = torch.randn(*shape, cell.size["width"], generator=draw).to(cell.device)
        if cell.task_settings["level"] == "operation":
            step, errors[entrant["name"]] = _operation_step(mixer, entrant, x, _direction(cell))
        else:
            forward = mixer if entrant["opponent"] else lambda x: mixer(x)[0]
            leaves = list(mixer.parameters())
            step = contest.layer_step(forward, leaves, x) if trains else contest.reading_step(forward, x)

    def watched() -> torch.Tensor:
        with providers.watch() as ran:
            y = step()
        made["provider"] = entrant["opponent"] or "+".join(sorted(ran))
        return y

    return watched


def _operation_step(
    mixer: torch.nn.Module, entrant: dict[str, Any], x: torch.Tensor, direction: str
) -> tuple[contest.Step, float]:
    """The step of a candidate's recurrence alone, and the error of what it computes against the law."""
    alone = operation(mixer, entrant, x, decodes=direction == DECODING)
    if direction == DECODING:
        own = getattr(mixer, "token", None) or (Given.recorded if entrant.get("recorded") else Given.carried)
        token = own(alone)
        with torch.no_grad():
            return contest.decoding_step(token), alone.error(token())
    step = contest.backward_step(alone, alone.tensors()) if direction == TRAINING else contest.reading_step(alone)
    return step, alone.error()


def operation(mixer: torch.nn.Module, entrant: dict[str, Any], x: torch.Tensor, decodes: bool = False) -> Given:
    """The recurrence of a candidate's layer alone, with what the layer gives it for x, or for its last token."""
    if entrant["opponent"]:
        return given(mixer.layer, x, mixer.other.function, last=decodes)
    return given(mixer, x, last=decodes)
