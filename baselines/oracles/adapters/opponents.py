"""Other people's code as candidates in speed comparisons: each a layer x [b, t, width] -> y [b, t, width].

A scan is put into a layer of ours, so that both sides share projections, convolutions, norms and gates; whole layers come as
their packages make them. Nothing is imported before it is built; an absent package is `Absent`, with what to install.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any, Literal
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.first_generation.retnet import RetNet
from baselines.oracles.adapters import associative_scan
from baselines.oracles.adapters.operation_alone import OtherForm, place
from baselines.oracles.parity import comparison, hugging_face
from baselines.oracles.parity.fla.naive import naive, turned
from baselines.second_generation.mamba import Mamba
from baselines.second_generation.mamba2 import Mamba2
from baselines.third_generation.deltanet import DeltaNet
from baselines.third_generation.gated_deltanet import GatedDeltaNet
from models.ops import vllm_library
from models.ops.scan import vllm_cpu
from models.titans.lmm import TitansLMM
from models.titans.memory_settings import MemorySettings
from schema.settings_check import check_settings

CHUNK = 64


class Absent(ImportError):
    """An external implementation whose package is not installed here; the message says what to install."""


@dataclass(frozen=True)
class Opponent:
    """An external implementation: `make(width, heads, **settings)` builds its layer, from the distribution `package`."""

    package: str
    what: str
    make: Callable[..., nn.Module]
    shares_layer: bool = False  # a scan in a layer of ours, whose matrix products can be counted
    trains: bool = True  # False where it has no gradient
    install: str = ""  # how, where it is not `pip install PACKAGE`

    @property
    def settings(self) -> dict[str, inspect.Parameter]:
        return dict(list(inspect.signature(self.make, eval_str=True).parameters.items())[2:])


class Substituted(nn.Module):
    """A layer of ours in which another form computes what our kernels would."""

    def __init__(self, layer: nn.Module, form: Callable[..., tuple[Tensor, Any]]):
        super().__init__()
        self.layer, self.other = layer, OtherForm(form)
        self.place = place(layer)

    def forward(self, x: Tensor) -> Tensor:
        with patch.object(*self.place, self.other):
            return self.layer(x)[0]


class Called(nn.Module):
    """A layer of another package, called in its own way."""

    def __init__(self, layer: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]):
        super().__init__()
        self.layer, self.call = layer, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.layer, x)


def check(name: str, settings: dict[str, Any]) -> None:
    """Raise ValueError, in one sentence, for an implementation or a setting that does not exist, or a setting's wrong type."""
    if name not in OPPONENTS:
        close = difflib.get_close_matches(name, OPPONENTS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(OPPONENTS)}."
        raise ValueError(f"There is no external implementation '{name}'; {hint}")
    check_settings("Opponent", name, settings, OPPONENTS[name].settings)


def build(name: str, width: int, heads: int, **settings: Any) -> nn.Module:
    """The layer of an external implementation. Raises ValueError as `check` does, `Absent` without its package."""
    check(name, settings)
    opponent = OPPONENTS[name]
    if comparison.version(opponent.package) is None:
        install = opponent.install or f"pip install {opponent.package}"
        raise Absent(f"{opponent.package} is not installed; {install}")
    return opponent.make(width, heads, **settings)


def _sdpa(width: int, heads: int) -> nn.Module:
    def form(q: Tensor, k: Tensor, v: Tensor, **unused: Any) -> tuple[Tensor, None]:
        return turned(F.scaled_dot_product_attention(*turned(q, k, v), is_causal=True))[0], None

    return Substituted(TitansLMM(width, heads, memory=MemorySettings(memory_depth=1)), form)


def _gated_delta_rule(rule: Callable, width: int, heads: int, layer: str) -> nn.Module:
    """A gated delta rule with the oracles' signature in the layer of Titans' memory or of Gated DeltaNet."""

    def in_memory(q: Tensor, k: Tensor, v: Tensor, *, rate: Tensor, keep: Tensor, **unused: Any):
        return rule(q, k, v, g=keep.log(), beta=rate)

    def in_scan(q: Tensor, k: Tensor, v: Tensor, *, log_forget: Tensor, rate: Tensor, **unused: Any):
        return rule(q * q.shape[-1] ** 0.5, k, v, g=log_forget, beta=rate)  # the rule scales its queries itself

    layers = {"titans-lmm": (lambda: TitansLMM(width, heads, memory=MemorySettings(memory_depth=1)), in_memory)}
    layers["gated-deltanet"] = (lambda: GatedDeltaNet(width, heads), in_scan)
    if layer not in layers:
        raise ValueError(f"There is no layer '{layer}' for a gated delta rule; choose one of {', '.join(layers)}.")
    make, form = layers[layer]
    return Substituted(make(), form)


