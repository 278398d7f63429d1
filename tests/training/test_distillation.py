"""A student that learns from a teacher."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.stages import CLASSIFICATION
from torchloom.compression.distillation import distillation_objective
from torchloom.config import DataConfig, DebuggingConfig, DistillConfig, DistributedConfig
from torchloom.data.targets import Classes
from torchloom.data.text import Tokenizer
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.modalities import AnyInfo, DocumentInfo, ImageInfo
from torchloom.models import build_model
from torchloom.pipelines.distillation import nodes
from torchloom.pipelines.training.nodes import Trained
from torchloom.problems.base import WEIGHT
from torchloom.problems.classification import classification_objective
from torchloom.problems.classification.config import ClassifierConfig, DistilledTrainConfig
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan, TensorFile
from torchloom.training.state import TrainingStates

INPUTS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1])
INFO = ImageInfo(target=Classes(classes=["a", "b"]), shape=[1, 4, 4], mean=[0.5], std=[0.5])

train = partial(nodes.train, problem=CLASSIFICATION)
LABELS_ONLY = classification_objective("CrossEntropyLoss", {})


def both(**settings: float) -> tuple[nn.Module, nn.Module, Tensor, dict[str, Tensor]]:
    """Student, teacher, and what the objective says of a batch in training."""
    student, teacher = nn.Linear(4, 3), nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3))
    objective = distillation_objective(LABELS_ONLY, teacher, DistillConfig(**settings))
    return student, teacher, *objective(student.train(), (INPUTS, LABELS))


def test_it_is_the_loss_of_hinton_and_others() -> None:
    student, teacher, loss, figures = both(temperature=3.0, mix=0.7)
    logits, wanted = student(INPUTS), teacher(INPUTS)
    soft = (wanted / 3).softmax(1)
    divergence = (soft * (soft.log() - (logits / 3).log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(figures["divergence"], 9 * divergence)
    torch.testing.assert_close(loss, 0.3 * F.cross_entropy(logits, LABELS) + 0.7 * 9 * divergence)
    assert figures["accuracy"] == (logits.argmax(1) == LABELS).float().mean()


def test_without_the_teacher_it_is_the_plain_loss() -> None:
    student, _, loss, _ = both(mix=0.0)
    torch.testing.assert_close(loss, F.cross_entropy(student(INPUTS), LABELS))


def test_what_is_learnt_from_labels_is_up_to_the_problem() -> None:
    def labels(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        assert model.training
        answers = model(*batch[:-1])
        return 7 + 0 * answers.sum(), {"right": answers.sum(), WEIGHT: torch.tensor(3.0)}

    student = nn.Linear(4, 3)
    objective = distillation_objective(labels, nn.Linear(4, 3), DistillConfig(mix=0.25))
    loss, figures = objective(student.train(), (INPUTS, LABELS))
    torch.testing.assert_close(loss, 0.75 * 7 + 0.25 * figures["divergence"])
    assert figures.keys() == {"right", "divergence"}  # all samples count alike, as those of the teacher do
    assert figures["right"] == student(INPUTS).sum()


def test_only_the_student_learns() -> None:
    student, teacher, loss, _ = both()
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not teacher.training


def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn() -> None:
    teacher = nn.Linear(4, 3)
    objective = distillation_objective(LABELS_ONLY, teacher, DistillConfig(mix=1.0))
    student = nn.Linear(4, 3)
    student.load_state_dict(teacher.state_dict())
    loss, _ = objective(student.train(), (INPUTS, LABELS))
    assert abs(loss.item()) < 1e-6


def test_validation_goes_by_the_labels() -> None:
    student, _, _, _ = both()
    objective = distillation_objective(LABELS_ONLY, nn.Linear(4, 3), DistillConfig(mix=0.9))
    loss, figures = objective(student.eval(), (INPUTS, LABELS))
    torch.testing.assert_close(loss, F.cross_entropy(student(INPUTS), LABELS))
    assert figures.keys() == {"accuracy"}


def taught(seed: int) -> Checkpoint:
    torch.manual_seed(seed)
    weights = build_model("mlp", {"hidden": []}, INFO, CLASSIFICATION).state_dict()
    return Checkpoint(
        network="mlp", arguments={"hidden": []}, problem="classification", info=INFO, training={}, weights=weights
    )


def test_a_student_does_not_go_on_under_another_teacher(tmp_path: Path) -> None:
    dataset = TensorsDataset(filepath=str(tmp_path / "train.safetensors"))
    dataset.save(Tensors({"images": np.zeros((8, 4, 4, 1), np.uint8), "labels": np.arange(8) % 2}))
    tensors = dataset.load()
    file = TensorFile(path=tmp_path / "train.safetensors", fingerprint=tensors.fingerprint or "", length=8)
    plan = LoaderPlan(
        splits={"train": [file], "validation": [], "test": []}, info=INFO, data=DataConfig(), batch_size=2, seed=0
    )
    block = {
        "epochs": 2,
        "batch_size": 2,
        "optimizer": {"name": "SGD", "lr": 0.1},
        "device": "cpu",
        "save_minutes": 1e-9,
    }
    config = DistilledTrainConfig.model_validate(block)
    network = ClassifierConfig.model_validate({"name": "mlp", "hidden": []})
    states = TrainingStates(tmp_path / "states")

    def learn(teacher: Checkpoint) -> Trained:
        return train(plan, network, config, DistributedConfig(), DebuggingConfig(), states, teacher)

    first = learn(taught(0))
    assert states.files()
    again = learn(taught(0))  # goes on from the last state, to the same end
    assert torch.equal(first.last.weights["network.1.weight"], again.last.weights["network.1.weight"])
    with pytest.raises(InputError, match=r"it had another recipe:\n  teacher: "):
        learn(taught(1))
    assert "changes" not in again.last.training
    config = config.model_copy(update={"l2": 0.5, "resume": "must"})
    assert learn(taught(0)).last.training["changes"] == ["from epoch 2 on, train.l2: 0.0, now 0.5"]


def taught_by(teacher: Checkpoint, states: Path, info: AnyInfo = INFO) -> None:
    plan = LoaderPlan(
        splits={"train": [], "validation": [], "test": []}, info=info, data=DataConfig(), batch_size=2, seed=0
    )
    config = DistilledTrainConfig.model_validate({"epochs": 1, "optimizer": {"name": "SGD"}})
    network = ClassifierConfig.model_validate({"name": "mlp", "hidden": []})
    train(plan, network, config, DistributedConfig(), DebuggingConfig(), TrainingStates(states), teacher)


def teacher_of(info: ImageInfo, training: dict[str, Any]) -> Checkpoint:
    weights = build_model("mlp", {"hidden": []}, info, CLASSIFICATION).state_dict()
    return Checkpoint(
        network="mlp", arguments={"hidden": []}, problem="classification", info=info, training=training, weights=weights
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"target": Classes(classes=["a", "c"])}, "classes a, c"),
        ({"target": Classes(classes=list("abc"))}, "a, b, c"),
        ({"shape": [1, 8, 8]}, "8, 8"),
    ],
)
def test_a_teacher_of_other_things(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=f"the teacher, mlp, was trained for other data.*{named}"):
        taught_by(teacher_of(INFO.model_copy(update=change), {}), tmp_path)


def test_a_teacher_of_another_vocabulary_of_the_same_size(tmp_path: Path) -> None:
    info, other = (
        DocumentInfo(
            target=Classes(classes=["a", "b"]), tokenizer=Tokenizer(kind="words", vocabulary=["<pad>", "<unk>", *words])
        )
        for words in (["good", "bad"], ["bad", "good"])
    )
    teacher = Checkpoint(
        network="text_rnn", arguments={}, problem="classification", info=other, training={}, weights={}
    )
    with pytest.raises(InputError, match=r"^the teacher, text_rnn, was trained with another vocabulary, "):
        taught_by(teacher, tmp_path, info)


@pytest.mark.parametrize("loss", ["MSELoss", "BCEWithLogitsLoss"])
def test_a_teacher_without_probabilities_of_classes(tmp_path: Path, loss: str) -> None:
    with pytest.raises(InputError, match=f"the teacher, mlp, was trained with {loss}, which gives no probabilities"):
        taught_by(teacher_of(INFO, {"parameters": {"loss": {"name": loss}}}), tmp_path)
