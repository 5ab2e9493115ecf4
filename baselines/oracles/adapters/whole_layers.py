"""Whole layers as other packages make them, each called in its own way: `make(width, heads, **settings)`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor, nn

from baselines.oracles.parity import hugging_face
from baselines.second_generation.mamba import Mamba
from baselines.second_generation.mamba2 import Mamba2

CHUNK = 64


class Called(nn.Module):
    """A layer of another package, called in its own way."""

    def __init__(self, layer: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]):
        super().__init__()
        self.layer, self.call = layer, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.layer, x)


def torchscale(width: int, heads: int, chunk: int = CHUNK) -> nn.Module:
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


def transformers_mamba(width: int, heads: int) -> nn.Module:
    module, ours = hugging_face.modelling("mamba"), Mamba(width, heads)
    sizes = {"hidden_size": width, "state_size": ours.states, "time_step_rank": ours.rank}
    return _plain_torch(module.MambaMixer(hugging_face.configuration("mamba", **sizes), layer_idx=0), module)


def transformers_mamba2(width: int, heads: int) -> nn.Module:
    module, ours = hugging_face.modelling("mamba2"), Mamba2(width, heads)
    sizes = {"hidden_size": width, "num_heads": ours.heads, "head_dim": ours.inner // ours.heads}
    config = hugging_face.configuration("mamba2", **sizes, state_size=ours.states, n_groups=1, chunk_size=CHUNK)
    return _plain_torch(module.Mamba2Mixer(config, layer_idx=0), module)


def titans_pytorch(width: int, heads: int, depth: int = 2, expansion: float = 4.0, exact: bool = False) -> nn.Module:
    """`exact`: a gradient and gates per token, anchored every 64, without wrappers; else its README's call, chunk 64."""
    memory = import_module("titans_pytorch").NeuralMemory
    network = import_module("titans_pytorch.memory_models").MemoryMLP(width // heads, depth, expansion)
    own = {"chunk_size": CHUNK}
    if exact:
        own = {"chunk_size": 1, "batch_size": CHUNK, "pre_rmsnorm": False, "mem_model_norm_add_residual": False}
    layer = memory(width, heads=heads, dim_head=width // heads, model=network, **own)
    return Called(layer, lambda layer, x: layer(x)[0])


def titans_unofficial(width: int, heads: int, depth: int = 2) -> nn.Module:
    """One memory of the whole width: the package knows no heads."""
    memory = import_module("titans.utils.memory").NeuralMemoryModule
    return Called(memory(width, memory_depth=depth), lambda layer, x: layer(x)[0])


def open_titans(width: int, heads: int, depth: int = 2, expansion: float = 4.0) -> nn.Module:
    """A fork of titans-pytorch whose memory keeps that one's signature."""
    memory = import_module("open_titans").NeuralMemory
    kwargs = {"default_model_kwargs": {"depth": depth, "expansion_factor": expansion}}
    layer = memory(width, heads=heads, dim_head=width // heads, chunk_size=CHUNK, **kwargs)
    return Called(layer, lambda layer, x: layer(x)[0])
