"""The conformance kit's line on weight decay: which parameters the optimiser leaves alone, as their classes declare."""

from __future__ import annotations

from models.conformance.subject import Finding, Subject
from schema.weight_decay import Decision, decisions


def weight_decay(subject: Subject) -> Finding:
    """Every parameter is declared by the class that owns it, or is that of one of torch's own layers.

    A user's own class may leave one undeclared: it does not decay, and the line says so.
    """
    found = decisions(subject.model)
    decayed = sum(decision.decays for decision in found)
    figure = f"{decayed} of {len(found)} decay"
    silent = _names([decision for decision in found if not decision.declared])
    if not silent:
        return True, figure, f"left alone: {_names([d for d in found if not d.decays]) or 'nothing'}"
    advice = "its class should name it in no_weight_decay or with_weight_decay; until then it does not decay"
    return subject.entry.family == "yours", figure, f"not declared: {silent}; {advice}"


def _names(found: list[Decision]) -> str:
    """Names of parameters, those that all blocks have told once."""
    told = dict.fromkeys(
        ".".join("*" if part.isdigit() and place else part for place, part in enumerate(decision.name.split(".")))
        for decision in found
    )
    return ", ".join(told)
