"""A checkpoint written as a folder that `AutoModelForCausalLM.from_pretrained` loads, tokenizer and model card included."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from results.rows import metrics
from runner.checkpoints import store
from runner.checkpoints.facts import Facts
from schema import whole_file
from tasks.text.byte_pair import JsonTokenizer, library
from tasks.text.tokenizer import Tokenizer

MODULE = "modeling_titanomachy"
CONFIG, CODE, CARD = "config.json", f"{MODULE}.py", "README.md"
TOKENIZER_CONFIG = "tokenizer_config.json"
LOADER = '''"""Loads the weights beside it by the installed project Titanomachy; nothing of the model is defined here."""

try:  # without it transformers would advise to install a package called runner, which is another's
    from runner.checkpoints.causal_lm import TitanomachyConfig, TitanomachyForCausalLM
except ImportError as error:
    raise ImportError(f"This model needs the project Titanomachy, installed from its own repository: {error}.") from None

__all__ = ("TitanomachyConfig", "TitanomachyForCausalLM")
'''


def export(checkpoint: str | Path, folder: Path, rows: Iterable[dict[str, Any]] = ()) -> Path:
    """Write the model of a checkpoint into a new folder, as transformers loads it; returns the folder.

    `rows` are measured rows; those of this very training stand in the model card. The folder is a checkpoint too. Raises
    CheckpointError for what is none, ValueError for a folder that is not empty or a model whose tokens are symbols.
    """
    kept = store.load(checkpoint)
    if kept.tokenizer is None:
        raise ValueError(f"{checkpoint} was trained on symbols, which no tokenizer writes: export a model of text.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already and not empty; name a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (store.WEIGHTS, store.LOSSES, store.TOKENIZER):
        if (Path(checkpoint) / name).exists():
            shutil.copyfile(Path(checkpoint) / name, folder / name)
    facts, measured = kept.facts, _measured(kept.facts, rows)
    files = {
        CONFIG: _json(_config(kept.facts)),
        CODE: LOADER,
        TOKENIZER_CONFIG: _json(_tokenizer_config(kept.tokenizer)),
        CARD: card(facts, measured),
    }
    if not isinstance(kept.tokenizer, JsonTokenizer):
        files["tokenizer.json"] = byte_tokenizer()
    for name, text in files.items():
        whole_file.write(folder / name, text.encode("utf-8"))
    shutil.copyfile(Path(checkpoint) / store.FACTS, folder / store.FACTS)  # last: from here on it is a checkpoint
    return folder


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _config(facts: Facts) -> dict[str, Any]:
    names = {"AutoConfig": "TitanomachyConfig", "AutoModelForCausalLM": "TitanomachyForCausalLM"}
    return {
        "model_type": "titanomachy",
        "architectures": ["TitanomachyForCausalLM"],
        "auto_map": {auto: f"{MODULE}.{name}" for auto, name in names.items()},
        "registered": facts["model"],
        "vocab_size": facts["vocab"],
        "hidden_size": facts["size"]["width"],
        "eos_token_id": (facts["tokenizer"] or {}).get("separator"),
        "dtype": "float32",
    }


def _tokenizer_config(tokenizer: Tokenizer) -> dict[str, Any]:
    end = tokenizer.separator
    if isinstance(tokenizer, JsonTokenizer):
        written = None if end is None else tokenizer.inner.id_to_token(end)
    else:  # a byte that stands in no text, where none parts texts: some programs load no tokenizer without an end
        written = _letters()[end or 0]
    return {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": written, "clean_up_tokenization_spaces": False}


def byte_tokenizer() -> str:
    """Bytes as a tokenizer of the `tokenizers` library: byte i is token i."""
    made = library()
    vocab = {letter: byte for byte, letter in enumerate(_letters())}
    found = made.Tokenizer(made.models.BPE(vocab=vocab, merges=[]))
    found.pre_tokenizer = made.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    found.decoder = made.decoders.ByteLevel()
    return found.to_str()


def _letters() -> list[str]:
    """The letter that stands for each byte in byte-level tokenizers: itself where it is printed, else one from 256 on."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    return [chr(byte) if byte in printed else chr(256 + others.index(byte)) for byte in range(256)]


def _measured(facts: Facts, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of this very training: the same model, settings, size, budget, seed, rate and dtype, with a number."""
    same = ("size", "budget", "seed", "lr", "dtype")

    def is_ours(row: dict[str, Any]) -> bool:
        is_same = all(row[name] == facts.get(name) for name in same) and row["settings"]["model"] == facts["settings"]
        return row["status"] == "ok" and row["model"] == facts["model"] and is_same

    return [row for row in rows if is_ours(row) and metrics.is_ranked(row["metric"])]


def card(facts: Facts, rows: Sequence[dict[str, Any]]) -> str:
    """The model card: what it is, how it was trained, what was measured of it, how it is loaded."""
    budget, size = facts.get("budget", {}), facts["size"]
    settings = ", ".join(f"{name}={value}" for name, value in facts["settings"].items()) or "its defaults"
    own = [
        f"    from models import user_file; user_file.load_file({Path(file).name!r})  # first: "
        "the file that registers the model, which is not in this folder"
        for file in facts.get("model_files", [])
    ]
    lines = [
        "---", "library_name: transformers", "tags: [titanomachy]", "---", "",
        f"# {facts['model']}, trained on {facts['task']}", "",
        f"The model `{facts['model']}` of Titanomachy under {settings}: "
        + ", ".join(f"{name} {value}" for name, value in size.items())
        + f"; {facts.get('parameters', 0):,} parameters, vocabulary {facts['vocab']:,}.", "",
        f"Trained for {budget.get('steps', 0):,} steps of {budget.get('batch_tokens', 0):,} tokens at learning rate "
        f"{facts.get('lr')}, seed {facts['seed']}, {facts.get('dtype')}; commit {facts.get('commit', '')[:10] or 'unknown'}.", "",
        *own,
        "    from transformers import AutoModelForCausalLM, AutoTokenizer",
        "    model = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)  # with Titanomachy installed",
        "    tokenizer = AutoTokenizer.from_pretrained(FOLDER, trust_remote_code=True)", "",
    ]  # fmt: skip
    if rows:
        lines += ["## Measured", "", "| task | metric | under | value |", "|---|---|---|---:|"]
        for row in sorted(rows, key=lambda row: (row["task"], row["metric"], str(row["where"]))):
            where = ", ".join(f"{name} {value}" for name, value in row["where"].items() if not isinstance(value, str))
            value = metrics.number(row["metric"], row["value"])
            lines.append(f"| {row['task']} | {metrics.words(row['metric'])} | {where} | {value} |")
    else:
        lines += ["No rows were measured of it here."]
    return "\n".join(lines) + "\n"
