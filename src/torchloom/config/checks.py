"""Checking what users wrote: against schemas, against signatures, and answered in words that name the full key."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Self, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import ErrorDetails

from torchloom.errors import InputError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is in C
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # which YAML may be in, too
MOST_LIKELY = 3  # names that may have been meant
ODD_NUMBER = re.compile(rb"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")  # with base 8 or 60
MOST_ALIASES = 20  # in a YAML file; nine for each level of five are a minute's work and gigabytes for the reader


class UnknownNameError(ValueError):
    """A `name` that stands for nothing."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class ArgumentError(ValueError):
    """Arguments that do not fit a signature; carries pydantic's account of each, and where below the block they are."""

    def __init__(self, model: type[BaseModel], errors: list[ErrorDetails], place: tuple[str, ...] = ()) -> None:
        super().__init__(f"arguments do not fit {model.__name__}")
        self.model, self.errors, self.place = model, errors, place

    @classmethod
    def of(cls, name: str, given: Any, message: str) -> ArgumentError:
        """What is wrong with the value of one argument."""
        return cls(BaseModel, [{"type": "value_error", "loc": (name,), "msg": message, "input": given}])


@cache  # many tasks have the same optimiser
def arguments_of(function: Callable[..., Any], given_by_us: tuple[str, ...] = ()) -> type[BaseModel]:
    """What a user may give to `function`, by its signature, as a model of their names, types and defaults.

    `given_by_us` are parameters of the function that are not the user's to set, such as an optimiser's `params`.
    """
    # torch imports some names of its hints for type checkers only; the one iterable that YAML knows is the list
    names = {"Callable": Callable, "Iterable": list}
    try:
        hints = get_type_hints(
            function.__init__ if inspect.isclass(function) else function, localns=names, include_extras=True
        )
    except NameError as error:
        raise ValueError(
            f"an annotation of {getattr(function, '__name__', function)} leads nowhere: {error}"
        ) from error
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in given_by_us and parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
    }
    rules = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, protected_namespaces=())
    return create_model(function.__name__, __config__=rules, **fields)


def check_call(model: type[BaseModel], arguments: Mapping[str, Any]) -> None:
    """Check names and types of `arguments` against what `arguments_of` a function says; raise ArgumentError."""
    hints = {name: field.annotation for name, field in model.model_fields.items()}
    try:
        model.model_validate({name: _as_tuple(value, hints.get(name)) for name, value in arguments.items()})
    except ValidationError as error:
        raise ArgumentError(model, _one_per_value(error.errors())) from None
    for name, value in arguments.items():
        if any(each != each for each in (value if isinstance(value, list) else [value])):
            raise ArgumentError.of(name, value, "must be a number, and not nan")


