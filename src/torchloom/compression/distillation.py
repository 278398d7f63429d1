"""A student that learns from a teacher's answers.

Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015 (arXiv:1503.02531).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.config import DistillConfig
from torchloom.problems.base import Objective
from torchloom.problems.classification.config import DistilledTrainConfig
from torchloom.problems.losses import accuracy, weighed_loss
from torchloom.system.devices import choose_device
from torchloom.training.checkpoint import Checkpoint


def student_objective(config: DistilledTrainConfig, teacher: Checkpoint) -> Objective:
    """What the student of this teacher is trained for, on the device that it is trained on."""
    loss = weighed_loss(config.loss.name, config.loss.arguments)
    model = teacher.build().to(device=choose_device(config.device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    return distillation_objective(loss, model, config.distill)


def distillation_objective(
    loss: Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]], teacher: nn.Module, config: DistillConfig
) -> Objective:
    """(1 - mix) times the mean of a `weighed_loss`, and mix times what the student's answers lack of the teacher's.

    The latter is T² times the divergence of the student's softened probabilities, softmax(logits / T), from the
    teacher's; T² keeps its gradients as large as those of the labels' loss. In validation only `loss` counts.
    """
    teacher.eval().requires_grad_(False)

    def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        *inputs, labels = batch
        logits = model(*inputs)
        mean, weight = loss(logits, labels)
        figures = {"accuracy": accuracy(logits, labels)}
        if not model.training:
            return mean, {**figures, **weight}
        with torch.no_grad():
            wanted = F.log_softmax(teacher(*inputs).float() / config.temperature, dim=1)
        given = F.log_softmax(logits.float() / config.temperature, dim=1)
        divergence = F.kl_div(given, wanted, reduction="batchmean", log_target=True) * config.temperature**2
        return torch.lerp(mean, divergence, config.mix), {**figures, "divergence": divergence}

    return objective
