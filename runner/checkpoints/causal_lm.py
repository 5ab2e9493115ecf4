"""A checkpoint as a causal language model of transformers, which generates with the model's own carried state.

    model = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)
    model.generate(**tokenizer("Once", return_tensors="pt"), max_new_tokens=40)

The folder is one that `bench.py export` wrote; this project must be installed where it is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput
from transformers.utils.hub import cached_file

from runner.checkpoints import store

IGNORE = -100  # a label that is not asked, as in all of transformers
NAMES_OF_STATES = ("past_key_values", "cache_params", "cache")  # in other models of transformers; here `state`
UNREAD = "Texts of unequal length cannot be padded here: a carried state would read the padding; give them one by one."


class TitanomachyConfig(PretrainedConfig):
    """What transformers asks of a model beside its weights; `checkpoint.json` says the rest."""

    model_type = "titanomachy"

    def __init__(self, registered: str = "", vocab_size: int = 256, hidden_size: int = 0, **others: Any):
        """`registered` is the model's name in this project."""
        super().__init__(**others)
        self.registered, self.vocab_size, self.hidden_size = registered, vocab_size, hidden_size


@dataclass
class Output(ModelOutput):
    """Logits [b, t, vocab], the state behind them, and with labels the mean cross entropy of each next token."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    state: Any = None

    @property
    def past_key_values(self) -> Any:
        """The state by the name that programs written for transformers read."""
        return self.state

    cache = cache_params = past_key_values


class TitanomachyForCausalLM(PreTrainedModel, GenerationMixin):
    """A trained model of this project behind transformers' interface. It has no attention cache but `state`, which goes on."""

    config_class = TitanomachyConfig
    main_input_name = "input_ids"
    _is_stateful = True  # no assisted decoding: a state cannot be wound back

    def __init__(self, config: TitanomachyConfig, model: nn.Module):
        super().__init__(config)
        self.model = model

    @classmethod
    def from_pretrained(cls, name: str, *_: Any, config: Any = None, dtype: Any = None, **asked: Any) -> Any:
        """The model of an exported folder, or of the hub's repository of one, ready to be asked.

        `dtype`, `device_map` (one device) and `provider` are read; whatever else transformers passes says nothing here.
        Raises what `runner.checkpoints.store.load` raises.
        """
        folder, device = _folder(name, asked), asked.get("device_map") or "cpu"
        if isinstance(device, dict):
            device = next(iter(device.values()))
        kept = store.load(folder, asked.get("provider", "auto"), "cpu" if device == "auto" else str(device))
        made = cls(config or cls.config_class.from_pretrained(folder), kept.model)
        dtype = dtype or asked.get("torch_dtype")
        return (made.to(dtype) if isinstance(dtype, torch.dtype) else made).eval()

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        """Refuse: what is exported is a checkpoint, and a copy of its folder is the model."""
        raise NotImplementedError("Copy the exported folder, or export the checkpoint again: bench.py export.")

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embedding

    def forward(
        self,
        input_ids: Tensor,
        state: Any = None,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        use_cache: bool = True,
        return_dict: bool = True,
        **others: Any,
    ) -> Output | tuple:
        """Logits of tokens [b, t] that go on from `state`, or from one given by another of its names in transformers.

        Raises ValueError for padded texts.
        """
        for name in NAMES_OF_STATES:
            state = others.get(name) if state is None else state
        if attention_mask is not None and not bool(attention_mask.all()):
            raise ValueError(UNREAD)
        logits, state = self.model(input_ids, state)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORE)
        found = Output(loss=loss, logits=logits, state=state if use_cache else None)
        return found if return_dict else found.to_tuple()

    def prepare_inputs_for_generation(self, input_ids: Tensor, state: Any = None, **kwargs: Any) -> dict[str, Any]:
        """The next piece of a text: all of it at first, then its last token alone."""
        given = input_ids if state is None else input_ids[:, -1:]
        return {"input_ids": given, "state": state, "attention_mask": kwargs.get("attention_mask"), "use_cache": True}

    def _prepare_cache_for_generation(self, *_: Any, **__: Any) -> None:
        """No attention cache is made: the state is this model's own."""

    def _update_model_kwargs_for_generation(
        self, outputs: Output, model_kwargs: dict[str, Any], *_: Any, **__: Any
    ) -> dict:
        model_kwargs["state"] = outputs.state
        if (mask := model_kwargs.get("attention_mask")) is not None:
            model_kwargs["attention_mask"] = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        return model_kwargs

    def generate(self, *inputs: Any, **asked: Any) -> Any:
        """As transformers generates, greedily or drawn; several continuations of a text are rows of their own.

        Raises ValueError for beams, whose states would have to change places.
        """
        if (asked.get("num_beams") or 1) > 1:
            raise ValueError("Beam search needs states that change places; generate with num_beams=1.")
        return super().generate(*inputs, **asked)


def _folder(name: str, asked: dict[str, Any]) -> str:
    if Path(name).is_dir():
        return str(name)
    wanted = {key: asked[key] for key in ("revision", "cache_dir", "token", "local_files_only") if key in asked}
    for file in (store.WEIGHTS, store.FACTS):
        found = cached_file(name, file, **wanted)
    cached_file(name, store.TOKENIZER, **wanted, _raise_exceptions_for_missing_entries=False)
    return str(Path(found).parent)
