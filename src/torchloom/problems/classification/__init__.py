"""Classification: which of several classes a sample is of.

A network gives logits (B, classes); what makes probabilities of them follows from the loss that trained it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from torchloom.data.targets import Classes
from torchloom.errors import InputError, printable
from torchloom.modalities import Info, check_suits
from torchloom.problems.base import Columns, Figures, Objective, Problem, check_count, run, spread
from torchloom.problems.classification.config import (
    ClassificationTrainConfig,
    ClassifierConfig,
    EvaluateClassifierConfig,
)
from torchloom.system.words import extra, listed

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
    "predictions": "Predictions for some of the test samples; the wrong ones are in red, with the true class.",
    "best_and_worst": "Best and worst: the answers that the model is most sure of, first right ones and then wrong "
    "ones, in red and with the true class.",
    "mistakes": "The wrong answers, the most confident first.",
}
ALL = (  # where there are few
    "Predictions for all test samples: the right answers, the surest first, then the wrong ones likewise, in red and "
    "with the true class."
)
OF_MANY_CLASSES = {  # of which the pictures do not show all
    "confusion_matrix": "The pairs of classes that are most often confused in the test data, and how many samples of "
    "the true class there are.",
    "roc_curves": "ROC curves: each of the hardest classes against the rest, with the area below.",
}


RANKED = {"roc_auc", "average_precision"}  # metrics of the order in which a class and the rest come


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
        from torchloom.problems.class_weights import check_weights
        from torchloom.problems.losses import check_soft_labels

        super().check(config, loaders)
        classes = classes_of(loaders.info)
        if len(classes) < 2:
            raise InputError(f"to classify takes two classes or more, but these data have only {', '.join(classes)}")
        check_weights(config.loss.name, config.loss.arguments, classes)
        if config.monitor in RANKED and len(set(loaders.targets("validation").tolist())) < 2:
            raise InputError(f"train.monitor: {config.monitor} needs a second class in the validation split")
        _check_threshold(config, loaders)
        if loaders.data.augment.mixes:
            check_soft_labels(config.loss.name, config.loss.arguments)

    def settled(self, config: ClassificationTrainConfig, loaders: LoaderPlan) -> ClassificationTrainConfig:
        from torchloom.problems.class_weights import weighted

        loss = weighted(config.loss, classes_of(loaders.info), loaders.learnt)
        return config.model_copy(update={"loss": loss})

    def sizes(self, info: Info) -> dict[str, Any]:
        return {"outputs": len(classes_of(info))}

    def meanings(self, info: Info) -> dict[str, Any]:
        return {"outputs": classes_of(info)}

    def check_answer(self, answer: Any, info: Info) -> None:
        check_count(answer.shape[-1], len(classes_of(info)))

    def objective(self, config: ClassificationTrainConfig, info: Info) -> Objective:
        return classification_objective(config.loss.name, config.loss.arguments)

    def validation(self, config: ClassificationTrainConfig, info: Info) -> Figures:
        from torchloom.problems.classification.metrics import validation_figures
        from torchloom.problems.losses import link_of

        return partial(validation_figures, config.monitor, link_of(config.loss.name))

    def completed(self, checkpoint: Checkpoint, loaders: LoaderPlan, config: ClassificationTrainConfig) -> Checkpoint:
        if config.threshold is None:
            return checkpoint
        threshold = _chosen_threshold(checkpoint, loaders, config)
        return checkpoint.model_copy(update={"training": {**checkpoint.training, "threshold": threshold}})

    def evaluate(
        self,
        checkpoint: Checkpoint,
        loaders: LoaderPlan,
        history: list[dict[str, float]],
        config: EvaluateClassifierConfig,
    ) -> dict[str, Any]:
        """The metrics (flat), a table by class, figures, and the wrong answers as a table, the most confident first."""
        from torchloom.problems.classification import metrics as measures
        from torchloom.problems.evaluation import own_metrics
        from torchloom.problems.losses import classification_loss, scores
        from torchloom.system import figures

        info, classes, link = loaders.info, classes_of(loaders.info), checkpoint.link
        logits, labels = _tested(checkpoint, loaders, config)
        trained_for = classification_loss(*checkpoint.loss)
        threshold = threshold_of(checkpoint.training, classes)
        found = measures.classification_metrics(logits, labels, classes, link, trained_for, threshold)
        metrics, per_class, confusion = found
        metrics |= {"threshold": threshold[1]} if threshold else {}
        metrics |= own_metrics(config.metrics, logits, labels, metrics)
        metrics |= {"epoch": int(checkpoint.training["epoch"]), "test_samples": len(labels)}
        mistakes = measures.worst_mistakes(logits, labels, classes, link=link, threshold=threshold)
        more = info.columns(loaders, [row["test_sample"] for row in mistakes])

        def shown(numbers: list[int]) -> Figure:
            verdicts = measures.verdicts(labels[numbers], logits[numbers], classes, link, threshold)
            return info.predictions(loaders, numbers, verdicts)

        right, wrong = (
            measures.most_confident(logits, labels, side, link, threshold).tolist() for side in (True, False)
        )
        few = len(labels) <= config.pictures
        bins = measures.reliability(logits, labels, link) if link else []
        said = (
            f"; {classes[threshold[0]]!r} is the answer from a probability of {threshold[1]:.4g} on"
            if threshold
            else ""
        )
        logger.info(
            "%s accuracy %.4f, loss %.4f%s", loaders.tested, metrics["accuracy"], metrics["loss"], printable(said)
        )
        if doubt := self.doubt(metrics):
            logger.warning(doubt)
        return {
            "metrics": metrics,
            "per_class": per_class,
            "confusion_matrix": figures.confusion_matrix(confusion, classes),
            "roc_curves": figures.roc_curves(scores(logits, link), labels, classes, measures.hardest(per_class)),
            "calibration": figures.calibration(bins, metrics["calibration_error"]) if bins else b"",
            "learning_curves": figures.learning_curves(history),
            "predictions": shown([*right, *wrong] if few else spread(len(labels), config.pictures)),
            "best_and_worst": b"" if few else shown([*right[:9], *wrong[:9]]),
            "mistakes": [{**row, **columns} for row, columns in zip(mistakes, more, strict=True)],
        }

    def answers_to(
        self, checkpoint: Checkpoint, loaders: LoaderPlan, config: EvaluateClassifierConfig
    ) -> list[Columns]:
        from torchloom.problems.classification.metrics import answered
        from torchloom.problems.losses import scores

        classes, link = classes_of(loaders.info), checkpoint.link
        logits, labels = _tested(checkpoint, loaders, config)
        _, predicted = answered(logits, link, threshold_of(checkpoint.training, classes))
        shares = scores(logits, link).tolist() if link else [[] for _ in labels]
        names = [f"probability_{name}" for name in classes] if link else []
        rows = zip(labels.tolist(), predicted.tolist(), shares, strict=True)
        return [
            {"true": classes[true], "predicted": classes[found], **dict(zip(names, share, strict=True))}
            for true, found, share in rows
        ]

    def label_issues(self, answers: list[Columns], loaders: LoaderPlan) -> list[Columns]:
        names = [f"probability_{name}" for name in classes_of(loaders.info)]
        if not answers or names[0] not in answers[0]:
            return []
        if not find_spec("cleanlab"):
            logger.info("labels that are likely wrong are looked for with the extra: %s", extra("cleanlab"))
            return []
        from torchloom.problems.classification.labels import label_issues

        shares = [[float(row[name]) for name in names] for row in answers]
        found = label_issues(shares, [str(row["true"]) for row in answers], classes_of(loaders.info))
        samples = [int(answers[place]["sample"]) for place, _ in found]
        columns = loaders.info.columns(loaders, samples)
        return [
            {"sample": sample, **row, **{name: value for name, value in more.items() if name not in row}}
            for sample, (_, row), more in zip(samples, found, columns, strict=True)
        ]

    def doubt(self, metrics: Mapping[str, Any]) -> str | None:
        always = metrics.get("accuracy_of_the_commonest", 0.0)
        if metrics["accuracy"] > always:
            return None
        return (
            f"It is right no more often ({metrics['accuracy']:.4f}) than by always answering the commonest class "
            f"({always:.4f}); its balanced accuracy is {metrics['balanced_accuracy']:.4f}."
        )

    def captions(self, made: Mapping[str, Any]) -> Mapping[str, str]:
        from torchloom.problems.classification.metrics import hardest
        from torchloom.system.figures import MATRIX

        per_class = made.get("per_class", {})
        some = {"roc_curves"} if len(hardest(per_class)) < len(per_class) else set()
        some |= {"confusion_matrix"} if len(per_class) > MATRIX else set()
        few = {} if made.get("best_and_worst") else {"predictions": ALL}
        return {**self.reports, **{name: OF_MANY_CLASSES[name] for name in some}, **few}

    # ---- for exported models ---------------------------------------------------------------------------------------

    def described(self, checkpoint: Checkpoint) -> dict[str, Any]:
        from torchloom.problems.class_weights import by_name

        loss = by_name(checkpoint.loss, classes_of(checkpoint.info))
        threshold = checkpoint.training.get("threshold")
        return {"probabilities": checkpoint.link, "loss": loss, **({"threshold": threshold} if threshold else {})}

    def check_exported(self, model: Model) -> None:
        link_of(model)
        threshold_of(model.metadata, classes_of(model.info))
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

    def truth(self, told: Sequence[Any], info: Info) -> Columns:
        import pyarrow

        return {"true": pyarrow.array(told, pyarrow.string())}

    def judged(self, answers: Mapping[str, Sequence[Any]], told: Sequence[Any], info: Info) -> dict[str, float]:
        """Classes that training did not have count as wrong."""
        from torchloom.problems.scores import class_scores

        if unknown := sorted(set(told) - set(classes_of(info))):
            logger.warning("training did not have %s, which count as wrong", listed(list(map(repr, unknown))))
        return class_scores(told, list(answers["class_1"]))

    def verdict(self, row: Mapping[str, Any], told: Any, info: Info) -> tuple[bool, str]:
        return row["class_1"] == told, str(told)

    def caption(self, model: Model, row: dict[str, Any]) -> str:
        return f"{row['class_1']} {row['probability_1']:.0%}" if link_of(model) else str(row["class_1"])

    def said(self, model: Model) -> dict[str, Any]:
        threshold = model.metadata.get("threshold")
        return {"classes": classes_of(model.info), **({"threshold": threshold} if threshold else {})}


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


def threshold_of(said: Mapping[str, Any], classes: list[str]) -> tuple[int, float] | None:
    """The number of a class and the least probability at which it is the answer, if what is said of a model has one.

    ValueError when it is none.
    """
    threshold = said.get("threshold")
    if threshold is None:
        return None
    least = threshold["probability"]
    if len(classes) != 2 or not isinstance(least, float) or not 0 < least < 1:
        raise ValueError(f"threshold {threshold!r}")
    return classes.index(threshold["class"]), least


def _tested(checkpoint: Checkpoint, loaders: LoaderPlan, config: EvaluateClassifierConfig) -> tuple[Tensor, Tensor]:
    """The logits (N, classes) and the labels (N,) of the test split, asked as the block `evaluate` says."""
    from torchloom.problems.evaluation import predict
    from torchloom.system.devices import choose_device, choose_precision

    device = choose_device(config.device)
    asked = loaders.info.asked(loaders.data, config)
    if config.views != "one":
        check_suits("evaluate.views", loaders.info)
    _say_if_other_views(config, checkpoint.info)
    model = asked.viewed(checkpoint.build()).to(device)
    (logits,), labels = predict(model, loaders.loader("test", device), choose_precision(config.precision, device))
    return logits, labels


def _check_threshold(config: ClassificationTrainConfig, loaders: LoaderPlan) -> None:
    from torchloom.problems.losses import link_of

    classes, loss = classes_of(loaders.info), config.loss.name
    if config.threshold is None:
        return
    if len(classes) != 2:
        raise InputError(f"train.threshold: is for two classes, but there are {len(classes)}; leave it out")
    if link_of(loss) is None:
        raise InputError(f"train.threshold: {loss} gives no probabilities to compare; take CrossEntropyLoss")
    if isinstance(config.threshold, str) and len(set(loaders.targets("validation").tolist())) < 2:
        raise InputError(
            f"train.threshold: {config.threshold} needs samples of both classes in the validation split, which has "
            "none of one; give a number, or validate on more"
        )


def _chosen_threshold(checkpoint: Checkpoint, loaders: LoaderPlan, config: ClassificationTrainConfig) -> dict[str, Any]:
    """Of the class that comes up less often in training, of equal ones the second."""
    from torchloom.problems.class_weights import class_counts
    from torchloom.problems.classification.metrics import best_threshold
    from torchloom.problems.evaluation import predict
    from torchloom.problems.losses import scores
    from torchloom.system.devices import choose_device

    classes, least = classes_of(loaders.info), config.threshold
    first, second = class_counts(loaders.learnt(), classes).tolist()
    rare = int(second <= first)
    if isinstance(least, str):
        device = choose_device(config.device)
        model = loaders.info.viewed(checkpoint.build()).to(device)
        (logits,), labels = predict(model, loaders.loader("validation", device))
        least, _ = best_threshold(scores(logits, checkpoint.link)[:, rare], labels == rare, least)
    return {"class": classes[rare], "probability": least}


def _classify(model: Model, top: int, samples: list[Any]) -> Columns:
    places, found = likeliest(model, probabilities(model, samples), top)
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
    return as_probabilities(model, run(model, "logits", samples))


def as_probabilities(model: Model, logits: np.ndarray) -> np.ndarray:
    """(B, classes) float32 from logits (B, classes) of that model."""
    import numpy as np

    if link_of(model) is None:
        return logits
    if link_of(model) == "sigmoid":
        odds: np.ndarray = np.exp(-np.logaddexp(0, -logits))  # no overflow
        return odds
    shares = np.exp(logits - logits.max(1, keepdims=True))
    normalized: np.ndarray = shares / shares.sum(1, keepdims=True)
    return normalized


def likeliest(model: Model, probabilities: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`top_classes` for that model: its threshold decides which of two comes first."""
    import numpy as np

    threshold = threshold_of(model.metadata, classes_of(model.info))
    if threshold is None:
        return top_classes(probabilities, count)
    number, least = threshold
    first = np.where(probabilities[:, number] >= np.float32(least), number, 1 - number)
    places = np.stack([first, 1 - first], 1)[:, :count]
    return places, np.take_along_axis(probabilities, places, axis=1)


def top_classes(probabilities: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` likeliest classes of each row of (B, classes), the likeliest first, and their probabilities."""
    import numpy as np

    places = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    return places, np.take_along_axis(probabilities, places, axis=1)
