"""Language models whose layers differ: a pattern of registered token mixers, repeated through the depth.

    layers = ("gated-deltanet*3", "transformer")     layer i is made of the mixer at place i mod 4 of the pattern

A layer is the shell's `Block`: a mixer that mixes channels itself (Mamba) gets no SwiGLU, every other one the solved width, and
the depth is solved where some layers have none. A mixer that names `index` or `depth` is told its place in the whole model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from models import registry
from models.law import Law
from models.shell.model import Block, LanguageModel, Size, layer_arguments
from schema.settings import construct, parameters
from schema.settings import settings as settings_of
from schema.settings_check import check_settings
from schema.words import shortened, suggestion

Layers = (
    str | tuple[str, ...]
)  # names, one of them perhaps with how often: "gated-deltanet*3"; in one text, parted by commas


class Hybrid(LanguageModel):
    """A whole language model of layers that differ. A registered pattern is a subclass that says `layers`.

    What it says of itself depends on its mixers: `fixed_state` if theirs all is, the largest `period`, their exceptions.
    """

    layers: ClassVar[Layers] = ()  # where no setting of that name says others
    swiglu_everywhere: ClassVar[bool] = False  # whether mixers that mix channels themselves get one too

    def __init__(
        self,
        size: Size,
        feed: int,
        layers: Layers,
        layer_settings: Mapping[str, Any] | None = None,
        inner: int | None = None,
        swiglu_everywhere: bool = False,
        provider: str = "auto",
    ):
        """`layer_settings` are the mixers' own, as {"transformer-window.window": 32}; `inner` and `provider` are for all that
        have such a setting (a class that names its `providers`, for one of these), `inner=None` for each mixer's own
        ratio. Raises ValueError for a pattern that cannot be built.
        """
        pattern = names_of(layers)
        if size.depth < len(pattern):
            raise ValueError(
                f"{len(pattern)} layers ({', '.join(pattern)}) do not fit into a depth of {size.depth}: give the size a depth "
                f"of {len(pattern)} or more, or a shorter pattern."
            )
        asked = {name: provider if mixer_of(name).takes(provider) else "auto" for name in pattern}
        own = {name: {"inner": inner, "provider": asked[name]} for name in pattern}
        for name, chosen in chosen_settings(pattern, layer_settings or {}).items():
            own[name] |= chosen
        blocks = []
        for index in range(size.depth):
            name = pattern[index % len(pattern)]
            mixer = _mixer(registry.entry(name).cls, size, index, own[name])
            blocks.append(Block(size.width, mixer, feed if swiglu_everywhere or not _mixes(name) else 0))
        super().__init__(size, blocks)
        mixers = [block.mixer for block in blocks]
        self.fixed_state = all(getattr(mixer, "fixed_state", False) for mixer in mixers)
        stops = [getattr(mixer, "detaches", False) for mixer in mixers]
        self.detaches = next((stop for stop in stops if stop), False)
        self.amplifies_rounding = next(
            (why for mixer in mixers if (why := getattr(mixer, "amplifies_rounding", ""))), ""
        )
        self.no_gradient = {k: why for mixer in mixers for k, why in getattr(mixer, "no_gradient", {}).items()}

    @classmethod
    def made_of(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of the mixers that it is made of under these settings, in the order of the pattern."""
        return names_of(settings.get("layers", cls.layers))

    @classmethod
    def declares(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What depends on the pattern: law, reading, fixed_state, the depth that holds it, and what is solved to match it."""
        pattern = cls.made_of(settings)
        has_swiglu = [settings.get("swiglu_everywhere", cls.swiglu_everywhere) or not _mixes(name) for name in pattern]
        entries = [mixer_of(name) for name in dict.fromkeys(pattern)]
        return {
            "law": Law.of(entry.law for entry in entries),
            "reading": "; ".join(f"{entry.name}: {entry.reading}" for entry in entries if entry.reading),
            "fixed_state": all(mixer_of(name).says("fixed_state", {}, False) for name in pattern),
            "least_depth": len(pattern),
            "mixes_channels": not any(has_swiglu),
            "solves_depth": not all(has_swiglu),
        }


def names_of(layers: Layers) -> tuple[str, ...]:
    """A pattern in full: ("mamba*2", "transformer") -> ("mamba", "mamba", "transformer"). Raises ValueError."""
    words = layers.split(",") if isinstance(layers, str) else layers
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise ValueError(
            f"layers are names of token mixers, as 'gated-deltanet*3,transformer', not {shortened(layers)}."
        )
    found: list[str] = []
    for word in words:
        name, star, times = (part.strip() for part in word.partition("*"))
        if not name or (star and not (times.isdecimal() and int(times))):
            raise ValueError(
                f"layers has {shortened(word)}: write names parted by commas, each alone or with how often, as gated-deltanet*3."
            )
        found += [name] * (int(times) if star else 1)
    if not found:
        raise ValueError("layers is empty: name at least one token mixer.")
    return tuple(found)


def mixer_of(name: str) -> registry.Entry:
    """The entry of a registered token mixer. Raises ValueError for another name, and for a whole language model."""
    if name not in registry.names():
        word = f"{shortened(name)}{suggestion(name, registry.names())}"
        raise ValueError(
            f"layers names {word}, which is no registered token mixer: `bench.py list` shows what there is, and a file of "
            "yours that registers it stands in --models beside hybrid."
        )
    entry = registry.entry(name)
    if entry.is_language_model:
        raise ValueError(f"layers names '{name}', which is a whole language model: a layer is made of a token mixer.")
    return entry


def chosen_settings(pattern: tuple[str, ...], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each mixer's own settings: {"mamba.states": 8} -> {"mamba": {"states": 8}}. Raises ValueError."""
    found: dict[str, dict[str, Any]] = {name: {} for name in pattern}
    for key, value in given.items():
        name, dot, setting = key.rpartition(".")
        if not dot or name not in found:
            listed = ", ".join(f"{name}.SETTING" for name in found)
            absent = f", and {shortened(name)} is none of the layers" if dot and name not in found else ""
            raise ValueError(f"layer_settings has {shortened(key)}{absent}; write {listed}.")
        found[name][setting] = value
    for name, own in found.items():
        check_settings("Layer", name, own, settings_of(mixer_of(name).cls))
    return found


def _mixes(name: str) -> bool:
    return mixer_of(name).says("mixes_channels", {}, False)


def _mixer(cls: type, size: Size, index: int, settings: Mapping[str, Any]) -> nn.Module:
    """A layer's mixer, told its place in the whole model, with those of the settings that it has."""
    known = parameters(cls)
    own = {name: value for name, value in settings.items() if name in known and (name, value) != ("inner", None)}
    return construct(cls, size.width, size.heads, **layer_arguments(cls, index, size.depth), **own)
