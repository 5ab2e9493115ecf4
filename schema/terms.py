"""Terms of a comparison that more than one wing must know alike: number formats, what is matched, and how near."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Progress = Callable[[dict[str, Any]], None]  # is told step, loss, speed and the like while a cell is measured

DTYPES = ("float32", "float32+onednn", "bfloat16")
PARALLEL = ("ddp", "fsdp2")  # how processes share a batch
MATCHES = {"parameters": None, "state": "state_bytes", "flops": "flops_length"}  # what each match must be told
DECODING_WARM_UP = 4  # times that a kind of state is met before a token runs from a record (`models.shell.decoding`)
SMALL, NEAR_SMALL, NEAR = 10_000_000, 0.05, 0.01  # parameters; the largest relative difference below, and from there up
SMALL_STATE, NEAR_SMALL_STATE, NEAR_STATE = 2**18, 0.2, 0.1  # the same of bytes of state


@dataclass(frozen=True)
class MatchReport:
    """How near a model comes to what is matched: its parameters and the reference's, its figure and the one aimed at.

    The figure is None where a state grows with the context and where there is no formula of the model's FLOPs.
    """

    parameters: int
    reference_parameters: int
    figure: float | None
    aim: float


def tolerance(parameters: int) -> float:
    """The largest relative difference of parameters or FLOPs that is allowed: 1 % from 10M parameters, 5 % below."""
    return NEAR if parameters >= SMALL else NEAR_SMALL


def state_tolerance(aim: int) -> float:
    """The same of a state's bytes: 10 % from 256 KiB, 20 % below, where two channels more a head are up to 40 % more state."""
    return NEAR_STATE if aim >= SMALL_STATE else NEAR_SMALL_STATE