def _transformers_gated_delta(width: int, heads: int, layer: Literal["titans-lmm", "gated-deltanet"] = "titans-lmm"):
    rule = inspect.unwrap(hugging_face.modelling("qwen3_next").torch_chunk_gated_delta_rule)
    return _gated_delta_rule(rule, width, heads, layer)


def _fla_gated_delta(width: int, heads: int, layer: Literal["titans-lmm", "gated-deltanet"] = "gated-deltanet"):
    return _gated_delta_rule(naive("gated_delta_rule", "naive_chunk_gated_delta_rule"), width, heads, layer)


def _fla_delta(width: int, heads: int) -> nn.Module:
    rule = naive("delta_rule", "delta_rule_chunkwise")

    def form(q: Tensor, k: Tensor, v: Tensor, *, rate: Tensor, **unused: Any) -> tuple[Tensor, Any]:
        y, state = rule(*turned(q * q.shape[-1] ** 0.5, k, v, rate))
        return y.transpose(1, 2), state

    return Substituted(DeltaNet(width, heads), form)


def _fla_retention(width: int, heads: int) -> nn.Module:
    rule = naive("simple_gla", "naive_chunk_simple_gla")

    def form(q: Tensor, k: Tensor, v: Tensor, *, log_forget: Tensor, **unused: Any) -> tuple[Tensor, Any]:
        return rule(q, k, v, log_forget, chunk_size=CHUNK, scale=1.0)

    return Substituted(RetNet(width, heads), form)


def _fla_gla(width: int, heads: int) -> nn.Module:
    rule, layer = naive("gla", "naive_recurrent_gla"), import_module("baselines.second_generation.gla").GLA

    def form(q: Tensor, k: Tensor, v: Tensor, *, log_forget: Tensor, **unused: Any) -> tuple[Tensor, Any]:
        return rule(q * q.shape[-1] ** 0.5, k, v, log_forget)

    return Substituted(layer(width, heads), form)


