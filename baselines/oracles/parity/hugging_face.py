"""transformers' PyTorch paths as oracles for whole layers: both sides are called with the same weights, ours rearranged.

Its functions dispatch to fla and mamba-ssm wherever those can be imported, also on a CPU; `torch_only` takes them back.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.func import functional_call

from baselines.attention.transformer import Transformer, WindowTransformer
from baselines.oracles.parity.comparison import Comparison, Draw, Errors, compare, compare_forms, leaves
from baselines.oracles.parity.fla.naive import gated_delta_inputs, our_gated_delta
from baselines.second_generation.mamba import Mamba
from baselines.second_generation.mamba2 import Mamba2
from baselines.segment_recurrent.rmt import RMT
from baselines.third_generation.gated_deltanet import GatedDeltaNet
from models.shell.model import Block, Size

PACKAGE = "transformers"
WIDTH, HEADS, TIME = 32, 4, 150  # three chunks of 64, the last one short


def modelling(name: str) -> ModuleType:
    """The modelling file of an architecture. Raises ImportError if transformers is absent."""
    return import_module(f"transformers.models.{name}.modeling_{name}")


def configuration(name: str, **settings: Any) -> Any:
    """The configuration of an architecture, in the release's own class."""
    module = import_module(f"transformers.models.{name}.configuration_{name}")
    cls = next(c for n, c in vars(module).items() if n.lower() == name.replace("_", "") + "config")
    return cls(num_hidden_layers=1, **settings)


@contextmanager
def torch_only(module: ModuleType) -> Iterator[None]:
    """Inside, the wrapped functions of a modelling file are its own PyTorch code."""
    plain = {
        name: inspect.unwrap(value)
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and hasattr(value, "__wrapped__")
    }
    with patch.multiple(module, **plain):
        yield


def compare_layers(ours: nn.Module, weights: Callable, theirs: nn.Module, module: ModuleType) -> Errors:
    """One of our mixers and one of their layers on the same x; `weights` renames theirs to ours."""
    inputs = {"x": Draw().normal(2, TIME, WIDTH)} | leaves(theirs)

    def our_side(x: Tensor, **given: Tensor) -> Tensor:
        return functional_call(ours, weights(given), (x,), strict=True)[0]

    def their_side(x: Tensor, **given: Tensor) -> Tensor:
        with torch_only(module):
            return functional_call(theirs, given, (x,))

    return compare(our_side, their_side, inputs)


def mamba() -> Errors:
    """The Mamba block against MambaMixer."""
    module, ours = modelling("mamba"), Mamba(WIDTH, HEADS)
    config = configuration("mamba", hidden_size=WIDTH, state_size=ours.states, time_step_rank=ours.rank)
    names = {
        "project.weight": "in_proj.weight",
        "convolution.weight": "conv1d.weight",
        "convolution.bias": "conv1d.bias",
        "select.weight": "x_proj.weight",
        "step.weight": "dt_proj.weight",
        "step.bias": "dt_proj.bias",
        "A_log": "A_log",
        "D": "D",
        "out.weight": "out_proj.weight",
    }
    theirs = module.MambaMixer(config, layer_idx=0).eval()
    return compare_layers(ours, lambda given: {name: given[their] for name, their in names.items()}, theirs, module)


def mamba2() -> Errors:
    """The Mamba-2 block against Mamba2Mixer with one group: gate, then norm."""
    module, ours = modelling("mamba2"), Mamba2(WIDTH, HEADS, states=16)
    config = configuration(
        "mamba2",
        hidden_size=WIDTH,
        num_heads=HEADS,
        head_dim=ours.inner // HEADS,
        state_size=16,
        n_groups=1,
        chunk_size=32,
        layer_norm_epsilon=ours.norm.eps,
    )
    names = {
        "project.weight": "in_proj.weight",
        "convolution.weight": "conv1d.weight",
        "convolution.bias": "conv1d.bias",
        "step_bias": "dt_bias",
        "A_log": "A_log",
        "D": "D",
        "norm.weight": "norm.weight",
        "out.weight": "out_proj.weight",
    }
    theirs = module.Mamba2Mixer(config, layer_idx=0).eval()
    return compare_layers(ours, lambda given: {name: given[their] for name, their in names.items()}, theirs, module)


