"""MAC's whole segments in one compiled call: held to the plain form, with every gradient, in pieces, and refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.ops import providers
from models.ops.native_build import compiler
from models.ops.providers import NotCovered, watch
from models.titans import compiled_segments
from tests.support.titans_layers import mixer, relative, text

pytestmark = pytest.mark.skipif(not compiler(), reason="no C compiler is here")
PRECISE, ROUNDED = 1e-12, 1e-5  # of float64 and float32
DEEP = {"memory_depth": 3, "expansion": 2, "layer_gates": True}
LARGE = {"segment": 64, "chunk": 32, "memory_tokens": 16, "decayed": True, "exclusive": True}
# What a setting's library is compiled for anew takes three seconds: the quick suite has those that differ most.
QUICK = [
    ("mac", {}),
    ("mac pooled", {}),
    ("mac linear", {"inner_residual": False, "forget": "none", "unit_values": False}),
]
SLOW = [
    ("mac", DEEP), ("mac", LARGE), ("mac bare", {}), ("mac bare", {"activation": "silu", "layer_gates": True}),
    ("mac linear", {}), ("mac linear", {"chunk": 1}), ("mac", {"segment": 48, "chunk": 24}), ("mac", {"inner": 12}),
]  # fmt: skip
SETTINGS = [*QUICK, *(pytest.param(*one, marks=pytest.mark.slow) for one in SLOW)]


def layer_of(case: str, kind: torch.dtype = torch.float64, **settings) -> nn.Module:
    """A layer whose gains and gates are not those that it is drawn with."""
    layer = mixer(case, **settings).to(kind)
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return layer


def leaves(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    return [leaf for part in state for leaf in leaves(part)] if isinstance(state, tuple) else []


def answers(layer: nn.Module, x: Tensor, provider: str, cuts: list[int] | None = None) -> dict[str, Tensor]:
    """Outputs, the last state and the gradients of all, of a text read in pieces."""
    layer.zero_grad()
    own, state, ys = x.clone().requires_grad_(), None, []
    layer.provider = provider
    for piece in own.split(cuts or [x.shape[1]], 1):
        y, state = layer(piece, state)
        ys.append(y)
    values = [torch.cat(ys, 1), *leaves(state)]
    draws = torch.Generator().manual_seed(1)
    sum((value * torch.randn(value.shape, generator=draws, dtype=x.dtype)).sum() for value in values).backward()
    slopes = {f"d{name}": parameter.grad for name, parameter in layer.named_parameters()}
    return {**{str(place): value.detach() for place, value in enumerate(values)}, **slopes, "dx": own.grad}


def agree(right: dict[str, Tensor], got: dict[str, Tensor], within: float) -> None:
    assert right.keys() == got.keys()
    for name, expected in right.items():
        assert got[name].shape == expected.shape and got[name].dtype is expected.dtype, name
        assert not expected.any() and not got[name].any() or relative(got[name], expected) < within, name


@pytest.mark.parametrize(("case", "settings"), SETTINGS)
def test_compiled_is_plain(case: str, settings: dict):
    layer = layer_of(case, **settings)
    x = text(3 * layer.segment + 5).double()
    agree(answers(layer, x, "chunked"), answers(layer, x, "auto"), PRECISE)


@pytest.mark.parametrize(
    ("case", "settings"), [QUICK[0], *(pytest.param(*one, marks=pytest.mark.slow) for one in SLOW)]
)
def test_compiled_is_plain_in_float32(case: str, settings: dict):
    layer = layer_of(case, torch.float32, **settings)
    x = text(4 * layer.segment + 1)
    agree(answers(layer, x, "chunked"), answers(layer, x, "auto"), ROUNDED)


@pytest.mark.parametrize("case", ["mac", "mac pooled"])
@pytest.mark.parametrize("cuts", [[5, 60, 7], [48, 24], [1, 1, 70], [71, 1]])
def test_pieces_are_the_whole(case: str, cuts: list[int]):
    """Pieces that close a segment, hold whole ones and begin another; gradients pass from piece to piece."""
    layer, x = layer_of(case), text(72).double()
    agree(answers(layer, x, "chunked"), answers(layer, x, "auto", cuts), PRECISE)


def test_a_chunk_of_one_segment_and_one_row():
    layer, x = layer_of("mac"), text(16, batch=1).double()
    agree(answers(layer, x, "chunked"), answers(layer, x, "auto"), PRECISE)


def test_without_gradients_the_numbers_are_those_with():
    layer, x = layer_of("mac"), text(40).double()
    with torch.no_grad():
        y, state = layer(x)
    right, after = layer(x)
    for got, expected in zip([y, *leaves(state)], [right, *leaves(after)], strict=True):
        assert got.shape == expected.shape and (not expected.any() or relative(got, expected) < PRECISE)


@pytest.mark.parametrize("batch", [1, 3])
def test_threads_change_no_digit(batch: int, monkeypatch):
    """PyTorch's own products stay on one thread, and so on their digits."""
    layer, x = layer_of("mac", torch.float32), text(48, batch)
    one = answers(layer, x, "native")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    two = answers(layer, x, "native")
    assert all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.mark.parametrize(
    "settings", [{"literal": True}, {"store_every": 16}, {"residual": True}, {"forget": "channel"}]
)
def test_what_is_not_covered_is_plain_and_refused_by_name(settings: dict):
    layer, x = layer_of("mac", **settings), text(40).double()
    plain = layer_of("mac", **settings, provider="chunked")
    assert relative(layer(x)[0], plain(x)[0]) < PRECISE
    with pytest.raises(NotCovered, match="use provider chunked"):
        layer_of("mac", **settings, provider="native")(x)


