"""Any causal language model of Hugging Face as a model of this house: `logits, state = model(tokens, state)`.

Attention caches only: the state is the keys and values of every layer, which a call extends by copying, so that a
state passed in stays as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from schema import fault

# Where configurations of transformers say how many positions a model knows. Those of ALiBi name none that binds.
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
State = tuple[tuple[Tensor, Tensor], ...]


class Pretrained(nn.Module):
    """A trained causal language model with its own tokens; `period` is 1, and the state grows with the context.

    Every text is read after the tokens `begin`, [n], those that the model's tokenizer puts before a text (Llama's <s>).
    Raises ImportError where transformers is not installed, ValueError for a model whose cache is not keys and values.
    """

    period = 1
    fixed_state = False

    def __init__(self, model: nn.Module, begin: Sequence[int] = ()) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("begin", torch.tensor(begin, dtype=torch.long), persistent=False)

    @property
    def positions(self) -> int | None:
        """The positions that the model's own configuration says it knows, None where it names none."""
        config = self.model.config.get_text_config()
        if getattr(config, "alibi", False) or (getattr(config, "attn_config", None) or {}).get("alibi", False):
            return None
        found = (getattr(config, name, None) for name in POSITIONS)
        return next((number for number in found if isinstance(number, int) and number > 0), None)

    @property
    def embedding(self) -> nn.Embedding:
        """The token embedding."""
        return self.model.get_input_embeddings()

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        from transformers import DynamicCache

        before = len(self.begin) if state is None else 0
        if before:
            tokens = torch.cat([self.begin.expand(len(tokens), -1), tokens], 1)
        known, needed = self.positions, tokens.shape[1] + (state[0][0].shape[-2] if state else 0)
        if known is not None and needed > known:
            raise ValueError(
                f"{type(self.model).__name__} knows {known:,} positions, not {needed:,}: ask shorter lengths."
            )
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(state or ()):
            cache.update(keys, values, layer)
        out = self.model(input_ids=tokens, past_key_values=cache, use_cache=True)
        layers = getattr(out.past_key_values, "layers", [])
        if not layers or any(getattr(layer, "keys", None) is None for layer in layers):
            raise ValueError(
                f"{type(self.model).__name__} keeps no keys and values; only attention caches can be used."
            )
        if any(type(layer).__name__ != "DynamicLayer" for layer in layers):
            raise ValueError(
                f"{type(self.model).__name__} drops keys beyond its window, so a state cannot be used twice."
            )
        return out.logits[:, before:], tuple((layer.keys, layer.values) for layer in layers)


def load(path: str, gguf: str | None = None, dtype: str = "float32") -> Pretrained:
    """The model of a folder, a hub name, or (with `gguf`, the file's name inside the folder) a quantised GGUF file.

    Raises ImportError where transformers is not installed, ValueError where there is no model at `path`.
    """
    try:
        from transformers import AutoModelForCausalLM
    except ImportError:
        raise ImportError("Hugging Face models need transformers: pip install -e '.[parity]'.") from None
    _regular(path)
    options = _options(gguf)
    try:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype), **options)
    except Exception as error:  # a folder may hold anything, and transformers raises many kinds
        raise ValueError(f"No causal language model could be loaded from '{path}': {fault(error, 200)}") from None
    return Pretrained(model.eval(), _begin(path, options))


def _options(gguf: str | None) -> dict[str, Any]:
    """What every call of transformers is given: code that lies beside a model's data is never run."""
    return {"trust_remote_code": False} | ({} if gguf is None else {"gguf_file": gguf})


def _regular(path: str) -> None:
    """Refuse a folder with pipes or devices, at which a reader would wait for ever."""
    folder = Path(path)
    for file in folder.iterdir() if folder.is_dir() else ():
        if not file.is_file() and not file.is_dir():
            raise ValueError(f"'{file}' is no file, so no model can be loaded from its folder.")


def _begin(path: str, options: dict[str, Any]) -> list[int]:
    """What a model's tokenizer puts before every text; nothing where the model comes without one."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
    except Exception:  # none, or one that `tokenizer_file` refuses where it is needed
        return []
    text, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    return next((whole[:n] for n in range(len(whole)) if whole[n : n + len(text)] == text), [])


def tokenizer_file(path: str, folder: Path, gguf: str | None = None) -> Path:
    """The model's tokenizer as a JSON file of the `tokenizers` library, written into `folder`. Raises ValueError."""
    from transformers import AutoTokenizer

    try:
        fast = AutoTokenizer.from_pretrained(path, **_options(gguf)).backend_tokenizer
    except Exception as error:  # as above
        raise ValueError(
            f"No tokenizer of the tokenizers library could be loaded from '{path}': {fault(error, 200)}"
        ) from None
    file = Path(folder) / "tokenizer.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    fast.save(str(file))
    return file