def _one_per_value(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Join what pydantic says of each type that a union allows, but for types that YAML cannot name, such as Tensor."""
    joined: dict[tuple[int | str, ...], ErrorDetails] = {}
    for error in errors:
        name, *rest = error["loc"]
        place = (name, *(part for part in rest if isinstance(part, int)))  # without the name of the union's member
        if place not in joined:
            joined[place] = {**error, "loc": place}
        elif error["type"] != "is_instance_of":
            joined[place]["msg"] += " or " + error["msg"].removeprefix("Input should be ")
    return list(joined.values())


def _as_tuple(value: Any, hint: Any) -> Any:
    """YAML has no tuples: a list stands for one where the signature asks for one, and for no list."""
    kinds = {getattr(each, "__origin__", each) for each in (hint, *getattr(hint, "__args__", ()))}
    return tuple(value) if isinstance(value, list) and tuple in kinds and list not in kinds else value


def one_of(name: str, allowed: Iterable[str], what: str) -> None:
    """Raise UnknownNameError when `name` is none of `allowed`."""
    allowed = sorted(allowed)
    if name not in allowed:
        raise UnknownNameError(name, f"must be {what}{_likely(name, allowed)}; there are {', '.join(allowed)}")


def check_yaml(folder: Path) -> None:
    """InputError when a configuration file below `folder` has many aliases: each may stand for many others."""
    for path in sorted(folder.glob("**/*.y*ml")):
        try:
            content = path.read_bytes()
            if content.count(b"*") <= MOST_ALIASES and not content.startswith(UTF_16):
                continue  # whatever it is, it is quickly read
            aliases = sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(content, LOADER))
        except (OSError, yaml.YAMLError, RecursionError):
            continue  # which the one who needs the file will say
        if aliases > MOST_ALIASES:
            raise InputError(f"{path}: has {aliases} aliases (*name), more than {MOST_ALIASES}. Write the values out")


def odd_numbers(text: bytes | str) -> Iterator[str]:
    """A line for each value without quotes that YAML reads as another number than is written: 012 as 10, 1:30 as 90."""
    whole = text if isinstance(text, bytes) else text.encode()
    if not ODD_NUMBER.search(whole):
        return
    for event in yaml.parse(whole, LOADER):
        if isinstance(event, yaml.ScalarEvent) and not event.style and ODD_NUMBER.fullmatch(event.value.encode()):
            read = yaml.load(event.value, LOADER)  # noqa: S506  # the safe one, or the same in C
            if not isinstance(read, str) and event.value.replace("_", "").lstrip("+-0") != str(abs(read) or ""):
                line = event.start_mark.line + 1
                yield f"line {line}: {event.value} would be read as {read}. Write '{event.value}' for a text, or {read}"


def check_parameters(
    parameters: Mapping[str, Any],
    expected: Mapping[str, type[BaseModel]],
    others: set[str],
    inherited: Callable[[str], Path | None] = lambda _: None,
) -> None:
    """Check all parameters; raise one InputError that lists every mistake by its full key. See `mistakes`.

    Where a key is `inherited` from a file, that is named.
    """
    refuse([f"{line}{_from(inherited, line)}" for line in mistakes(parameters, expected, others)])


def _from(inherited: Callable[[str], Path | None], line: str) -> str:
    path = inherited(line.partition(": ")[0])
    return f"; it is from {path}" if path else ""


def refuse(problems: list[str]) -> None:
    """One InputError with all the mistakes in the parameters, if there are any."""
    if problems:
        count = "one mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        raise InputError(f"the parameters hold {count}:\n" + "\n".join(f"  {problem}" for problem in problems))


def mistakes(parameters: Mapping[str, Any], expected: Mapping[str, type[BaseModel]], others: set[str]) -> list[str]:
    """A line for each mistake in the parameters, by its full key.

    `expected` maps the full key of each typed block (`cifar_resnet.train`, `predict`) to its model; `others` are the
    remaining top-level keys that some pipeline reads.
    """
    blocks: dict[str, set[str]] = {}
    for key in expected:
        owner, _, block = key.partition(".")
        blocks.setdefault(owner, set()).add(block)
    known = blocks.keys() | others
    unread = [owner for owner in parameters if owner not in known]
    problems = [f"{owner}: {unknown(owner, known)}{_lacking(parameters[owner])}" for owner in unread]
    for owner, names in blocks.items():
        given = parameters.get(owner)
        if names == {""}:
            problems += check_block(owner, given, expected[owner])
            continue
        if not isinstance(given, Mapping):
            problems.append(f"{owner}: {_given(given)}; must be the blocks {', '.join(sorted(names))}")
            continue
        problems += [f"{owner}.{name}: {unknown(name, names)}" for name in given if name not in names]
        for name in sorted(names):
            problems += check_block(f"{owner}.{name}", given.get(name), expected[f"{owner}.{name}"])
    return problems


def _lacking(block: Any) -> str:
    """What would make an unknown block at the top one that is known."""
    if not isinstance(block, Mapping):
        return ""
    return "; a task has a block task: {problem: …, data: …}, and a data set one preprocess: {…}"


def check_block(key: str, given: Any, model: type[BaseModel]) -> list[str]:
    """A line for each mistake in one block."""
    if not isinstance(given, Mapping):
        needed = any(field.is_required() for field in model.model_fields.values())
        keys = ", ".join(model.model_fields) + ("" if needed else " (or {})")
        return [f"{key}: {_given(given)}; must be a block with some of the keys {keys}"]
    try:
        model.model_validate(dict(given))
    except ValidationError as error:
        return [line for details in error.errors() for line in _readable(key, model, details)]
    return []


def _readable(key: str, model: type[BaseModel], error: ErrorDetails) -> list[str]:
    """One pydantic error as `full.key: given …; what is allowed`."""
    path = [str(part) for part in error["loc"] if not str(part).startswith("<")]  # which form of a value it is
    full = ".".join([key, *path])
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, ArgumentError):
        full = ".".join([full, *cause.place])
        return [line for inner in cause.errors for line in _readable(full, cause.model, inner)]
    if isinstance(cause, UnknownNameError):
        return [f"{full}.name: {_given(cause.name)}; {cause}"]
    if error["type"] == "extra_forbidden":
        return [f"{full}: {unknown(path[-1], _block_at(model, path[:-1]).model_fields)}"]
    if error["type"] == "missing":
        return [f"{full}: is missing and has no default"]
    if error["type"] == "model_type":
        fields = _block_at(model, path).model_fields
        needed = [name for name, field in fields.items() if field.is_required()]
        keys = ", ".join(f"{name}: …" for name in needed or fields)
        return [f"{full}: {_given(error['input'])}; must be a block such as {{{keys}}}"]
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    quotes = _quotes(error["input"]) if error["type"] in {"string_type", "literal_error", "invalid_key"} else ""
    return [f"{full}: {_given(error['input'])}; {message}{quotes}"]


def _quotes(value: Any) -> str:
    """What to write where a text was meant, and YAML reads something else without quotes."""
    if isinstance(value, bool):
        return ". A text is written in quotes: without them yes, no, on and off are true and false"
    return ". A text is written in quotes: without them it is a number" if isinstance(value, int | float) else ""


def _given(value: Any) -> str:
    return "not given" if value is None else f"given {value!r}"


def unknown(name: Any, allowed: Iterable[str], what: str = "key", most: int | None = None) -> str:
    """`unknown key (did you mean …?); allowed are …`, of which at most so many are named."""
    allowed = sorted(allowed)
    left_out = f", … ({len(allowed)} in all)" if most and len(allowed) > most else ""
    if not allowed:
        return f"unknown {what}; there is none"
    likely = _likely(str(name), allowed)
    return f"unknown {what}{likely}; allowed are {', '.join(allowed[:most])}{left_out}{_quotes(name)}"


def _likely(name: str, allowed: list[str]) -> str:
    near = _ending(name, allowed) or difflib.get_close_matches(name, allowed, n=1)
    if not near:  # a dotted name, of which the last part alone is given, and not quite
        parts = difflib.get_close_matches(name, {each.rpartition(".")[2] for each in allowed}, n=1)
        near = [each for part in parts for each in _ending(part, allowed)]
    shown = near if len(near) <= MOST_LIKELY else [*near[: MOST_LIKELY - 1], f"one of {len(near) - 2} others"]
    return f" (did you mean {' or '.join(shown)}?)" if near else ""


def _ending(last: str, allowed: list[str]) -> list[str]:
    return [each for each in allowed if each.endswith(f".{last}")]


def _block_at(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    """The block that `path` leads to below `model`; what is no field of it names an entry of a list or a mapping."""
    for part in path:
        if part not in model.model_fields:
            continue
        kinds = list(parts_of(model.model_fields[part].annotation))
        blocks = (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
        model = model if Self in kinds else next(blocks)
    return model


def parts_of(annotation: Any) -> Iterator[Any]:
    """The annotation and all those that it is made of."""
    yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from parts_of(part)


def differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """A line `key: before, now …` for each value in which two nested mappings differ, and those in lists of them."""
    if _mappings(before) and _mappings(now) and len(before) == len(now):
        before, now = (dict(enumerate(blocks)) for blocks in (before, now))
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in [*before, *(name for name in now if name not in before)]:
            yield from differences(before.get(name), now.get(name), f"{key}.{name}" if key else str(name))
    elif before != now:
        yield f"{key}: {before!r}, now {now!r}"


def _mappings(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)
