"""The provider of a run, and which models it is meant for."""

from __future__ import annotations

import pytest
import torch

from models.language_model import Size, build
from models.ops.providers import ProviderAbsent
from runner.build import with_provider


def test_a_hybrid_leaves_attention_what_it_has():
    model = build("griffin", Size(64, 32, 3, 2), provider="chunked")
    assert [block.mixer.provider for block in model.blocks] == ["chunked", "chunked", "auto"]
    model = build("griffin", Size(64, 32, 3, 2), provider="recurrence")
    assert [block.mixer.provider for block in model.blocks] == ["recurrence"] * 3


def test_a_run_of_many_models_leaves_attention_what_it_has():
    assert with_provider("transformer", {}, "flash") == {"provider": "flash"}
    assert with_provider("transformer", {}, "native") == {}
    assert with_provider("transformer", {"provider": "native"}, "auto") == {"provider": "native"}
    assert with_provider("retnet", {}, "native") == {"provider": "native"}
    with pytest.raises(ProviderAbsent, match="'native' has no form of 'softmax attention'"):
        build("transformer", Size(64, 32, 1, 2), provider="native")(torch.zeros(1, 3, dtype=torch.long))
