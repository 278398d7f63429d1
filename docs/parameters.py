"""The reference of all parameters, written from the models that check them and from what their names stand for."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kedro.framework.startup import bootstrap_project
from pydantic import BaseModel

WHOLE = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}


ORDER = ["preprocess", "data", "model", "train", "evaluate", "generate", "export"]  # of a task; all others after these


def parameter_pages(project: Path) -> dict[str, str]:
    """Files of the reference and what they say: parameters.md, choices.md and networks.md."""
    from torchloom.config import (
        BookPreprocessConfig,
        FeaturesConfig,
        FolderPreprocessConfig,
        FoldsConfig,
        LabelledSeriesPreprocessConfig,
        PairsPreprocessConfig,
        SeriesPreprocessConfig,
        TableFilesPreprocessConfig,
        TextFilesPreprocessConfig,
    )
    from torchloom.config.schema import choices
    from torchloom.tasks import all_blocks

    bootstrap_project(project)
    users: dict[type[BaseModel], list[str]] = {
        FolderPreprocessConfig: ["<a folder of yours>.preprocess"],
        TableFilesPreprocessConfig: ["<a table of yours>.preprocess"],
        BookPreprocessConfig: ["<a book of yours>.preprocess"],
        TextFilesPreprocessConfig: ["<texts of yours>.preprocess"],
        PairsPreprocessConfig: ["<pairs of yours>.preprocess"],
        FoldsConfig: ["<folds of yours>.folds"],
        FeaturesConfig: ["<a task of yours>.features"],
        SeriesPreprocessConfig: ["<a series of yours>.preprocess"],
        LabelledSeriesPreprocessConfig: ["<labelled series of yours>.preprocess"],
    }
    for key, kind in sorted(all_blocks().items()):
        users.setdefault(kind, []).append(key)
    names = {kind: keys[0].rpartition(".")[2] for kind, keys in users.items()}
    places = {name: place for place, name in enumerate(ORDER)}
    lines = [PARAMETERS]
    for kind in sorted(users, key=lambda kind: (places.get(names[kind], len(ORDER)), names[kind], kind.__name__)):
        lines += _section(kind, f"{names[kind]}: {kind.__name__}", f"Of `{'`, `'.join(users[kind])}`.")
    names = dict(_within(users)) | names
    names = {parent: names[kind] for kind in names for parent in _parents(kind)} | names
    for kind in sorted(names.keys() - users.keys(), key=lambda kind: (names[kind], kind.__name__)):
        lines += _section(kind, f"{names[kind]}: {kind.__name__}")
    named = [CHOICES]
    for kind in sorted(names, key=lambda kind: (names[kind], kind.__name__)):
        options = [f"- `{name}`{_signature(arguments)}" for name, arguments in choices(kind).items()]
        named += [f"## {names[kind]}: {kind.__name__}", "", *options, ""] if options else []
    pages = {"parameters.md": lines, "choices.md": named, "networks.md": [NETWORKS, *_networks()]}
    return {name: "\n".join(page) for name, page in pages.items()}


PARAMETERS = """# Parameters

Every key that the files in `conf/<environment>/parameters` may hold, and `--params` too, with its type, its default and
what it means. This page is made from the models in `src/torchloom/config`, which check the parameters before a run.
Blocks with the key `name` choose something by its name; what there is to choose, and which further keys go with it, is
in [](choices.md).
"""

CHOICES = """# Choices by name

What the key `name` of a block may be, with the keys that go with each name and their defaults. This page is made from
the signatures of the functions and classes that are named, in the versions that it was built with. A network, a loss,
an optimiser or a schedule may also be one of your own, by its dotted path: see [](../how-to/extend.md).
"""


NETWORKS = """# Networks