def gated_deltanet() -> Errors:
    """The Gated DeltaNet layer against Qwen3-Next's, whose projections are grouped by head and whose rate has no bias."""
    module, ours = modelling("qwen3_next"), GatedDeltaNet(WIDTH, HEADS)
    keys = ours.widths[0] // HEADS
    config = configuration(
        "qwen3_next",
        hidden_size=WIDTH,
        linear_num_key_heads=HEADS,
        linear_num_value_heads=HEADS,
        linear_key_head_dim=keys,
        linear_value_head_dim=2 * keys,
        linear_conv_kernel_dim=4,
        rms_norm_eps=ours.norm.eps,
    )

    def weights(given: dict[str, Tensor]) -> dict[str, Tensor]:
        by_head = given["in_proj_qkvz.weight"].unflatten(0, (HEADS, -1)).split([keys, keys, 2 * keys, 2 * keys], dim=1)
        q, k, v, z = (part.flatten(0, 1) for part in by_head)
        rate, step = given["in_proj_ba.weight"].unflatten(0, (HEADS, 2)).unbind(1)
        return {
            "qkv.weight": torch.cat([q, k, v]),
            "convolution.weight": given["conv1d.weight"],
            "step.weight": step,
            "rate.weight": rate,
            "rate.bias": torch.zeros(HEADS),
            "A_log": given["A_log"],
            "step_bias": given["dt_bias"],
            "gate.weight": z,
            "norm.weight": given["norm.weight"],
            "out.weight": given["out_proj.weight"],
        }

    theirs = module.Qwen3NextGatedDeltaNet(config, layer_idx=0).eval()
    # With Qwen's own 1 the state forgets within a token and the gradients of A and bias are differences of rounding errors.
    theirs.dt_bias.data.copy_(ours.step_bias)
    return compare_layers(ours, weights, theirs, module)


def gated_delta_rule() -> Errors:
    """Gated DeltaNet's scan against `torch_chunk_gated_delta_rule`."""
    oracle = inspect.unwrap(modelling("qwen3_next").torch_chunk_gated_delta_rule)

    def theirs(q: Tensor, k: Tensor, v: Tensor, rate: Tensor, log_forget: Tensor, state: Tensor):
        return oracle(q, k, v, g=log_forget, beta=rate, initial_state=state, output_final_state=True)

    return compare_forms("scan", our_gated_delta, theirs, gated_delta_inputs())


def _llama(feed: int, heads: int = HEADS) -> tuple[ModuleType, Any]:
    config = configuration(
        "llama",
        hidden_size=WIDTH,
        intermediate_size=feed,
        num_attention_heads=heads,
        rms_norm_eps=1e-6,
        vocab_size=8,
        attn_implementation="eager",  # their own softmax, not torch's fused one that ours calls
    )
    return modelling("llama"), config


