"""A student that learns from a teacher's answers.

Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015 (arXiv:1503.02531).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.config import DistillConfig
from torchloom.modalities import Info
from torchloom.problems.base import Objective, Problem, without_weights
from torchloom.problems.classification.config import DistilledTrainConfig
from torchloom.system.devices import choose_device
from torchloom.training.checkpoint import Checkpoint


def student_objective(problem: Problem, config: DistilledTrainConfig, info: Info, teacher: Checkpoint) -> Objective:
    """What the student of this teacher is trained for, on the device that it is trained on."""
    labels = problem.objective(config, info)
    model = teacher.build().to(device=choose_device(config.device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    return distillation_objective(labels, model, config.distill)


class Heard(nn.Module):
    """A model whose last answer is kept, in `answer`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self.answer = torch.empty(0)

    def forward(self, *inputs: Tensor) -> Tensor:
        self.answer = self.model(*inputs)
        return self.answer


def distillation_objective(labels: Objective, teacher: nn.Module, config: DistillConfig) -> Objective:
    """(1 - mix) times what is learnt from `labels`, and mix times what the student's answers lack of the teacher's.

    The latter is T² times the divergence of the student's softened probabilities, softmax(logits / T), from the
    teacher's; T² keeps its gradients as large as those of the labels' loss. In validation only the labels count.
    """
    teacher.eval().requires_grad_(False)

    def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        if not model.training:
            return labels(model, batch)
        student = Heard(model)
        mean, figures = labels(student, batch)
        figures = without_weights(figures)  # the teacher's answers count alike
        with torch.no_grad():
            wanted = F.log_softmax(teacher(*batch[:-1]).float() / config.temperature, dim=1)
        given = F.log_softmax(student.answer.float() / config.temperature, dim=1)
        divergence = F.kl_div(given, wanted, reduction="batchmean", log_target=True) * config.temperature**2
        return torch.lerp(mean, divergence, config.mix), {**figures, "divergence": divergence}

    return objective