def _torchscale(width: int, heads: int, chunk: int = CHUNK) -> nn.Module:
    """MultiScaleRetention by chunks; lengths are multiples of the chunk."""
    retention = import_module("torchscale.component.multiscale_retention").MultiScaleRetention
    layer = retention(SimpleNamespace(multiway=False, layernorm_eps=1e-5), width, 2 * width, heads)
    angle = (10000.0 ** -torch.linspace(0, 1, width // heads // 2)).repeat_interleave(2)
    decays = _decays(heads, chunk)

    def call(layer: nn.Module, x: Tensor) -> Tensor:
        turn = torch.arange(x.shape[1])[:, None] * angle
        return layer(x, ((turn.sin(), turn.cos()), decays), chunkwise_recurrent=True)

    return Called(layer, call)


def _decays(heads: int, chunk: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the authors' chunks take: within a chunk [h, t, t], across it [h, 1, 1], on queries and values [h, t, 1].

    Their rows are divided by the root of a row's sum, and each chunk's keys by the sum of its last row.
    """
    gamma, place = (1 - 2.0 ** (-5 - torch.arange(heads)))[:, None, None], torch.arange(chunk)
    inner = (gamma ** (place[:, None] - place).clamp(min=0)).tril()
    root, last = inner.sum(-1, keepdim=True).sqrt(), inner[:, -1:].sum(-1, keepdim=True)
    return inner / root, gamma**chunk, gamma ** (place[:, None] + 1) * last / root, (inner[:, -1:] / last).mT


def _plain_torch(layer: nn.Module, module: ModuleType) -> nn.Module:
    """A layer of transformers on its own PyTorch path, whatever kernels are installed."""

    def call(layer: nn.Module, x: Tensor) -> Tensor:
        with hugging_face.torch_only(module):
            return layer(x)

    return Called(layer, call)


def _transformers_mamba(width: int, heads: int) -> nn.Module:
    module, ours = hugging_face.modelling("mamba"), Mamba(width, heads)
    sizes = {"hidden_size": width, "state_size": ours.states, "time_step_rank": ours.rank}
    return _plain_torch(module.MambaMixer(hugging_face.configuration("mamba", **sizes), layer_idx=0), module)


def _transformers_mamba2(width: int, heads: int) -> nn.Module:
    module, ours = hugging_face.modelling("mamba2"), Mamba2(width, heads)
    sizes = {"hidden_size": width, "num_heads": ours.heads, "head_dim": ours.inner // ours.heads}
    config = hugging_face.configuration("mamba2", **sizes, state_size=ours.states, n_groups=1, chunk_size=CHUNK)
    return _plain_torch(module.Mamba2Mixer(config, layer_idx=0), module)


def _titans_pytorch(width: int, heads: int, depth: int = 2, expansion: float = 4.0, exact: bool = False) -> nn.Module:
    """`exact`: a gradient and gates per token, anchored every 64, without wrappers; else its README's call, chunk 64."""
    memory = import_module("titans_pytorch").NeuralMemory
    network = import_module("titans_pytorch.memory_models").MemoryMLP(width // heads, depth, expansion)
    own = {"chunk_size": CHUNK}
    if exact:
        own = {"chunk_size": 1, "batch_size": CHUNK, "pre_rmsnorm": False, "mem_model_norm_add_residual": False}
    layer = memory(width, heads=heads, dim_head=width // heads, model=network, **own)
    return Called(layer, lambda layer, x: layer(x)[0])


def _titans_unofficial(width: int, heads: int, depth: int = 2) -> nn.Module:
    """One memory of the whole width: the package knows no heads."""
    memory = import_module("titans.utils.memory").NeuralMemoryModule
    return Called(memory(width, memory_depth=depth), lambda layer, x: layer(x)[0])


def _open_titans(width: int, heads: int, depth: int = 2, expansion: float = 4.0) -> nn.Module:
    """A fork of titans-pytorch whose memory keeps that one's signature."""
    memory = import_module("open_titans").NeuralMemory
    kwargs = {"default_model_kwargs": {"depth": depth, "expansion_factor": expansion}}
    layer = memory(width, heads=heads, dim_head=width // heads, chunk_size=CHUNK, **kwargs)
    return Called(layer, lambda layer, x: layer(x)[0])


def _associative_scan(width: int, heads: int) -> nn.Module:
    return Substituted(Mamba(width, heads), associative_scan.selective)


def _vllm_gated_delta(width: int, heads: int, inner: int | None = None) -> nn.Module:
    """`inner` as Gated DeltaNet's: the width of its keys over all heads."""
    return Substituted(GatedDeltaNet(width, heads, inner=inner), vllm_cpu.scan)


def _vllm_mamba2(width: int, heads: int, states: int = 128) -> nn.Module:
    """`states` as Mamba-2's: how many keys a head has."""
    return Substituted(Mamba2(width, heads, states=states), vllm_cpu.scan)


VLLM = {"shares_layer": True, "trains": False, "install": vllm_library.INSTALL}

OPPONENTS: dict[str, Opponent] = {
    "sdpa": Opponent("torch", "causal softmax attention in the layer of titans-lmm", _sdpa, True),
    "transformers-gated-delta": Opponent(
        "transformers", "torch_chunk_gated_delta_rule in a layer of ours", _transformers_gated_delta, True
    ),
    "transformers-mamba": Opponent("transformers", "MambaMixer, PyTorch path", _transformers_mamba),
    "torch-associative-scan": Opponent(
        "torch", "torch's associative scan in the layer of mamba", _associative_scan, True
    ),
    "transformers-mamba2": Opponent("transformers", "Mamba2Mixer, PyTorch path", _transformers_mamba2),
    "fla-gated-delta": Opponent("fla-core", "naive_chunk_gated_delta_rule in a layer of ours", _fla_gated_delta, True),
    "fla-delta": Opponent("fla-core", "delta_rule_chunkwise in the layer of deltanet", _fla_delta, True),
    "fla-retention": Opponent("fla-core", "naive_chunk_simple_gla in the layer of retnet", _fla_retention, True),
    "fla-gla": Opponent("fla-core", "naive_recurrent_gla, a loop, in the layer of gla", _fla_gla, True),
    "vllm-gated-delta": Opponent(
        vllm_library.PACKAGE, "chunk_gated_delta_rule_cpu in the layer of gated-deltanet", _vllm_gated_delta, **VLLM
    ),
    "vllm-mamba2": Opponent(
        vllm_library.PACKAGE, "mamba_chunk_scan_fwd_cpu in the layer of mamba2", _vllm_mamba2, **VLLM
    ),
    "torchscale-retnet": Opponent("torchscale", "MultiScaleRetention by chunks", _torchscale),
    "titans-pytorch": Opponent("titans-pytorch", "NeuralMemory", _titans_pytorch),
    "titans-unofficial": Opponent("titans-unofficial", "NeuralMemoryModule, a loop", _titans_unofficial),
    "open-titans": Opponent("open-titans", "NeuralMemory", _open_titans),
}
