"""What it takes to repeat a run: the settings that are not at their defaults, the commands, the versions, the data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from torchloom.config import DistillConfig, Named, PruneConfig, QuantizeConfig
from torchloom.records.provenance import Lineage
from torchloom.system.words import counted

METHODS = {DistillConfig, PruneConfig, QuantizeConfig}  # blocks that say how a model was made of another


def settings(lineage: Lineage) -> dict[str, Any]:
    """By full key, those of the lineage that are not at their defaults, 0 and false among them; and every seed.

    Of how a model was made of another, all.
    """
    from torchloom.config.schema import blocks

    recorded = {
        name.removeprefix("params:"): values
        for record in lineage.nodes
        for name, values in record["parameters"].items()
        if name.startswith("params:")
    }
    kinds = blocks() if recorded else {}
    return {
        key: value for name, values in recorded.items() for key, value in unlike_defaults(values, kinds.get(name), name)
    }


def unlike_defaults(values: Any, kind: type[BaseModel] | None, key: str) -> Iterator[tuple[str, Any]]:
    """What differs from the defaults of a block, by full key; what was chosen without any change is an empty object."""
    if not isinstance(values, Mapping) or not values:
        yield key, values
        return
    for name, value in values.items():
        field = kind.model_fields.get(name) if kind else None
        if field is None:
            if value is not None or kind is None:  # null leaves out an argument
                yield from unlike_defaults(value, None, f"{key}.{name}")
            continue
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        plain = default.model_dump(mode="json") if isinstance(default, BaseModel) else default
        named = name == "seed" or (name == "name" and kind is not None and issubclass(kind, Named))
        inner = _kind_of(field.annotation)
        if named or field.is_required() or value != plain or METHODS & {kind, inner}:
            inside = list(unlike_defaults(value, inner, f"{key}.{name}"))
            yield from inside or [(f"{key}.{name}", {})]


def _kind_of(annotation: Any) -> type[BaseModel] | None:
    """The model that a field's type is, or may be."""
    found = [
        each for each in (annotation, *get_args(annotation)) if isinstance(each, type) and issubclass(each, BaseModel)
    ]
    return found[0] if found else None


def commands(lineage: Lineage) -> list[str]:
    """Those of the runs that made it, in their order."""
    return list(dict.fromkeys(str(run["command"]) for _, run in sorted(lineage.runs.items()) if run.get("command")))


def versions(lineage: Lineage) -> dict[str, str]:
    """Of Python and the packages that the stages used; of a package that was changed in between, the newest stage's."""
    return {name: str(version) for record in lineage.nodes for name, version in record["packages"].items()}


def computed(lineage: Lineage, on: Mapping[str, Any]) -> str | None:
    """What computed the newest training of the lineage, by what `training.loop.Outcome` says of it and the records."""
    if not on:
        return None
    trainings = [record for record in lineage.nodes if record["node"].endswith(".train")]
    stage = trainings[-1] if trainings else {}
    machine = lineage.runs.get(str(stage.get("run")), {}).get("machine", {})
    name = machine.get("processor") if on["device"] == "cpu" else stage.get("device")
    processes = f" in each of {on['processes']} processes" if on["processes"] > 1 else ""
    device = f"{on['device']} ({name})" if name else on["device"]
    return f"{device} in {on['precision']}, {counted(on['threads'], 'thread')}{processes}"


def commit(lineage: Lineage) -> str | None:
    """What was checked out in the newest of the runs."""
    git = lineage.runs[max(lineage.runs)].get("git") if lineage.runs else None
    return f"{git['commit']}{' and changes' if git.get('changed') else ''}" if git else None


def without_folders(value: Any) -> Any:
    """A text without the folders of this machine: of an absolute path the last name."""
    if not isinstance(value, str):
        return value
    return re.sub(r"(?<![\w.:/\\])(?:~|[A-Za-z]:)?[/\\](?:[^/\\\s'\",;]+[/\\]+)+", "…/", value)
