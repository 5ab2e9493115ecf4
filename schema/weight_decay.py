"""Which parameters weight decay leaves alone: what the class that owns each one declares.

    class Mamba(nn.Module):
        no_weight_decay = ("A_log", "D")            # of its own parameters, by name
        with_weight_decay = ("weights",)            # of its own parameters that are no torch layer's

A class names its direct parameters only (a ParameterList counts as one); of those of a module inside it that module's class
speaks. torch's own layers cannot declare anything, so their declarations stand here: weights of linear maps, convolutions and
embeddings decay; norms and biases do not. The class that is nearest in the inheritance decides. What nobody declares is left
alone, since a gate's constant that decays is a wrong model, and is told as undeclared. No rule asks for a number of dimensions.

It lies here because the optimiser in `tasks` and the kit in `models` must read it alike.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from torch import nn

from schema.checked import DataError

LEFT_ALONE, DECAYED = "no_weight_decay", "with_weight_decay"
_NORM = (("weight", "bias"), ())
_MAP = (("bias",), ("weight",))
# Of torch's own classes: (left alone, decayed). A bilinear map, a convolution of any kind and a linear map are alike.
OF_TORCH: dict[type, tuple[tuple[str, ...], tuple[str, ...]]] = {
    nn.Linear: _MAP,
    nn.Bilinear: _MAP,
    nn.modules.conv._ConvNd: _MAP,
    nn.Embedding: ((), ("weight",)),
    nn.EmbeddingBag: ((), ("weight",)),
    nn.MultiheadAttention: (
        ("in_proj_bias", "bias_k", "bias_v"),
        ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"),
    ),
    nn.RNNCellBase: (("bias_ih", "bias_hh"), ("weight_ih", "weight_hh")),
    nn.LayerNorm: _NORM,
    nn.RMSNorm: _NORM,
    nn.GroupNorm: _NORM,
    nn.modules.batchnorm._NormBase: _NORM,  # batch and instance norm
    nn.PReLU: (("weight",), ()),
}


class Decision(NamedTuple):
    """What happens to one parameter: whether it decays, and whether its class said so."""

    name: str
    parameter: nn.Parameter
    decays: bool
    declared: bool


def decisions(model: nn.Module) -> list[Decision]:
    """One `Decision` for each parameter of the model, frozen ones too, in the order of `model.named_parameters()`.

    A parameter that several modules share is left alone if one of them says so. Raises DataError for a declaration that is no
    tuple of names that the module has, or has one both ways.
    """
    said: dict[int, list[bool | None]] = {}
    for module in model.modules():
        if not isinstance(module, nn.ParameterList | nn.ParameterDict):
            _check(module)
            for name, parameter in _own(module):
                said.setdefault(id(parameter), []).append(_declared(module, name))
    return [_decision(name, parameter, said.get(id(parameter), [])) for name, parameter in model.named_parameters()]


def groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """The optimiser's parameter groups: what decays, then what is left alone; an empty one is not there."""
    found = decisions(model)
    pair = (
        ([d.parameter for d in found if d.decays], weight_decay),
        ([d.parameter for d in found if not d.decays], 0.0),
    )
    return [{"params": parameters, "weight_decay": decay} for parameters, decay in pair if parameters]


def _decision(name: str, parameter: nn.Parameter, said: list[bool | None]) -> Decision:
    told = [answer for answer in said if answer is not None]
    return Decision(name, parameter, bool(told) and all(told), bool(told))


def _own(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """A module's direct parameters and those of its lists of parameters, under the list's name."""
    for name, parameter in module.named_parameters(recurse=False):
        yield name, parameter
    for name, child in module.named_children():
        if isinstance(child, nn.ParameterList | nn.ParameterDict):
            yield from ((name, parameter) for parameter in child.parameters())


def _declared(module: nn.Module, name: str) -> bool | None:
    """Whether the parameter decays, by the nearest class that names it; None if none does."""
    for left_alone, decayed in _declarations(module):
        if name in left_alone:
            return False
        if name in decayed:
            return True
    return None


def _declarations(module: nn.Module) -> Iterator[tuple[Collection[str], Collection[str]]]:
    """(left alone, decayed) by the module and the classes that it inherits from, nearest first, then by torch's own."""
    for source in (vars(module), *(vars(cls) for cls in type(module).__mro__)):
        if LEFT_ALONE in source or DECAYED in source:
            yield _names(module, source, LEFT_ALONE), _names(module, source, DECAYED)
    for cls in type(module).__mro__:
        if cls in OF_TORCH:
            yield OF_TORCH[cls]
        elif cls is nn.RNNBase:  # one set of names per layer and direction
            names = [name for layer in module._all_weights for name in layer]
            yield tuple(n for n in names if n.startswith("bias")), tuple(n for n in names if n.startswith("weight"))


def _names(module: nn.Module, source: Mapping[str, Any], attribute: str) -> Collection[str]:
    """The names that one class declares. Raises DataError unless they are a tuple of names that the module has."""
    names, cls = source.get(attribute, ()), type(module).__name__
    if callable(names):  # a method, as in timm
        names = names(module)
    if not isinstance(names, tuple | list | set | frozenset) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f'{cls}.{attribute} must be a tuple of names of its own parameters, as ("A_log", "D"), not {names!r}.'
        )
    # What a setting switches off is there all the same: as None, as a buffer, or as a module in its place.
    for name in names:
        if not hasattr(module, name):
            raise DataError(
                f"{cls}.{attribute} names '{name}', which it does not have; name parameters of its own "
                f"({', '.join(dict.fromkeys(own for own, _ in _own(module))) or 'it has none'}), "
                f"and let a module inside declare its own."
            )
    return names


def _check(module: nn.Module) -> None:
    """Raise DataError for a declaration that is no tuple of the module's own names, or has one both ways."""
    for left_alone, decayed in _declarations(module):
        if both := set(left_alone) & set(decayed):
            raise DataError(
                f"{type(module).__name__} names '{min(both)}' in both {LEFT_ALONE} and {DECAYED}; leave it in one."
            )