def test_layers_that_are_listened_to_are_passed():
    layer, x, heard = layer_of("mac"), text(32).double(), []
    right, _ = layer(x)
    layer.attention_out.register_forward_hook(lambda *_: heard.append(1))
    y, _ = layer(x)
    assert relative(y, right) < PRECISE and heard
    with pytest.raises(NotCovered, match="listens"):
        layer.provider = "native"
        layer(x)


def test_autocast_and_half_precision_are_plain():
    layer, x = layer_of("mac", torch.float32), text(32)
    with torch.autocast("cpu", torch.bfloat16), watch() as ran:
        layer(x)
    assert "sdpa" in ran
    with watch() as ran:
        layer.bfloat16()(x.bfloat16())
    assert "sdpa" in ran


def test_rows_name_what_ran():
    layer, x = layer_of("mac"), text(32).double()
    with watch() as ran:
        layer(x)
    assert ran == {"native"}
    with watch() as ran:
        layer(text(37).double())  # five tokens are no segment
    assert ran == {"native", "sdpa"}
    with watch() as ran:
        layer_of("mac", provider="chunked")(x)
    assert ran == {"chunked", "sdpa"}


def test_a_large_memory_trains_in_chunks_and_probes_compile_nothing(monkeypatch):
    layer, x = layer_of("mac"), text(32).double()
    monkeypatch.setattr(compiled_segments, "is_slower_at", lambda *_: True)
    with watch() as ran:
        layer(x)
    assert "sdpa" in ran
    with torch.no_grad(), watch() as ran:
        layer(x)
    assert "sdpa" not in ran
    monkeypatch.setattr(compiled_segments, "built", lambda *_: pytest.fail("compiled"))
    with providers.probing():
        layer(x)


def test_what_has_another_shape_is_refused(monkeypatch):
    """C would read beyond the end of it."""
    layer, x = layer_of("mac"), text(32).double()
    taps = compiled_segments._taps
    monkeypatch.setattr(compiled_segments, "_taps", lambda memory: taps(memory)[:, 1:])
    with pytest.raises(ValueError, match="tails has the shape"):
        layer(x)
    monkeypatch.setattr(compiled_segments, "_taps", lambda memory: taps(memory).float())
    with pytest.raises(ValueError, match="of one dtype"):
        layer(x)