def _block_weights(given: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """A Llama decoder layer's weights under the names of the shell's block."""
    q, k, v = (given[f"{prefix}self_attn.{name}_proj.weight"] for name in "qkv")
    gate, up = (given[f"{prefix}mlp.{name}_proj.weight"] for name in ("gate", "up"))
    return {
        "mixer_norm.weight": given[f"{prefix}input_layernorm.weight"],
        "mixer.qkv.weight": torch.cat([q, k, v]),
        "mixer.out.weight": given[f"{prefix}self_attn.o_proj.weight"],
        "feed_norm.weight": given[f"{prefix}post_attention_layernorm.weight"],
        "feed.gate_up.weight": torch.cat([gate, up]),
        "feed.down.weight": given[f"{prefix}mlp.down_proj.weight"],
    }


def _mask(time: int, window: int | None = None) -> Tensor:
    """What a row must not see, as a large negative number: [1, 1, t, t]."""
    distance = torch.arange(time)[:, None] - torch.arange(time)
    hidden = (distance < 0) | (distance >= (window or time))
    return torch.zeros(time, time).masked_fill(hidden, torch.finfo(torch.float32).min)[None, None]


def block(window: int | None = None) -> Errors:
    """The shell's block (norm, rotary attention, norm, SwiGLU) against a Llama decoder layer, masked to a window if asked."""
    feed = 40
    mixer = WindowTransformer(WIDTH, HEADS, window) if window else Transformer(WIDTH, HEADS)
    ours, (module, config) = Block(WIDTH, mixer, feed), _llama(feed)
    theirs = module.LlamaDecoderLayer(config, layer_idx=0).eval()
    places = module.LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(TIME)[None])

    def our_side(x: Tensor, **given: Tensor) -> Tensor:
        return functional_call(ours, _block_weights(given), (x, None), strict=True)[0]

    def their_side(x: Tensor, **given: Tensor) -> Tensor:
        extra = {"attention_mask": _mask(TIME, window), "position_embeddings": places}
        return functional_call(theirs, given, (x,), extra)

    return compare(our_side, their_side, {"x": Draw().normal(2, TIME, WIDTH)} | leaves(theirs))


def recurrent_memory() -> Errors:
    """RMT's logits over three segments, the last one open, against a Llama model run on [M | segment | M]."""
    segment, memory, feed, time = 16, 3, 40, 40
    ours = RMT(Size(8, WIDTH, 1, HEADS), feed, segment, memory)
    module, config = _llama(feed)
    theirs = module.LlamaModel(config).eval()
    tokens = torch.randint(0, 8, (2, time), generator=Draw().generator)
    inputs = leaves(theirs) | {"memory": Draw(2).normal(memory, WIDTH)}

    def our_side(memory: Tensor, **given: Tensor) -> Tensor:
        weights = {f"blocks.0.{name}": value for name, value in _block_weights(given, "layers.0.").items()}
        qk, v = weights.pop("blocks.0.mixer.qkv.weight").split([2 * WIDTH, WIDTH])
        weights |= {"blocks.0.mixer.query_key.weight": qk, "blocks.0.mixer.value.weight": v, "memory": memory}
        weights |= {"embedding.weight": given["embed_tokens.weight"], "norm.weight": given["norm.weight"]}
        return functional_call(ours, weights, (tokens,), strict=True)[0]

    def their_side(memory: Tensor, **given: Tensor) -> Tensor:
        table, rows, read = given["embed_tokens.weight"], memory.shape[0], memory.expand(2, -1, -1)
        logits = []
        for piece in tokens.split(segment, dim=1):
            x = torch.cat([read, table[piece], read], dim=1)
            call = {"inputs_embeds": x, "use_cache": False}
            hidden = functional_call(theirs, given, (), call).last_hidden_state
            logits.append(hidden[:, rows:-rows] @ table.T)
            read = hidden[:, -rows:]
        return torch.cat(logits, dim=1)

    return compare(our_side, their_side, inputs)


COMPARISONS = (
    Comparison("transformer", PACKAGE, "whole block: LlamaDecoderLayer, eager attention", block),
    Comparison("transformer-window", PACKAGE, "whole block: LlamaDecoderLayer under a banded mask", lambda: block(20)),
    Comparison("mamba", PACKAGE, "whole layer: MambaMixer, PyTorch path", mamba),
    Comparison("mamba2", PACKAGE, "whole layer: Mamba2Mixer, PyTorch path", mamba2),
    Comparison("gated-deltanet", PACKAGE, "whole layer: Qwen3NextGatedDeltaNet, PyTorch path", gated_deltanet),
    Comparison("gated-deltanet", PACKAGE, "scan and state: torch_chunk_gated_delta_rule", gated_delta_rule),
    Comparison("rmt", PACKAGE, "whole model, three segments: LlamaModel on [M, segment, M]", recurrent_memory),
)
