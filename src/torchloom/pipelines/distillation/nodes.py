"""The stages that only a distillation has; the others are those of a classification.

torch is imported inside the functions, so that commands which only look at the project stay quick.
"""

from __future__ import annotations

from torchloom.config import ClassifierConfig, DistilledTrainConfig
from torchloom.data.info import LabelledInfo, expect
from torchloom.data.loaders import LoaderPlan
from torchloom.errors import InputError
from torchloom.pipelines.classification.nodes import check_labels, evaluate
from torchloom.pipelines.stages import train_network
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.state import TrainingStates

__all__ = ["evaluate", "train"]


def train(
    loaders: LoaderPlan,
    network: ClassifierConfig,
    config: DistilledTrainConfig,
    states: TrainingStates,
    teacher: Checkpoint,
) -> tuple[Checkpoint, Checkpoint, list[dict[str, float]]]:
    """Train the student: the best checkpoint (on validation; without one the last), the last one, the history.

    Raises InputError when the teacher answers for other classes or other inputs.
    """
    import torch

    from torchloom.training.devices import choose_device
    from torchloom.training.distillation import distillation_objective
    from torchloom.training.losses import classification_loss

    info, taught = (expect(known, LabelledInfo) for known in (loaders.info, teacher.info))
    if info.sizes() != taught.sizes() or info.classes != taught.classes:
        raise InputError(
            f"the teacher, {teacher.network}, was trained for other data: {taught.sizes()} with the classes "
            f"{', '.join(taught.classes)}; these have {info.sizes()} with {', '.join(info.classes)}"
        )
    check_labels(config, loaders)
    loss = classification_loss(config.loss.name, config.loss.arguments)
    model = teacher.build().to(device=choose_device(config.device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective = distillation_objective(loss, model, config.distill)
    return train_network(loaders, network, config, objective, states, more={"teacher": teacher.fingerprint()})
