"""A dataclass among a constructor's parameters opens into settings of its own."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

import baselines  # noqa: F401  fills the registry
from models import registry
from models.language_model import Size, build
from models.titans.memory_settings import MemorySettings
from schema import settings

SIZE = Size(64, 32, 1, 2)


@dataclass(frozen=True)
class Gates:
    bias: float = 0.5
    kind: str = "head"


class Mixer:
    def __init__(self, width: int, heads: int, gates: Gates = Gates(bias=0.25), layers: int = 1):
        self.given = width, heads, gates, layers


def test_fields_stand_among_the_settings_with_their_types_and_defaults():
    found = settings.settings(Mixer)
    assert list(found) == ["bias", "kind", "layers"]
    assert [str(one) for one in found.values()] == ["bias: float = 0.5", "kind: str = 'head'", "layers: int = 1"]


def test_fields_are_gathered_again():
    assert settings.construct(Mixer, 8, 2, kind="channel", layers=3).given == (8, 2, Gates(kind="channel"), 3)
    assert settings.construct(Mixer, 8, 2, gates=Gates(bias=2.0)).given == (8, 2, Gates(bias=2.0), 1)


def test_two_settings_of_one_name_are_refused():
    class Twice:
        def __init__(self, width: int, bias: float, gates: Gates = Gates()):
            pass

    # Local classes have no resolvable annotations unless their module knows them.
    Twice.__init__.__annotations__ = {"width": int, "bias": float, "gates": Gates}
    with pytest.raises(ValueError, match="two settings called bias"):
        settings.parameters(Twice)


@pytest.mark.parametrize("name", ["titans-lmm", "titans-mac", "titans-mag", "titans-mal"])
def test_every_setting_of_the_memory_is_one_of_each_titan(name):
    fields = settings.parameters(MemorySettings)
    assert fields.items() <= settings.settings(registry.entry(name).cls).items()
    model = build(name, SIZE, memory_depth=1, momentum=False, match=False)
    memory = next(part for part in model.modules() if type(part).__name__ == "Memory")
    assert len(memory.initial) == 1 and memory.gate_sizes[0] == 0


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [("memory_depth", 0, "at least 1"), ("chunk", 0, "chunk"), ("store_every", 17, "multiple of the chunk of 16")],
)
def test_impossible_memories_are_refused_in_one_sentence(setting, value, said):
    with pytest.raises(ValueError, match=said):
        build("titans-mac", SIZE, match=False, **{setting: value})
