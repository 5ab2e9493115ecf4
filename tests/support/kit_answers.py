"""What the conformance kit answered, asked for by tests."""

from __future__ import annotations

from models.conformance.kit import Property, check


def failed(properties: list[Property]) -> set[str]:
    return {each.name for each in properties if not each.passed}


def found(name: str, only: str, **settings) -> Property:
    return check(name, only=[only], **settings)[0]
