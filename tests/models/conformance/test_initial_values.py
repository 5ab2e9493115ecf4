"""Every model starts as its authors' code starts it: spread and bounds of each group of parameters."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import baselines  # noqa: F401  fills the registry
from models import registry
from models.language_model import Size, seeded

WIDTH, HEADS = 128, 4


class Uniform(NamedTuple):
    """Uniform between -bound and bound."""

    bound: float

    def holds(self, x: Tensor) -> bool:
        spread = self.bound / math.sqrt(3)
        return x.abs().max() <= self.bound * (1 + 1e-6) and _near(x, 0.0, spread) and _reaches(x, self.bound)


class Normal(NamedTuple):
    """Normal around 0, beyond `cut` standard deviations of the uncut draw nothing."""

    spread: float
    cut: float = math.inf

    def holds(self, x: Tensor) -> bool:
        return x.abs().max() <= self.cut * self.spread and _near(x, 0.0, self.spread)


class Constant(NamedTuple):
    """One number."""

    value: float

    def holds(self, x: Tensor) -> bool:
        return bool((x == self.value).all())


def _near(x: Tensor, mean: float, spread: float) -> bool:
    """Mean and standard deviation within five standard errors (of a normal draw, which has more than a uniform one)."""
    error = 5 / math.sqrt(x.numel())
    return abs(x.mean().item() - mean) <= error * spread and abs(x.std().item() / spread - 1) <= error


def _reaches(x: Tensor, bound: float) -> bool:
    """Some number lies near the bound, as it must with so many."""
    return x.numel() < 50 or x.abs().max().item() > bound * (1 - 20 / x.numel())


def linear(fan_in: int) -> Uniform:
    """As `nn.Linear` draws weights and biases, and `nn.Conv1d` with `fan_in` its kernel."""
    return Uniform(fan_in**-0.5)


def xavier(fan_in: int, fan_out: int, gain: float) -> Uniform:
    return Uniform(gain * math.sqrt(6 / (fan_in + fan_out)))


ONES, ZEROS = Constant(1.0), Constant(0.0)
CONVOLUTION = linear(4)
FLAX = Normal(0.5, cut=2 / 0.87962566103423978)  # lecun_normal over a kernel of 4
TTT = {
    **dict.fromkeys(("project.weight", "gate.weight", "rate.weight", "out.weight", "weights.0"), Normal(0.02)),
    **dict.fromkeys((f"{name}.weight" for name in ("pre_convolution", "convolution_q", "convolution_k")), FLAX),
    **dict.fromkeys((f"{name}.bias" for name in ("pre_convolution", "convolution_q", "convolution_k", "rate", "norm")), ZEROS),
    **dict.fromkeys(("pre_norm.weight", "input_norm.weight", "norm.weight", "scale"), ONES),
    **dict.fromkeys(("biases.0", "place_factor", "shift"), ZEROS),
}  # fmt: skip
# Gates' constants that are drawn through a function have a test of their own below: None.
STARTS = {
    "retnet": {
        **dict.fromkeys(("queries.weight", "keys.weight"), xavier(128, 128, 2**-2.5)),
        **dict.fromkeys(("values.weight", "gate.weight"), xavier(128, 256, 2**-2.5)),
        "out.weight": xavier(256, 128, 0.5),
    },
    "mamba": {
        **dict.fromkeys(("project.weight",), linear(128)),
        **dict.fromkeys(("convolution.weight", "convolution.bias"), CONVOLUTION),
        **dict.fromkeys(("select.weight", "out.weight"), linear(256)),
        "step.weight": linear(8),
        "D": ONES,
        **dict.fromkeys(("step.bias", "A_log")),
    },
    "mamba2": {
        "project.weight": linear(128),
        **dict.fromkeys(("convolution.weight", "convolution.bias"), CONVOLUTION),
        "out.weight": linear(256),
        **dict.fromkeys(("D", "norm.weight"), ONES),
        **dict.fromkeys(("step_bias", "A_log")),
    },
    "gla": {
        **dict.fromkeys(("qkv.weight", "forget.0.weight", "gate.weight", "out.weight"), linear(128)),
        **dict.fromkeys(("forget.1.weight", "forget.1.bias"), linear(16)),
        "norm.weight": ONES,
    },
    "deltanet": {
        **dict.fromkeys(("qkv.weight", "rate.weight", "out.weight"), linear(128)),
        "convolution.weight": CONVOLUTION,
        "norm.weight": ONES,
    },
    "gated-deltanet": {
        **dict.fromkeys(("qkv.weight", "step.weight", "rate.weight", "gate.weight"), linear(128)),
        "out.weight": linear(192),
        "convolution.weight": CONVOLUTION,
        "rate.bias": ZEROS,
        "norm.weight": ONES,
        **dict.fromkeys(("step_bias", "A_log")),
    },
    "ttt-linear": TTT,
    "ttt-mlp": TTT | {"weights.1": Normal(0.02), "biases.1": ZEROS},
}


@pytest.mark.parametrize("name", STARTS)
def test_each_group_is_drawn_as_the_authors_draw_it(name):
    torch.manual_seed(0)
    found = dict(registry.entry(name).cls(WIDTH, HEADS).named_parameters())
    assert set(found) == set(STARTS[name])
    for parameter, start in STARTS[name].items():
        assert start is None or start.holds(found[parameter].detach()), parameter


@pytest.mark.parametrize(
    "name, parameter, heads",
    [("mamba", "step.bias", 4), ("mamba2", "step_bias", 2000), ("gated-deltanet", "step_bias", 2000)],
)
def test_steps_are_log_uniform_behind_softplus(name, parameter, heads):
    torch.manual_seed(0)
    bias = dict(registry.entry(name).cls(heads * 2 if heads > 4 else 2000, heads).named_parameters())[parameter]
    steps = F.softplus(bias.detach().double()).log()
    low, high = math.log(1e-3), math.log(1e-1)
    assert steps.min() >= low - 1e-3 and steps.max() <= high + 1e-3
    assert steps.mean().item() == pytest.approx((low + high) / 2, abs=0.1)
    assert steps.std().item() == pytest.approx((high - low) / math.sqrt(12), rel=0.05)


def test_decays_start_as_the_authors_start_them():
    torch.manual_seed(0)
    mamba = registry.entry("mamba").cls(WIDTH, HEADS)
    assert torch.allclose(mamba.A_log.exp(), torch.arange(1.0, 17).expand(256, 16))
    for name, low in (("mamba2", 1.0), ("gated-deltanet", 1e-3)):
        A = registry.entry(name).cls(4000, 2000).A_log.detach().exp()
        assert low * 0.999 <= A.min() and A.max() <= 16.001
        assert A.mean().item() == pytest.approx((low + 16) / 2, rel=0.05)


@pytest.mark.parametrize("name", ["rwkv4", "rwkv6", "rwkv7"])
def test_a_wide_model_that_adds_nothing_at_first_does_not_repeat_its_input(name):
    """Its tied output reads the embedding itself: drawn as wide as elsewhere, a token's own logit would be 10 at this width."""
    size = Size(vocab=256, width=512, depth=2, heads=8)
    text = torch.randint(256, (1, 33), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, _ = seeded(name, size, 0)(text[:, :-1])
    assert F.cross_entropy(logits[0], text[0, 1:]).item() == pytest.approx(math.log(256), abs=0.2)
