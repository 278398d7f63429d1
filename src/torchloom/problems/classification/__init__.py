"""Classification: which of several classes a sample is of.

A network gives logits (B, classes); what makes probabilities of them follows from the loss that trained it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torchloom.data.targets import Classes
from torchloom.errors import InputError
from torchloom.modalities import Info, check_suits
from torchloom.problems.base import Columns, Objective, Problem, run
from torchloom.problems.classification.config import (
    ClassificationTrainConfig,
    ClassifierConfig,
    EvaluateClassifierConfig,
)
from torchloom.system.words import listed

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from torchloom.config import AnswerConfig
    from torchloom.inference.model import Model
    from torchloom.training.checkpoint import Checkpoint
    from torchloom.training.loaders import LoaderPlan

logger = logging.getLogger(__name__)

REPORTS = {
    "metrics": "",
    "per_class": "",
    "confusion_matrix": "Confusion matrix of the test data: true classes down, predicted classes across.",
    "roc_curves": "ROC curves: each class against the rest, with the area below.",
    "calibration": "Calibration: how often answers are right, by how confident the model is; below, how many.",
    "learning_curves": "",
    "predictions": "Predictions for the first test samples; the wrong ones are in red, with the true class.",
    "best_and_worst": "Best and worst: the answers that the model is most sure of, first right ones and then wrong "
    "ones, in red and with the true class.",
    "mistakes": "The wrong answers, the most confident first.",
}
OF_MANY_CLASSES = {  # of which the pictures do not show all
    "confusion_matrix": "The pairs of classes that are most often confused in the test data, and how many samples of "
    "the true class there are.",
    "roc_curves": "ROC curves: each of the hardest classes against the rest, with the area below.",
}


class Classification(Problem):
    network = ClassifierConfig
    training = ClassificationTrainConfig
    evaluation = EvaluateClassifierConfig
    target: ClassVar = Classes
    array = "labels"
    reports = REPORTS
    tag = "classification"
    answers = ("logits",)
    card = "templates/classification.md"

    def check(self, config: ClassificationTrainConfig, loaders: LoaderPlan) -> None:
        from torchloom.problems.losses import check_soft_labels, check_weights

        super().check(config, loaders)
        classes = classes_of(loaders.info)
        if len(classes) < 2:
            raise InputError(f"to classify takes two classes or more, but these data have only {', '.join(classes)}")
        check_weights(config.loss.name, config.loss.arguments, classes)
        if loaders.data.augment.mixes:
            check_soft_labels(config.loss.name, config.loss.arguments)

    def sizes(self, info: Info) -> dict[str, Any]:
        return {"outputs": len(classes_of(info))}

    def meanings(self, info: Info) -> dict[str, Any]:
        return {"outputs": classes_of(info)}

    def objective(self, config: ClassificationTrainConfig, info: Info) -> Objective:
        return classification_objective(config.loss.name, config.loss.arguments)

    def evaluate(
        self,
        checkpoint: Checkpoint,
        loaders: LoaderPlan,
        history: list[dict[str, float]],
        config: EvaluateClassifierConfig,
    ) -> dict[str, Any]:
        """The metrics (flat), a table by class, figures, and the wrong answers as a table, the most confident first."""
        from torchloom.problems.classification import metrics as measures
        from torchloom.problems.evaluation import own_metrics, predict
        from torchloom.problems.losses import classification_loss, scores
        from torchloom.system import figures
        from torchloom.system.devices import choose_device, choose_precision

        info, classes, link = loaders.info, classes_of(loaders.info), checkpoint.link
        device = choose_device(config.device)
        asked = info.asked(loaders.data, config)
        if config.views != "one":
            check_suits("evaluate.views", info)
        _say_if_other_views(config, checkpoint.info)
        model = asked.viewed(checkpoint.build()).to(device)
        (logits,), labels = predict(model, loaders.loader("test", device), choose_precision(config.precision, device))
        loss, arguments = checkpoint.loss
        trained_for = classification_loss(loss, arguments)
        metrics, per_class, confusion = measures.classification_metrics(logits, labels, classes, link, trained_for)
        metrics |= own_metrics(config.metrics, logits, labels, metrics)
        metrics |= {"epoch": int(checkpoint.training["epoch"]), "test_samples": len(labels)}
        mistakes = measures.worst_mistakes(logits, labels, classes, link=link)
        more = info.columns(loaders, [row["test_sample"] for row in mistakes])

        def shown(numbers: list[int]) -> Figure:
            verdicts = measures.verdicts(labels[numbers], logits[numbers], classes, link)
            return info.predictions(loaders, numbers, verdicts)

        sides = [measures.most_confident(logits, labels, right, link)[:9].tolist() for right in (True, False)]
        calibration = figures.nothing(f"{loss} gives no probabilities, and so nothing to calibrate")
        if link:
            calibration = figures.calibration(measures.reliability(logits, labels, link), metrics["calibration_error"])
        logger.info("test accuracy %.4f, loss %.4f", metrics["accuracy"], metrics["loss"])
        return {
            "metrics": metrics,
            "per_class": per_class,
            "confusion_matrix": figures.confusion_matrix(confusion, classes),
            "roc_curves": figures.roc_curves(scores(logits, link), labels, classes, measures.hardest(per_class)),
            "calibration": calibration,
            "learning_curves": figures.learning_curves(history),
            "predictions": shown(list(range(min(config.pictures, len(labels))))),
            "best_and_worst": shown([*sides[0], *sides[1]]),
            "mistakes": [{**row, **columns} for row, columns in zip(mistakes, more, strict=True)],
        }

    def captions(self, made: Mapping[str, Any]) -> Mapping[str, str]:
        from torchloom.problems.classification.metrics import hardest
        from torchloom.system.figures import MATRIX

        per_class = made.get("per_class", {})
        some = {"roc_curves"} if len(hardest(per_class)) < len(per_class) else set()
        some |= {"confusion_matrix"} if len(per_class) > MATRIX else set()
        return {**self.reports, **{name: OF_MANY_CLASSES[name] for name in some}}

    # ---- for exported models ---------------------------------------------------------------------------------------

    def described(self, checkpoint: Checkpoint) -> dict[str, Any]:
        return {"probabilities": checkpoint.link}

    def check_exported(self, model: Model) -> None:
        link_of(model)
        classes, logits = len(classes_of(model.info)), model.session.get_outputs()[0].shape[-1]
        if classes != logits:
            raise ValueError(f"{classes} classes, {logits} logits")

    def answering(self, model: Model, config: AnswerConfig) -> tuple[pyarrow.Schema, Callable[[list[Any]], Columns]]:
        """The likeliest classes, with their probabilities if it has any."""
        import pyarrow

        top = min(config.top, len(classes_of(model.info)))
        columns: dict[str, Any] = {}
        for place in range(1, top + 1):
            columns[f"class_{place}"] = pyarrow.string()
            if link_of(model):
                columns[f"probability_{place}"] = pyarrow.float32()
        return pyarrow.schema(columns), partial(_classify, model, top)

    def judged(self, answers: Mapping[str, Sequence[Any]], told: Sequence[Any], info: Info) -> dict[str, float]:
        """Classes that training did not have count as wrong."""
        from torchloom.problems.scores import class_scores

        if unknown := sorted(set(told) - set(classes_of(info))):
            logger.warning("training did not have %s, which count as wrong", listed(list(map(repr, unknown))))
        return class_scores(told, list(answers["class_1"]))

    def caption(self, model: Model, row: dict[str, Any]) -> str:
        return f"{row['class_1']} {row['probability_1']:.0%}" if link_of(model) else str(row["class_1"])

    def said(self, model: Model) -> dict[str, Any]:
        return {"classes": classes_of(model.info)}


PROBLEM = Classification


def classes_of(info: Info) -> list[str]:
    """The names of the classes; InputError when the data have none."""
    if not isinstance(info.target, Classes):
        raise InputError(f"these data are of the kind {info.kind!r}, without classes")
    return info.target.classes


def check_classifier(base: Checkpoint) -> None:
    """InputError unless another task's model tells classes apart, as what is made of it is measured by that."""
    from torchloom.problems import problem_of

    if not isinstance(problem_of(base.problem), Classification):
        raise InputError(
            "this kind of task starts from a classifier, but the one that its block task names has the network "
            f"{base.network}, which tells no classes apart"
        )


