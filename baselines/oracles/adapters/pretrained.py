"""Any causal language model of Hugging Face as a model of this house: `logits, state = model(tokens, state)`.

Whatever it carries from piece to piece, keys and values, windows of them, or the state of a recurrence, is copied for every
call, so that a state passed in stays as it was. How it is read is found out by a trial (`settle`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from baselines.oracles.adapters import ways_of_reading
from baselines.oracles.adapters.carried_state import Caller
from baselines.oracles.adapters.position_limits import positions
from baselines.oracles.adapters.reading_trial import Decision, decide
from baselines.oracles.adapters.ways_of_reading import State
from schema import fault


class Pretrained(nn.Module):
    """A trained causal language model with its own tokens; `period` is 1, and the state may grow with the context.

    Every text is read after the tokens `begin`, [n], those that the model's tokenizer puts before a text (Llama's <s>),
    and in pieces as they come until `settle` has found out how. Raises NoState, a ValueError, for a model that carries none.
    """

    period = 1
    fixed_state = False

    def __init__(self, model: nn.Module, begin: Sequence[int] = ()) -> None:
        super().__init__()
        self.model = model
        self.caller = Caller(model)
        self.way = "in pieces"
        self.register_buffer("begin", torch.tensor(begin, dtype=torch.long), persistent=False)

    @property
    def positions(self) -> int | None:
        """The positions that the model knows, None where nothing in it counts them."""
        return positions(self.model)

    @property
    def embedding(self) -> nn.Embedding:
        """The token embedding."""
        return self.model.get_input_embeddings()

    def settle(self, longest: int, piece: int) -> Decision:
        """Find out how texts of up to `longest` tokens are read rightly in pieces of `piece`, and read so from here on.

        Raises NotStreamable, with the figures, where no way is right or the state would not fit.
        """
        decision = decide(self.caller, longest, self.embedding.num_embeddings, self.positions, piece)
        self.way = decision.way
        return decision

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        before = len(self.begin) if state is None else 0
        if before:
            tokens = torch.cat([self.begin.expand(len(tokens), -1), tokens], 1)
        known, needed = self.positions, tokens.shape[1] + (state.seen if state else 0)
        if known is not None and needed > known:
            raise ValueError(
                f"{type(self.model).__name__} knows {known:,} positions, not {needed:,}: ask shorter lengths."
            )
        read = ways_of_reading.WAYS[self.way]
        logits, state = read(self.caller, tokens, state or ways_of_reading.beginning(tokens))
        return logits[:, before:], state


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
