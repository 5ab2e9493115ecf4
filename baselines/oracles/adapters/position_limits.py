"""How many positions a causal language model of transformers knows, and how far its attention reaches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

# Where configurations of transformers say how many positions a model knows. Those of ALiBi name none that binds.
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
WINDOWS = ("sliding_window", "attention_window_size", "attention_chunk_size")
ANGLES_BY_LENGTH = ("dynamic", "longrope")  # kinds of rotary embedding whose angles change beyond the first limit


def positions(model: nn.Module) -> int | None:
    """The positions that a model's own configuration says it knows, None where it names none or nothing in it counts them.

    A recurrence without rotary or learned positions, as Mamba, RWKV, Jamba or Zamba, reads any length, whatever its
    configuration says. Where the angles of a rotary embedding are others in a long text than in a short one, a text in pieces
    is read as the whole is up to the shorter limit alone, which is then given.
    """
    config = model.config.get_text_config()
    if _has_slopes(config) or (getattr(model, "_is_stateful", False) and not _counts(model)):
        return None
    known = next(_numbers(config, POSITIONS), None)
    changing = [rope for rope in _ropes(config) if _kind(rope) in ANGLES_BY_LENGTH]
    first = [rope.get("original_max_position_embeddings") for rope in changing]
    first += [getattr(config, "original_max_position_embeddings", None)] if changing else []
    return min([number for number in (known, *first) if isinstance(number, int)], default=None)


def window(model: nn.Module) -> int:
    """The tokens of the widest attention window (or chunk) of a model, 0 where it has none."""
    config = model.config.get_text_config()
    return max(_numbers(config, WINDOWS), default=0)


def _numbers(config: Any, names: tuple[str, ...]) -> Iterator[int]:
    found = (getattr(config, name, None) for name in names)
    return (number for number in found if isinstance(number, int) and number > 0)


def _has_slopes(config: Any) -> bool:
    """Whether attention is biased by distance alone (ALiBi)."""
    attention = getattr(config, "attn_config", None) or {}
    inside = attention.get("alibi") if isinstance(attention, dict) else getattr(attention, "alibi", False)
    return bool(getattr(config, "alibi", False) or inside)


def _counts(model: nn.Module) -> bool:
    """Whether a model has anything that is told the place of a token: a rotary embedding, or a second table of vectors."""
    tokens = model.get_input_embeddings()
    return any(
        "rotary" in type(part).__name__.lower() or (isinstance(part, nn.Embedding) and part is not tokens)
        for part in model.modules()
    )


def _ropes(config: Any) -> list[dict[str, Any]]:
    """The settings of a model's rotary embeddings: one, or one for each kind of layer."""
    said = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(said, dict):
        return []
    inner = [value for value in said.values() if isinstance(value, dict)]
    return inner or [said]


def _kind(rope: dict[str, Any]) -> str | None:
    return rope.get("rope_type", rope.get("type"))
