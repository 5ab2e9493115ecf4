"""lm-evaluation-harness's few-shot prompts of BABILong, read from the installed package: none of their words stand here."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = "tasks/babilong"
COMMON = "_babilong_common_yaml"
GENERATION = 16  # tokens that the harness lets a model say


class FewShot(NamedTuple):
    """What stands before a context: the instruction with its form of the answer, and examples."""

    instruction: str
    examples: tuple[tuple[str, str, str], ...]  # facts, question, answer


@cache
def few_shot(question: str) -> FewShot:
    """The prompt of qa1 to qa20; ValueError where the harness is not installed or holds no such prompt."""
    try:
        common, own = (fields(folder() / name) for name in (COMMON, f"babilong_{question}.yaml"))
        samples = own["fewshot_config"]["samples"][: common["num_fewshot"]]  # its sampler takes the first
        shots = tuple((shot["input"].strip(), shot["question"].strip(), shot["target"]) for shot in samples)
        return FewShot(own["description"], shots)
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(
            f"The installed lm-evaluation-harness has no few-shot prompt of {question} ({error!r}): install lm-eval 0.4.13."
        ) from None


def folder() -> Path:
    """Where the harness keeps its BABILong; ValueError where it is not installed."""
    found = find_spec("lm_eval")
    if found is None or find_spec("yaml") is None:
        raise ValueError("The template 'harness' reads lm-evaluation-harness's prompts: pip install -e '.[lm-eval]'.")
    return Path(found.submodule_search_locations[0]) / FOLDER


def fields(file: Path) -> dict[str, Any]:
    """The fields of one of the harness's task files; what names a function there is left out."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: None)
    return yaml.load(file.read_text(encoding="utf-8"), Loader)
