"""The stage that only a distillation has; the others are those of a classification.

torch is imported inside the functions, so that commands which only look at the project stay quick.
"""

from __future__ import annotations

from functools import partial
from reprlib import repr as shortened
from typing import Any

from torchloom.config import DebuggingConfig, DistributedConfig
from torchloom.errors import InputError
from torchloom.pipelines.training.nodes import Trained, train_network
from torchloom.problems.base import Problem
from torchloom.problems.classification import check_classifier, classes_of
from torchloom.problems.classification.config import DistilledTrainConfig
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.debugging import adjusted
from torchloom.training.loaders import LoaderPlan
from torchloom.training.state import TrainingStates


def train(
    loaders: LoaderPlan,
    network: Any,
    config: DistilledTrainConfig,
    distributed: DistributedConfig,
    debugging: DebuggingConfig,
    states: TrainingStates,
    teacher: Checkpoint,
    *,
    problem: Problem,
) -> Trained:
    """Train the student; see `train_network`.

    Raises InputError when the teacher answers for other classes, other inputs or another vocabulary, or without
    probabilities.
    """
    from torchloom.compression.distillation import student_objective

    check_classifier(teacher)
    problem.check(config, loaders)
    info, taught = loaders.info, teacher.info
    if info.sizes() != taught.sizes() or classes_of(info) != classes_of(taught):
        raise InputError(
            f"the teacher, {teacher.network}, was trained for other data: {shortened(taught.sizes())} with the classes "
            f"{', '.join(classes_of(taught))}; these have {shortened(info.sizes())} with {', '.join(classes_of(info))}"
        )
    if not info.reads_as(taught):
        raise InputError(
            f"the teacher, {teacher.network}, was trained with another vocabulary, in which the same tokens stand for "
            "other words. Take a teacher that was trained on these data"
        )
    if teacher.link != "softmax":
        raise InputError(
            f"the teacher, {teacher.network}, was trained with {teacher.loss[0]}, which gives no probabilities of one "
            "class among others that a student could learn. Take a teacher of CrossEntropyLoss"
        )
    config = adjusted(problem.settled(config, loaders), debugging)
    objective = partial(student_objective, problem, config, info, teacher)
    more = {"teacher": teacher.fingerprint()}
    return train_network(problem, loaders, network, config, distributed, debugging, objective, states, more=more)