What `model.name` may be: the papers that a network is from, what it is made of, and which sizes it asks for. This page
is made from the modules of `src/torchloom/models`. All keys and defaults are in [](choices.md); which network
was tried on which kind of data, and how, in [](matrix.md).
"""


def _networks() -> Iterator[str]:
    """A section for each network: what its module says, what its `build` says, and the sizes that it asks for."""
    from importlib import import_module

    from torchloom.models import network_names, sizes_of

    for name in network_names():
        module = import_module(f"torchloom.models.{name}")
        sizes = ", ".join(f"`{size}`" for size in sizes_of(name))
        about, made = (inspect.cleandoc(each.__doc__ or "") for each in (module, module.build))
        yield from (f"## {name}", "", about, "", made, "", f"It asks for {sizes}.", "")


def _section(kind: type[BaseModel], title: str, users: str = "") -> list[str]:
    """A heading, what the model says of itself, and a table of its keys, without those that it has from another one."""
    schema = kind.model_json_schema()
    schema |= schema.get("$defs", {}).get(kind.__name__, {})  # of one that is a part of itself
    parent = next(iter(_parents(kind)), None)
    inherited = {name: repr(field) for name, field in parent.model_fields.items()} if parent else {}
    rows = [_row(name, kind, schema) for name, field in kind.model_fields.items() if inherited.get(name) != repr(field)]
    table = ["| key | type | default | |", "| --- | --- | --- | --- |", *rows, ""] if rows else []
    more = [f"All keys of {_link(parent.__name__)}{', and' if rows else '.'}", ""] if parent else []
    said = [inspect.cleandoc(kind.__doc__), ""] if kind.__doc__ else []
    return [f"({kind.__name__.lower()})=", f"## {title}", "", *said, *([users, ""] if users else []), *more, *table]


def _parents(kind: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that it has keys from, the nearest first."""
    from torchloom.config import Block, Named

    return [each for each in kind.__mro__[1:] if issubclass(each, Block | Named) and each not in {Block, Named}]


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _row(name: str, kind: type[BaseModel], schema: Mapping[str, Any]) -> str:
    field = kind.model_fields[name]
    typed = _typed(schema["properties"][name], schema.get("$defs", {}))
    if field.is_required():
        default = "needed"
    else:
        value = field.get_default(call_default_factory=True)
        plain = value.model_dump(mode="json", exclude_defaults=True) if isinstance(value, BaseModel) else value
        default = f"`{json.dumps(plain)}`"
    cells = (f"`{name}`", typed, default, field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


def _typed(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """A type in words: `whole number, at least 1`."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _link(name) if definitions[name].get("type") == "object" else name
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_typed(part, definitions) for part in schema[key]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{json.dumps(value).strip(chr(34))}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of: {_typed(schema.get('items', {}), definitions)}"
    if schema.get("type") == "object":
        return f"block of: {_typed(schema.get('additionalProperties', {}), definitions)}"
    return ", ".join([WHOLE.get(schema.get("type", ""), "anything"), *_bounds(schema)])


def _bounds(schema: Mapping[str, Any]) -> Iterator[str]:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    for key, word in words.items():
        if key in schema and abs(schema[key]) < 2**62:
            yield f"{word} {schema[key]:g}"


def _within(kinds: Iterable[type[BaseModel]]) -> Iterator[tuple[type[BaseModel], str]]:
    """The models that are part of these and of those, each with the key that it stands at."""
    from torchloom.config.checks import parts_of

    for kind in kinds:
        for name, field in kind.model_fields.items():
            for part in parts_of(field.annotation):
                if isinstance(part, type) and issubclass(part, BaseModel):
                    yield part, name
                    yield from _within([part])


def _signature(arguments: type[BaseModel]) -> str:
    """The keys with their defaults, as YAML has them."""
    keys = []
    for name, field in arguments.model_fields.items():
        try:
            default = "" if field.is_required() else f" = {json.dumps(field.default)}"
        except TypeError:
            default = " = …"
        keys.append(f"`{name}{default}`")
    return f": {', '.join(keys)}" if keys else ""
