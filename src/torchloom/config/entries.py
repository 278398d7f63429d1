"""Which entries of the catalog stand for each task and each data set: those that a name in the place of the word makes.

Kedro's patterns match whatever fits: `{data}_train` takes a user's own `X_train`. So an entry of ours whose name has
{task} or {data} in it is no pattern for Kedro, but is written out for the names that there are, and no others.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from kedro.io import CatalogConfigResolver, DataCatalog

OTHERS = ("predict", "sweep", "__default__")  # pipelines that are no task
MADE_WITH = ("predict", "sweep")  # those of them with nodes of their own
PLACE = re.compile(r"\{.*?\}")


def is_task(name: Any, block: Any) -> bool:
    """Whether a block of parameters is a task; that of a sweep names one."""
    return isinstance(block, Mapping) and "task" in block and name not in OTHERS


def is_data_set(block: Any) -> bool:
    return isinstance(block, Mapping) and "preprocess" in block


def is_ours(block: Any) -> bool:
    """Whether a block of parameters is of a task, a data set or a sweep, and none that a user's own pipeline reads."""
    return isinstance(block, Mapping) and bool({"task", "preprocess"} & block.keys())


def names_in(parameters: Mapping[Any, Any]) -> dict[str, set[str]]:
    """The names for which {task} and {data} stand."""
    return {
        "{task}": {name for name, block in parameters.items() if is_task(name, block)},
        "{data}": {name for name, block in parameters.items() if is_data_set(block)},
    }


def namespaces_in(parameters: Mapping[Any, Any]) -> set[str]:
    """Those of our nodes: tasks, data sets, and what is made with models. All other nodes are a user's own."""
    return set().union(*names_in(parameters).values(), MADE_WITH)


def has_ours(catalog: Mapping[str, Any]) -> bool:
    """Whether an entry stands for each task or each data set."""
    return any(_word(key, entry) in {"{task}", "{data}"} for key, entry in catalog.items())


def written_out(catalog: Mapping[str, Any], names: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """The catalog with an entry for each of `names` in place of each of ours that has their word in it.

    What else has the name of one goes before it: another entry, or a user's own pattern that is more specific.
    """
    ours = {key: word for key, entry in catalog.items() if (word := _word(key, entry)) in names}
    theirs = {key: entry for key, entry in catalog.items() if key not in ours}
    patterns = {key: entry for key, entry in theirs.items() if CatalogConfigResolver.is_pattern(key)}
    made = {}
    for key, word in ours.items():
        above = {each: entry for each, entry in patterns.items() if _specificity(each) > _specificity(key)}
        taken = CatalogConfigResolver(above, default_runtime_patterns=DataCatalog.default_runtime_patterns)
        for name in names[word]:
            full = key.replace(word, name)
            if not taken.match_dataset_pattern(full):
                made[full] = _filled(catalog[key], word, name)
    return {**made, **theirs}


def _word(key: str, entry: Any) -> str:
    """What the name of an entry of ours has in the place of a task or a data set; of others nothing."""
    kind = str(entry.get("type", "")) if isinstance(entry, Mapping) else ""
    places = PLACE.findall(key)
    return places[0] if kind.startswith("torchloom.") and len(places) == 1 else ""


def _specificity(pattern: str) -> int:
    """As Kedro has it."""
    return len(PLACE.sub("", pattern))


def _filled(value: Any, word: str, name: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(item, word, name) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, word, name) for item in value]
    return value.replace(word, name) if isinstance(value, str) else value
