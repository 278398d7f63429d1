"""Multilabel classification: which of several labels a sample has, any number of them, or none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from torchloom.data.targets import Labels
from torchloom.errors import InputError
from torchloom.modalities import Info
from torchloom.problems.base import Columns, Figures, Objective, Problem, run, spread
from torchloom.problems.multilabel.config import (
    EvaluateMultilabelConfig,
    MultilabelConfig,
    MultilabelLoss,
    MultilabelTrainConfig,
)
from torchloom.system.words import listed

if TYPE_CHECKING:
    import pyarrow
    from torch import nn

    from torchloom.config import AnswerConfig
    from torchloom.inference.model import Model
    from torchloom.training.checkpoint import Checkpoint
    from torchloom.training.loaders import LoaderPlan

logger = logging.getLogger(__name__)

HOLDING = "labels"  # the column of an answer with those that hold


class Multilabel(Problem):
    """A network gives logits (B, labels), an exported model probabilities; the target is marks (N, labels) uint8."""

    network = MultilabelConfig
    training = MultilabelTrainConfig
    evaluation = EvaluateMultilabelConfig
    target: ClassVar = Labels
    reports: ClassVar = {
        "metrics": "",
        "per_class": "",
        "precision_recall": "Precision over recall: of the hardest labels, with the average precision.",
        "learning_curves": "",
        "predictions": "The labels of some of the test samples; in red where they are wrong, with the true ones.",
        "mistakes": "The test samples with wrong labels, those that are the furthest off first.",
    }
    tag = "classification"
    answers = ("probabilities",)
    card = "templates/multilabel.md"

    def called(self, info: Info) -> str:
        return f"{info.tag} multilabel classification"

    def check(self, config: MultilabelTrainConfig, loaders: LoaderPlan) -> None:
        from torchloom.problems.class_weights import check_weights

        super().check(config, loaders)
        check_weights(config.loss.name, config.loss.arguments, labels_of(loaders.info).labels, "labels")
        if config.threshold != "validation" and config.loss.name == "MultiLabelMarginLoss":
            raise InputError(
                "train.threshold: MultiLabelMarginLoss puts labels in an order, and no number says where those end "
                "that hold. Take validation, which chooses it for each label"
            )
        if config.threshold == "validation" and not loaders.length("validation"):
            raise InputError(
                "train.threshold: validation needs a validation split (preprocess.validation_fraction above 0). Give a "
                "number such as 0.5 without one"
            )

    def settled(self, config: MultilabelTrainConfig, loaders: LoaderPlan) -> MultilabelTrainConfig:
        """With a weight for each label, in order."""
        from torchloom.problems.class_weights import weighted

        loss = weighted(config.loss, labels_of(loaders.info).labels, loaders.learnt)
        return config.model_copy(update={"loss": loss})

    def sizes(self, info: Info) -> dict[str, Any]:
        return {"outputs": len(labels_of(info).labels)}

    def meanings(self, info: Info) -> dict[str, Any]:
        return {"outputs": labels_of(info).labels}

    def objective(self, config: MultilabelTrainConfig, info: Info) -> Objective:
        from torchloom.problems.losses import label_loss
        from torchloom.problems.multilabel.metrics import label_objective

        return label_objective(label_loss(config.loss.name, config.loss.arguments))

    def validation(self, config: MultilabelTrainConfig, info: Info) -> Figures:
        from torchloom.problems.multilabel.metrics import validation_figures

        return partial(validation_figures, config.monitor)

    def completed(self, checkpoint: Checkpoint, loaders: LoaderPlan, config: MultilabelTrainConfig) -> Checkpoint:
        """With the threshold of each label."""
        target = labels_of(checkpoint.info)
        if config.threshold == "validation":
            found = _chosen(checkpoint, loaders, config)
        else:
            found = [config.threshold] * len(target.labels)
        info = checkpoint.info.model_copy(update={"target": target.model_copy(update={"thresholds": found})})
        return checkpoint.model_copy(update={"info": info})

    def evaluate(
        self,
        checkpoint: Checkpoint,
        loaders: LoaderPlan,
        history: list[dict[str, float]],
        config: EvaluateMultilabelConfig,
    ) -> dict[str, Any]:
        """The metrics (flat), a table by label, figures, and the samples with wrong labels."""
        import torch

        from torchloom.problems.classification.metrics import hardest
        from torchloom.problems.evaluation import own_metrics, predict
        from torchloom.problems.losses import label_loss
        from torchloom.problems.multilabel.metrics import worst
        from torchloom.problems.scores import label_scores
        from torchloom.system import figures
        from torchloom.system.devices import choose_device, choose_precision

        info, target = loaders.info, labels_of(checkpoint.info)
        device = choose_device(config.device)
        model = checkpoint.build().to(device)
        (logits,), marks = predict(model, loaders.loader("test", device), choose_precision(config.precision, device))
        probabilities = logits.sigmoid()
        metrics, rows = label_scores(marks.numpy(), probabilities.numpy(), target.least)
        per_class = dict(zip(target.labels, rows, strict=True))
        trained_for = label_loss(*checkpoint.loss)
        with torch.no_grad():
            metrics["loss"] = float(trained_for(logits, marks.float()))
        if marks.any():  # an order by chance has the share of the samples that have it
            metrics["mean_average_precision_of_chance"] = float(marks.float().mean(0)[marks.bool().any(0)].mean())
        metrics |= own_metrics(config.metrics, logits, marks, metrics)
        metrics |= {"epoch": int(checkpoint.training["epoch"]), "test_samples": len(marks)}
        wrong = worst(marks, probabilities, torch.tensor(target.least))
        some = spread(len(marks), config.pictures)
        verdicts = [_verdict(target, marks[place].numpy(), probabilities[place].numpy()) for place in some]
        logger.info(
            "%s macro F1 %.4f, all labels right %.4f",
            *(loaders.tested, metrics.get("macro_f1", 0.0), metrics["subset_accuracy"]),
        )
        if doubt := self.doubt(metrics):
            logger.warning(doubt)
        return {
            "metrics": metrics,
            "per_class": per_class,
            "precision_recall": figures.precision_recall(
                probabilities.numpy(), marks.numpy(), target.labels, hardest(per_class)
            ),
            "learning_curves": figures.learning_curves(history),
            "predictions": info.predictions(loaders, some, verdicts),
            "mistakes": [
                {
                    "test_sample": place,
                    "true": ", ".join(_holding(target, marks[place].numpy() > 0)),
                    "predicted": ", ".join(_holding(target, _holds(target, probabilities[place].numpy()))),
                    **columns,
                }
                for place, columns in zip(wrong, info.columns(loaders, wrong), strict=True)
            ],
        }

    def doubt(self, metrics: Mapping[str, Any]) -> str | None:
        found, chance = (metrics.get(f"mean_average_precision{of}", 1.0) for of in ("", "_of_chance"))
        if found <= chance < 1:
            return f"It tells labels no better (mean average precision {found:.4f}) than chance does ({chance:.4f})."
        if chance < 1 and not metrics.get("micro_f1"):
            return (
                "No label is answered where it holds. Take train.threshold: validation, or loss.pos_weight: balanced."
            )
        return None

    def answers_to(
        self, checkpoint: Checkpoint, loaders: LoaderPlan, config: EvaluateMultilabelConfig
    ) -> list[Columns]:
        from torchloom.problems.evaluation import predict
        from torchloom.system.devices import choose_device, choose_precision

        target, device = labels_of(checkpoint.info), choose_device(config.device)
        model, precision = checkpoint.build().to(device), choose_precision(config.precision, device)
        (logits,), marks = predict(model, loaders.loader("test", device), precision)
        mark, named = target.separator or ";", _columns(target.labels, _link(checkpoint))
        rows = []
        for truth, shares in zip(marks.numpy() > 0, logits.sigmoid().numpy(), strict=True):
            said = {"true": truth, "predicted": _holds(target, shares)}
            names = zip(named, shares.tolist(), strict=True)
            rows.append({name: mark.join(_holding(target, held)) for name, held in said.items()} | dict(names))
        return rows

    # ---- for exported models ---------------------------------------------------------------------------------------

    def exported(self, model: nn.Module) -> nn.Module:
        from torchloom.problems.multilabel.metrics import Probabilities

        return Probabilities(model)

    def described(self, checkpoint: Checkpoint) -> dict[str, Any]:
        from torchloom.problems.class_weights import by_name

        loss = by_name(checkpoint.loss, labels_of(checkpoint.info).labels)
        return {"probabilities": _link(checkpoint), "loss": loss}

    def check_exported(self, model: Model) -> None:
        target, given = labels_of(model.info), model.session.get_outputs()[0].shape[-1]
        if not len(target.labels) == len(target.least) == given:
            raise ValueError(f"{len(target.labels)} labels, {given} probabilities")

    def answering(self, model: Model, config: AnswerConfig) -> tuple[pyarrow.Schema, Callable[[list[Any]], Columns]]:
        """The labels that hold, and the probability of each."""
        import pyarrow

        names = _columns(labels_of(model.info).labels, model.metadata.get("probabilities", "sigmoid"))
        columns = {HOLDING: pyarrow.string(), **dict.fromkeys(names, pyarrow.float32())}
        return pyarrow.schema(columns), partial(_label, model)

    def truth(self, told: Sequence[Any], info: Info) -> Columns:
        """In the order of the labels, those that training did not have last."""
        import pyarrow

        target = labels_of(info)
        order = {name: place for place, name in enumerate(target.labels)}
        mark = target.separator or ";"
        cells = [held and sorted(held, key=lambda name: (order.get(name, len(order)), name)) for held in told]
        return {"true": pyarrow.array([None if each is None else mark.join(each) for each in cells], pyarrow.string())}

    def judged(self, answers: Mapping[str, Sequence[Any]], told: Sequence[Any], info: Info) -> dict[str, float]:
        """Labels that training did not have are left out, as in the test split."""
        from torchloom.problems.scores import label_scores

        target = labels_of(info)
        if unknown := sorted(set().union(*told) - set(target.labels)):
            logger.warning("training did not have %s, without which it is judged", listed(list(map(repr, unknown))))
        truth = np.array([[name in held for name in target.labels] for held in told])
        links = ("sigmoid", None)
        named = next(names for link in links if (names := _columns(target.labels, link))[0] in answers)
        probabilities = np.column_stack([np.asarray(answers[name]) for name in named])
        return label_scores(truth, probabilities, target.least)[0]

    def verdict(self, row: Mapping[str, Any], told: Any, info: Info) -> tuple[bool, str]:
        """Labels that training did not have are left out."""
        target = labels_of(info)
        held = [name for name in target.labels if name in told]
        return row[HOLDING] == (target.separator or ";").join(held), ", ".join(held) or "none"

    def caption(self, model: Model, row: dict[str, Any]) -> str:
        return str(row[HOLDING]) or "none"

    def said(self, model: Model) -> dict[str, Any]:
        target = labels_of(model.info)
        return {"labels": target.labels, "thresholds": target.least}


PROBLEM = Multilabel


def labels_of(info: Info) -> Labels:
    """What is to be told; InputError when the data have no labels for that."""
    if not isinstance(info.target, Labels):
        raise InputError(f"these data are of the kind {info.kind!r}, without labels of which several may hold")
    return info.target


def _chosen(checkpoint: Checkpoint, loaders: LoaderPlan, config: MultilabelTrainConfig) -> list[float]:
    """The threshold of each label that is the best on the validation data."""
    from torchloom.problems.evaluation import predict
    from torchloom.problems.scores import best_thresholds
    from torchloom.system.devices import choose_device

    device = choose_device(config.device)
    (logits,), marks = predict(checkpoint.build().to(device), loaders.loader("validation", device))
    return best_thresholds(marks.numpy(), logits.sigmoid().numpy())


def _holds(target: Labels, probabilities: np.ndarray) -> np.ndarray:
    """Whether each label holds, by probabilities (…, K) float32."""
    return probabilities >= np.asarray(target.least, dtype=probabilities.dtype)


def _holding(target: Labels, marks: np.ndarray) -> list[str]:
    return [name for name, holds in zip(target.labels, marks.tolist(), strict=True) if holds]


def _verdict(target: Labels, marks: np.ndarray, probabilities: np.ndarray) -> tuple[str, bool]:
    """What to write beside a sample, and whether that is right."""
    found, truth = _holding(target, _holds(target, probabilities)), _holding(target, marks > 0)
    said = ", ".join(found) or "none"
    return (said, True) if found == truth else (f"✗ {said}\nis {', '.join(truth) or 'none'}", False)


def _columns(labels: Sequence[str], link: str | None) -> list[str]:
    """What stands above the sigmoid of each label's logit, which only by a link is a probability."""
    return [f"{'probability' if link else 'score'}_{name}" for name in labels]


def _link(checkpoint: Checkpoint) -> str | None:
    from torchloom.problems.losses import link_of

    name, _ = checkpoint.loss
    return link_of(name, "labels") if name in MultilabelLoss.suitable else "sigmoid"


def _label(model: Model, samples: list[Any]) -> Columns:
    target, found = labels_of(model.info), run(model, "probabilities", samples)
    mark = target.separator or ";"
    holding = [mark.join(_holding(target, marks)) for marks in _holds(target, found)]
    named = _columns(target.labels, model.metadata.get("probabilities", "sigmoid"))
    return {HOLDING: holding, **dict(zip(named, found.T, strict=True))}