def classification_objective(name: str, arguments: dict[str, Any]) -> Objective:
    """What a classifier is trained for: a model and a batch (inputs …, labels) -> mean loss, and the accuracy."""
    from torchloom.problems.losses import accuracy, answer_by_answer, weighed_loss

    loss = weighed_loss(name, arguments)

    def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        *inputs, labels = batch
        logits, labels = answer_by_answer(model(*inputs), labels, dimensions=2)
        mean, weight = loss(logits, labels)
        return mean, {"accuracy": accuracy(logits, labels), **weight}

    return objective


def _say_if_other_views(config: EvaluateClassifierConfig, trained: Info) -> None:
    known = getattr(trained, "views", None)
    if isinstance(known, str) and known != config.views:
        logger.warning(
            "evaluate.views is %s, but the model was trained to be asked with %s, as predict and serve do unless their "
            "views say otherwise. Run from build_dataloaders on, to have them alike",
            config.views,
            known,
        )


def link_of(model: Model) -> str | None:
    """What makes probabilities of an exported model's logits: softmax, sigmoid, or nothing."""
    link = model.metadata.get("probabilities", "softmax")
    if link not in {"softmax", "sigmoid", None}:
        raise ValueError(f"probabilities {link!r}")
    return link  # type: ignore[no-any-return]


def _classify(model: Model, top: int, samples: list[Any]) -> Columns:
    places, found = top_classes(probabilities(model, samples), top)
    columns: Columns = {}
    for column in range(top):
        columns[f"class_{column + 1}"] = [classes_of(model.info)[place] for place in places[:, column]]
        if link_of(model):
            columns[f"probability_{column + 1}"] = found[:, column]
    return columns


def probabilities(model: Model, samples: list[Any]) -> np.ndarray:
    """(B, classes) float32 for samples that the modality's reader has read.

    Without a link they are the logits themselves, which say no more than an order.
    """
    import numpy as np

    logits = run(model, "logits", samples)
    if link_of(model) is None:
        return logits
    if link_of(model) == "sigmoid":
        odds: np.ndarray = np.exp(-np.logaddexp(0, -logits))  # no overflow
        return odds
    shares = np.exp(logits - logits.max(1, keepdims=True))
    normalized: np.ndarray = shares / shares.sum(1, keepdims=True)
    return normalized


def top_classes(probabilities: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` likeliest classes of each row of (B, classes), the likeliest first, and their probabilities."""
    import numpy as np

    places = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    return places, np.take_along_axis(probabilities, places, axis=1)
