"""What of the parameters below is left when those above, of an environment or a command, make another choice.

Parameters are merged key by key. Where a block that is chosen by its `name` gets another name above, the arguments
below were those of another class, and none of them is kept; nor is a range (`low`, `high`) where above are `choices`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from torchloom.config.entries import is_ours

Files = dict[Path, DictConfig]  # what stands in each file, before references in it are followed
Place = tuple[str, ...]
RANGE = {"low", "high", "log", "step"}


def without_superseded(base: Files, environment: Files, command: Mapping[str, Any]) -> tuple[Files, Files]:
    """`base` and `environment` without what other choices of the layers above stand in place of.

    That is within the blocks of tasks and data sets, as far as they can be known; others merge them as they like.
    """
    lowest, middle = _together(base), _together(environment)
    whole = OmegaConf.to_container(OmegaConf.unsafe_merge(lowest, middle))
    assert isinstance(whole, dict)
    base = _without(base, _superseded(_of_tasks(lowest, whole), middle))
    places = set(_superseded(_of_tasks(whole, whole), command))
    return _without(base, places), _without(environment, places)


def layered(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """What comes of the blocks of tasks below and above them, as they are merged."""
    kept: Any = deepcopy(dict(below))
    for place in list(_superseded(below, above)):
        _remove(kept, place)
    merged = OmegaConf.to_container(OmegaConf.unsafe_merge(kept, above))
    assert isinstance(merged, dict)
    return {str(key): value for key, value in merged.items()}


def completed(given: Any, below: Any, full: Any) -> Any:
    """`given` and, of the keys that only `below` has, what `full` says, so that nothing of `below` comes back when they
    are merged. `full` is as `given`, with all that it leaves out; null where it leaves that out too."""
    if not all(isinstance(each, Mapping) for each in (given, below)) or _another_choice(below, given):
        return given
    full = full if isinstance(full, Mapping) else {}
    own = {key: completed(value, below.get(key), full.get(key)) for key, value in given.items()}
    return own | {key: full.get(key) for key in below if key not in given}


def has_key(config: Any, key: str) -> bool:
    """Whether something stands at a full key, whose parts are keys of mappings and have points in them or not."""
    if not isinstance(config, Mapping):
        return False
    return key in config or any(
        key.startswith(f"{first}.") and has_key(config[first], key.removeprefix(f"{first}.")) for first in config
    )


def _together(files: Files) -> dict[str, Any]:
    return {str(key): value for config in files.values() for key, value in _plain(config).items()}


def _plain(config: DictConfig) -> dict[Any, Any]:
    found = OmegaConf.to_container(config, resolve=False)
    return found if isinstance(found, dict) else {}


def _of_tasks(layer: Mapping[Any, Any], whole: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: block for name, block in layer.items() if is_ours(whole.get(name))}


def _superseded(below: Mapping[str, Any], above: Mapping[str, Any]) -> Iterator[Place]:
    """The places of the blocks below in whose stead there is another choice above."""
    for key, block in below.items():
        other = above.get(key)
        if not isinstance(block, Mapping) or not isinstance(other, Mapping):
            continue
        if _another_choice(block, other):
            yield (key,)
        else:
            yield from ((key, *place) for place in _superseded(block, other))


def _another_choice(below: Mapping[str, Any], above: Mapping[str, Any]) -> bool:
    if "name" in below and "name" in above:
        return bool(below["name"] != above["name"])
    return any("choices" in one and bool(RANGE & other.keys()) for one, other in ((below, above), (above, below)))


def _without(files: Files, places: Iterable[Place]) -> Files:
    places = list(places)
    kept = {}
    for path, config in files.items():
        plain = _plain(config) if places else {}
        removed = [_remove(plain, place) for place in places]
        kept[path] = OmegaConf.create(plain) if any(removed) else config
    return kept


def _remove(config: MutableMapping[Any, Any], place: Place) -> bool:
    """Whether there was something to remove."""
    *parents, last = place
    for key in parents:
        below = config.get(key)
        if not isinstance(below, MutableMapping):
            return False
        config = below
    return config.pop(last, None) is not None
