"""Who answers for the names in the parameters: a module for each kind of choice, imported when one is checked.

So the blocks of parameters need to know nothing of what is chosen, and what checks no parameters imports nothing.
"""

from importlib import import_module
from typing import Any

MODULES = {
    "network": "torchloom.models",
    "modality": "torchloom.modalities",
    "policy": "torchloom.data.transforms",
    "loss": "torchloom.problems.losses",
    "metric": "torchloom.problems.evaluation",
    "callback": "torchloom.training.callbacks",
    "optimizer": "torchloom.training.optimizers",
    "scheduler": "torchloom.training.optimizers",
    "finetuning": "torchloom.training.finetuning",
}


def answering_for(kind: str) -> Any:
    """The module that knows which names there are, and what goes with each."""
    return import_module(MODULES[kind])
