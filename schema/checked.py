"""Reads JSON and TOML and holds what is in them to declared types, by pydantic's strict mode."""

from __future__ import annotations

import json
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import pydantic

from schema.words import shortened, suggestion

# How a message calls what pydantic wanted, by the name of its error.
LONGEST_KEY = 100  # letters of a key that a message shows as they are
WANTED = {
    "bool_type": "true or false", "dict_type": "a table", "list_type": "a list", "set_type": "a list",
    "tuple_type": "a list", "none_required": "nothing (null)", "string_type": "text", "int_type": "a whole number",
    "float_type": "a number", "finite_number": "a finite number", "dataclass_type": "a table",
    "dataclass_exact_type": "a table", "model_type": "a table", "int_from_float": "a whole number",
}  # fmt: skip

# The same for bounds and forms, with what pydantic's context says of them.
BOUNDS = {
    "greater_than_equal": "at least {ge}", "greater_than": "more than {gt}", "less_than_equal": "at most {le}",
    "less_than": "less than {lt}", "too_short": "at least {min_length} long", "too_long": "at most {max_length} long",
    "string_too_short": "at least {min_length} letters long", "string_too_long": "at most {max_length} letters long",
    "string_unicode": "whole letters (it holds a lone surrogate)", "int_parsing_size": "a smaller whole number",
}  # fmt: skip
_forms: dict[str, str] = {}  # how a message calls what a pattern asks for


class DataError(ValueError):
    """Data from outside that is not what was declared; the message says where, and what it must be."""


def read_text(path: str | Path, *, error: type[ValueError] = DataError) -> str:
    """The UTF-8 text of a file, without the byte order mark that Windows writes. Raises OSError, or `error`."""
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise error(f"{path} is not UTF-8 text (byte {fault.start}); save it as UTF-8.") from None


def parse_json(text: str | bytes, kind: Any = Any, source: str = "JSON", *, error: type[ValueError] = DataError) -> Any:
    """The value of a JSON text, held to `kind`. NaN and Infinity, which JSON does not have, are refused."""
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        value = json.loads(text.removeprefix("\ufeff"), parse_constant=_no_number)
    except RecursionError:
        raise error(f"{source} is nested too deeply to be read.") from None
    except UnicodeDecodeError:
        raise error(f"{source} is not UTF-8 text; save it as UTF-8.") from None
    except json.JSONDecodeError as fault:
        raise error(f"{source} is no JSON: {fault.msg}, line {fault.lineno}, column {fault.colno}.") from None
    except ValueError as fault:  # a constant that JSON does not have, a number of too many digits
        raise error(f"{source} is no JSON: {shortened(str(fault))[1:-1]}.") from None
    return conform(value, kind, source, error=error)


def read_json(path: str | Path, kind: Any = Any, *, error: type[ValueError] = DataError) -> Any:
    """The value of a JSON file, held to `kind`. Raises OSError where it cannot be read, `error` for all else."""
    return parse_json(read_text(path, error=error), kind, str(path), error=error)


def parse_toml(text: str, kind: Any = dict, source: str = "TOML", *, error: type[ValueError] = DataError) -> Any:
    """The tables of a TOML text, held to `kind`."""
    try:
        tables = tomllib.loads(text.removeprefix("\ufeff"))
    except RecursionError:
        raise error(f"{source} is nested too deeply to be read.") from None
    except ValueError as fault:  # TOMLDecodeError is one; so is a number of too many digits
        raise error(f"{source} is no TOML: {shortened(str(fault), 200)[1:-1]}.") from None
    return conform(tables, kind, source, error=error)


def read_toml(path: str | Path, kind: Any = dict, *, error: type[ValueError] = DataError) -> Any:
    """The tables of a TOML file, held to `kind`. Raises OSError where it cannot be read, `error` for all else."""
    return parse_toml(read_text(path, error=error), kind, str(path), error=error)


def conform(value: Any, kind: Any, source: str, *, error: type[ValueError] = DataError) -> Any:
    """`value` as `kind` declares it, or one sentence: "SOURCE: seed must be a whole number, not 'x'."

    `kind` is any type that pydantic reads: a TypedDict of typing_extensions (unknown keys are refused where its
    `__pydantic_config__` says `extra="forbid"`), a dataclass, list[int], Literal, Annotated with bounds. Strict: no text
    is taken for a number, no boolean for a whole number; a whole number passes as a number.
    """
    if kind is dict and type(value) is dict:
        return value  # as each of many thousand rows is
    try:
        return _adapter(kind).validate_python(value, strict=True)
    except pydantic.ValidationError as fault:
        raise error(_sentence(source, fault, value)) from None
    except RecursionError:
        raise error(f"{source} is nested too deeply to be read.") from None


@lru_cache(maxsize=256)
def _adapter(kind: Any) -> pydantic.TypeAdapter:
    return pydantic.TypeAdapter(kind)


def formed(pattern: str, words: str) -> Any:
    """The type of text that `pattern` matches; a message says that it must be `words`."""
    _forms[pattern] = words
    return Annotated[str, pydantic.Field(pattern=pattern)]


def _sentence(source: str, fault: pydantic.ValidationError, value: Any) -> str:
    """The first fault in words. Of a union's alternatives the one that was matched furthest speaks."""
    first = max(fault.errors(include_url=False, include_context=True), key=_depth_in(value))
    place = ".".join(_key(part) for part in _real(first["loc"], value))
    where = f"{source}: {place}" if place else source
    if first["type"] == "missing":
        return f"{where} is missing; add it."
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        word, near = str(first["loc"][-1]), (first.get("ctx") or {}).get("known", ())
        return f"{source}: unknown key {shortened(word)}{suggestion(word, near)}; take it out."
    if first["type"] == "literal_error":
        return f"{where} must be one of {first['ctx']['expected']}, not {shortened(first['input'])}."
    wanted = WANTED.get(first["type"]) or _bound(first["type"], first.get("ctx") or {})
    if wanted is None:  # a check of the caller's, or what pydantic alone has words for
        return f"{where}: {first['msg'].removeprefix('Value error, ')} (it is {shortened(first['input'])})."
    return f"{where} must be {wanted}, not {shortened(first['input'])}."


def _bound(kind: str, context: dict[str, Any]) -> str | None:
    """What a bound or a pattern that was not kept asks for."""
    if kind == "string_pattern_mismatch":
        return _forms.get(context["pattern"], f"text of the form {context['pattern']}")
    words = BOUNDS.get(kind)
    return words and words.format(**context)


def _key(part: Any) -> str:
    """A key or an index as a message shows it: one that a terminal could not print, or that is long, as a quoted text."""
    text = str(part)
    return text if text.isprintable() and len(text) <= LONGEST_KEY else shortened(text)


def _real(places: tuple, value: Any) -> list[Any]:
    """The keys and indices of an error's place that the data have; pydantic adds the names of a union's members."""
    found = []
    for place in places:
        if isinstance(value, dict) and (place in value or place == places[-1]):
            value = value.get(place)
        elif isinstance(value, list | tuple) and isinstance(place, int) and place < len(value):
            value = value[place]
        else:
            continue
        found.append(place)
    return found


def _depth_in(value: Any):
    return lambda fault: len(_real(fault["loc"], value))


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
