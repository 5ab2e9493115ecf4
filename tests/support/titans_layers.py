"""Titans layers small enough for tests, one for every kind of setting, and texts for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.titans.lmm import TitansLMM
from models.titans.mac import TitansMAC
from models.titans.mag import TitansMAG
from models.titans.mal import TitansMAL
from schema.settings import construct

WIDTH, HEADS = 16, 2
LINEAR = {"memory_depth": 1, "chunk": 4}
CASES = {
    "lmm": (TitansLMM, {"chunk": 8}),
    "lmm linear": (TitansLMM, LINEAR),
    "lmm residual": (TitansLMM, {"chunk": 8, "residual": True, "expansion": 2}),
    "lmm online": (TitansLMM, {"memory_depth": 1, "chunk": 1, "decayed": True}),
    "lmm exclusive": (TitansLMM, {"chunk": 8, "exclusive": True, "memory_depth": 3}),
    "lmm fine gates": (TitansLMM, {"chunk": 8, "layer_gates": True, "forget": "channel"}),
    "lmm layer gates": (TitansLMM, {"chunk": 8, "layer_gates": True, "memory_depth": 3}),
    "lmm linear channels": (TitansLMM, {**LINEAR, "forget": "channel"}),
    "lmm stored states": (TitansLMM, {"chunk": 8, "store_every": 16}),
    "lmm bare": (TitansLMM, {"chunk": 8, "momentum": False, "forget": "none", "convolution": False}),
    "lmm linear bare": (TitansLMM, {**LINEAR, "momentum": False, "forget": "none", "convolution": False}),
    "mag": (TitansMAG, {"chunk": 8, "window": 12, "persistent": 3}),
    "mag bare": (TitansMAG, {"chunk": 8, "window": 12, "persistent": 0, "convolution": False}),
    "mal": (TitansMAL, {"chunk": 8, "window": 12, "persistent": 3}),
    "mal bare": (TitansMAL, {**LINEAR, "window": 12, "persistent": 0, "forget": "none"}),
    "mal to the letter": (TitansMAL, {**LINEAR, "window": 12, "inner_residual": False}),
    "mac": (TitansMAC, {"chunk": 8, "segment": 16, "persistent": 3}),
    "mac pooled": (TitansMAC, {"chunk": 4, "segment": 12, "persistent": 3, "memory_tokens": 4}),
    "mac bare": (TitansMAC, {"chunk": 8, "segment": 16, "persistent": 0, "momentum": False, "convolution": False}),
    "mac linear": (TitansMAC, {**LINEAR, "segment": 12}),
    "mac to the letter": (TitansMAC, {**LINEAR, "segment": 12, "inner_residual": False}),
}


def mixer(case: str, **settings) -> nn.Module:
    cls, own = CASES[case]
    torch.manual_seed(0)
    return construct(cls, WIDTH, HEADS, **{**own, **settings})


def text(time: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, time, WIDTH, generator=torch.Generator().manual_seed(time))


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def turned(x: Tensor, places: Tensor) -> Tensor:
    """Rotary positions, the pairs half a head apart."""
    half = x.shape[-1] // 2
    angle = (places[:, None] * 10000.0 ** (-torch.arange(half).double() / half))[:, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)
