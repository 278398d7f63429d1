"""The JSON schema of the parameter files, from which editors complete names and show what a key means.

It follows from the models of this package, from the signatures of what the parameters name, and from the tasks that are
registered. The files of an environment hold parts of a task only, so nothing is required in it.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kedro.framework.project import pipelines
from kedro.validation.type_extractor import TypeExtractor
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind, models_json_schema
from pydantic_core import CoreSchema, PydanticOmit

from torchloom.config import (
    FeaturesConfig,
    FinetuneConfig,
    LossConfig,
    ModelConfig,
    Named,
    OptimizerConfig,
    PolicyConfig,
    SchedulerConfig,
    ServeConfig,
    TrackingConfig,
)
from torchloom.config.choices import answering_for
from torchloom.system.files import atomic_write

INTERPOLATION = {"$ref": "#/$defs/interpolation"}


def blocks() -> dict[str, type[BaseModel]]:
    """Every block of parameters that a stage or a command reads, by its full key, such as cifar_resnet.train, and the
    model that checks it."""
    found: dict[str, type[BaseModel]] = TypeExtractor(dict(pipelines)).extract_types_from_pipelines()
    return {**found, "serve": ServeConfig, "tracking": TrackingConfig}


def choices(kind: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """What the key `name` of a block may be, and which arguments go with it; nothing where that is not known."""
    if issubclass(kind, ModelConfig):
        networks = answering_for("network")
        return {name: networks.network_arguments(name) for name in networks.network_names(kind.outputs, kind.inputs)}
    if issubclass(kind, LossConfig):
        arguments = answering_for("loss").loss_arguments
        return {name: arguments(name, kind.of) for name in sorted(getattr(kind, "suitable", ()))}
    if issubclass(kind, OptimizerConfig):
        optimizers = answering_for("optimizer")
        return {name: optimizers.optimizer_arguments(name) for name in optimizers.optimizer_names()}
    if issubclass(kind, SchedulerConfig):
        schedulers = answering_for("scheduler")
        return {name: schedulers.scheduler_arguments(name) for name in schedulers.scheduler_names()}
    if issubclass(kind, FinetuneConfig):
        recipes = answering_for("finetuning")
        return {name: recipes.recipe_arguments(name) for name in recipes.recipe_names()}
    if issubclass(kind, PolicyConfig):
        policies = answering_for("policy")
        return {name: policies.policy_arguments(name) for name in sorted(policies.POLICIES)}
    return {}


FILE = "parameters.schema.json"  # in the folder conf
REFERENCE = f"# yaml-language-server: $schema=../../{FILE}\n"  # the first line of a parameter file


class Generator(GenerateJsonSchema):
    """pydantic's own, without what JSON has no word for, such as Tensor."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    def handle_invalid_for_json_schema(self, schema: CoreSchema, error_info: str) -> JsonSchemaValue:  # noqa: ARG002
        raise PydanticOmit


def parameter_schema(by_key: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """The schema of all parameter files of the project, whose blocks these are, and those that tasks may have more."""
    tasks = [key.rpartition(".")[0] for key in by_key if key.endswith(".export")]
    by_key = {**{f"{task}.features": FeaturesConfig for task in tasks}, **by_key}
    kinds = sorted(set(by_key.values()), key=lambda kind: kind.__name__)
    references, definitions = models_json_schema([(kind, "validation") for kind in kinds], schema_generator=Generator)
    loose = {name: _loosened(schema) for name, schema in definitions["$defs"].items()}
    for kind in _named(Named):
        if kind.__name__ in loose and choices(kind):
            _choose(loose[kind.__name__], choices(kind))
    owners: dict[str, Any] = {}
    for key, kind in sorted(by_key.items()):
        owner, _, block = key.partition(".")
        reference = _or_interpolation(references[kind, "validation"])
        if block:
            task = owners.setdefault(owner, {"type": "object", "properties": {}, "additionalProperties": False})
            task["properties"][block] = reference
        else:
            owners[owner] = reference
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "torchvision"))
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",  # the newest that all editors know
        "$comment": f"made by kedro schema, with {versions}",
        "type": "object",
        "properties": owners,
        "$defs": {**loose, "interpolation": {"type": "string", "pattern": r"^\$\{.+\}$"}},  # ${other.key}, of any type
    }


def write_schema(folder: Path, by_key: Mapping[str, type[BaseModel]]) -> Path:
    """Write it into the folder of the configuration; returns the file."""
    path = folder / FILE
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(parameter_schema(by_key), indent=1) + "\n", encoding="utf-8")
    return path


def _named(kind: type[BaseModel]) -> list[type[BaseModel]]:
    return [*kind.__subclasses__(), *(below for each in kind.__subclasses__() for below in _named(each))]


def _choose(schema: dict[str, Any], allowed: Mapping[str, type[BaseModel]]) -> None:
    """Let the block have one of these names, and with it the arguments that go with the name; or a path."""
    # the second: a dotted path, or a network of a library
    names = [{"enum": list(allowed)}, {"pattern": r"^\w+(\.\w+)+$|^\w+/.+$"}]
    schema["properties"]["name"] = {**schema["properties"]["name"], "anyOf": names}
    own = dict.fromkeys(schema["properties"], True)
    schema["allOf"] = []
    for name, arguments in allowed.items():
        found = _loosened(_inline(arguments.model_json_schema(schema_generator=Generator)))
        given = {key: _or_null(found.get("properties", {}).get(key, {})) for key in arguments.model_fields}
        then = {"properties": {**own, **given}, "additionalProperties": {"type": "null"}}
        schema["allOf"].append({"if": {"properties": {"name": {"const": name}}, "required": ["name"]}, "then": then})


def _inline(schema: Any, definitions: Mapping[str, Any] | None = None) -> Any:
    """The schema with what it defines for itself written out."""
    if isinstance(schema, Mapping):
        known = schema.get("$defs", definitions or {})
        if "$ref" in schema:
            return _inline(known[schema["$ref"].rpartition("/")[2]], known)
        return {key: _inline(value, known) for key, value in schema.items() if key != "$defs"}
    return [_inline(value, definitions) for value in schema] if isinstance(schema, list) else schema


def _loosened(schema: dict[str, Any]) -> dict[str, Any]:
    """A block of which any part may be given, and any value as an interpolation."""
    properties = {key: _or_interpolation(value) for key, value in schema.get("properties", {}).items()}
    kept = {key: value for key, value in schema.items() if key not in {"required", "title"}}
    return {**kept, **({"properties": properties} if properties else {})}


def _or_interpolation(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema, or `${…}`; what tells editors about it stays on top."""
    said = {key: schema[key] for key in ("description", "default") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in {"description", "default", "title"}}
    if rest.get("type") == "string" and "enum" not in rest:
        return {**rest, **said}
    return {**said, "anyOf": [*(rest["anyOf"] if set(rest) == {"anyOf"} else [rest]), INTERPOLATION]}


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema, or null, which takes out what another environment gives."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    said = {key: schema[key] for key in ("description", "default") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in said}
    return {**said, "anyOf": [rest, {"type": "null"}]}
