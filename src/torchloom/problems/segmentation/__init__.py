"""Segmentation: which of several classes each pixel of a picture is of."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torchloom.config import own
from torchloom.data.targets import IGNORED, Classes
from torchloom.errors import InputError
from torchloom.modalities import ImageInfo, Info
from torchloom.problems.base import Columns, Figures, Objective, Problem, check_count, spread
from torchloom.problems.segmentation.config import EvaluateSegmenterConfig, SegmentationTrainConfig, SegmenterConfig
from torchloom.system.words import counted

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

HEADINGS = ("picture", "mask", "answer", "wrong")
ALL = (
    "All test images, from the greatest mean IoU to the least: as they are, with their masks, with what the model "
    "makes of them, and what of that is wrong, in red."
)
SIDE = 4  # of the best pictures, and of the worst, that are shown


class Segmentation(Problem):
    """A network gives logits (B, classes, H, W); the target is masks (N, H, W) uint8 of the numbers of classes.

    Pixels that are IGNORED there are neither learnt nor judged.
    """

    network = SegmenterConfig
    training = SegmentationTrainConfig
    evaluation = EvaluateSegmenterConfig
    modalities: ClassVar = (ImageInfo,)
    target: ClassVar = Classes
    array = "masks"
    reports: ClassVar = {
        "metrics": "",
        "per_class": "",
        "confusion_matrix": "Confusion matrix of the test pixels: true classes down, predicted classes across.",
        "learning_curves": "",
        "predictions": "Test images, from the first to the last: as they are, with their masks, with what the model "
        "makes of them, and what of that is wrong, in red.",
        "best_and_worst": "Best and worst: the same of the test images with the greatest mean IoU, then of those with "
        "the least.",
    }
    tag = "segmentation"
    answers = ("maps",)
    pictures = "mask_png"
    card = "templates/segmentation.md"

    def check(self, config: SegmentationTrainConfig, loaders: LoaderPlan) -> None:
        from torchloom.problems.class_weights import check_weights

        super().check(config, loaders)
        check_weights(config.loss.name, config.loss.arguments, _classes(loaders.info))
        augment = loaders.data.augment
        if named := [key for key in ("policy", "mixup", "cutmix", "per_sample") if getattr(augment, key)]:
            raise InputError(f"data.augment.{named[0]}: changes pictures and not their masks; leave it out")

    def settled(self, config: SegmentationTrainConfig, loaders: LoaderPlan) -> SegmentationTrainConfig:
        from torchloom.problems.class_weights import weighted

        return config.model_copy(update={"loss": weighted(config.loss, _classes(loaders.info), loaders.learnt)})

    def sizes(self, info: Info) -> dict[str, Any]:
        return {"maps": len(_classes(info))}

    def meanings(self, info: Info) -> dict[str, Any]:
        return {"maps": _classes(info)}

    def check_answer(self, answer: Any, info: Info) -> None:
        check_count(answer.shape[1], len(_classes(info)))

    def objective(self, config: SegmentationTrainConfig, info: Info) -> Objective:
        from torchloom.problems.losses import accuracy, weighed_loss

        ignored = None if own.is_path(config.loss.name) else config.loss.arguments.get("ignore_index")
        loss = weighed_loss(config.loss.name, config.loss.arguments, IGNORED)

        def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
            images, masks = batch
            logits = model(images).permute(0, 2, 3, 1).flatten(0, 2)  # (B H W, classes)
            labels = masks.flatten().long()
            mean, weight = loss(logits, labels)
            known = (labels != IGNORED) & (labels != ignored)
            return mean, {"accuracy": accuracy(logits, labels, known), **weight}

        return objective

    def validation(self, config: SegmentationTrainConfig, info: Info) -> Figures:
        from torchloom.problems.segmentation.metrics import mean_iou

        return lambda counts, _: {"mean_iou": mean_iou(counts.sum(0))}

    def kept(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Counts of pixels (1, classes, classes): all maps would not fit into the memory."""
        from torchloom.problems.segmentation.metrics import pixel_counts

        counts = pixel_counts(targets, outputs.argmax(1), outputs.shape[1])
        return counts[None], counts[:0]

    def evaluate(
        self,
        checkpoint: Checkpoint,
        loaders: LoaderPlan,
        history: list[dict[str, float]],
        config: EvaluateSegmenterConfig,
    ) -> dict[str, Any]:
        """The metrics over all pixels, a table by class, and figures."""
        import torch

        from torchloom.problems.segmentation.metrics import answers, segmentation_metrics
        from torchloom.system import figures
        from torchloom.system.devices import choose_device

        device, classes = choose_device(config.device), _classes(loaders.info)
        model = checkpoint.build().to(device)
        found = answers(model, loaders.loader("test", device), len(classes))
        metrics, per_class = segmentation_metrics(found.pixels, found.boundaries, classes)
        metrics |= {"epoch": int(checkpoint.training["epoch"]), "test_samples": len(found.ious)}
        if doubt := self.doubt(metrics):
            logger.warning(doubt)
        logger.info("%s mean IoU %.4f, pixel accuracy %.4f", loaders.tested, metrics["mean_iou"], metrics["accuracy"])

        def shown(numbers: list[int]) -> Figure:
            images, masks = loaders.chosen("test", numbers)
            with torch.no_grad():
                answer = model(images.to(device)).argmax(1).cpu().numpy()
            titles = [f"test sample {number}, mean IoU {found.ious[number]:.3f}" for number in numbers]
            return _sheet(images.numpy(), masks.numpy(), answer, titles, classes)

        order = found.ious.argsort(descending=True, stable=True).tolist()
        few = min(config.pictures, 2 * SIDE)
        extremes = [*order[:SIDE], *order[SIDE:][-SIDE:]]
        return {
            "metrics": metrics,
            "per_class": per_class,
            "confusion_matrix": figures.confusion_matrix(found.pixels, classes),
            "learning_curves": figures.learning_curves(history),
            "predictions": shown(order if len(order) <= few else spread(len(order), few)),
            "best_and_worst": shown(extremes) if len(order) > few else b"",
        }

    def captions(self, made: Mapping[str, Any]) -> Mapping[str, str | None]:
        return self.reports if made.get("best_and_worst") else {**self.reports, "predictions": ALL}

    # ---- for exported models ---------------------------------------------------------------------------------------

    def described(self, checkpoint: Checkpoint) -> dict[str, Any]:
        from torchloom.problems.class_weights import by_name

        return {"loss": by_name(checkpoint.loss, _classes(checkpoint.info))}

    def check_exported(self, model: Model) -> None:
        classes, maps = len(_classes(model.info)), model.session.get_outputs()[0].shape[1]
        if classes != maps:
            raise ValueError(f"{classes} classes, {maps} maps")

    def answering(self, model: Model, config: AnswerConfig) -> tuple[pyarrow.Schema, Callable[[list[Any]], Columns]]:
        """The share of each class in the pixels, and the mask as a PNG file in base64, grey by class number."""
        import pyarrow

        if config.views not in {None, "one"}:
            raise InputError(f"views {config.views}: a mask is made of one view of a picture; leave them out")
        names = [f"share_{name}" for name in _classes(model.info)]
        columns = {**dict.fromkeys(names, pyarrow.float32()), "mask_png": pyarrow.string()}
        return pyarrow.schema(columns), partial(_segment, model, names)

    def judged(self, answers: Mapping[str, Sequence[Any]], told: Sequence[Any], info: Info) -> dict[str, float]:
        """Over all pixels of the masks that can be read, but for those that are ignored."""
        import numpy as np

        from torchloom.problems.scores import pixel_scores

        numbers = np.zeros(256, dtype=np.int64)
        numbers[_greys(info)] = np.arange(len(_classes(info)))
        classes = len(_classes(info))
        counts, wrong = np.zeros(classes**2, dtype=np.int64), []
        for png, paths in zip(answers["mask_png"], told, strict=True):
            try:
                truth = _mask(info, *paths())
            except InputError as error:
                wrong.append(error.message)
                continue
            known = truth != IGNORED
            pairs = classes * truth[known].astype(np.int64) + numbers[_opened(png)][known]
            counts += np.bincount(pairs, minlength=classes**2)
        if wrong:
            logger.warning("the masks of %s cannot be judged: %s", counted(len(wrong), "picture"), wrong[0])
        return pixel_scores(counts.reshape(classes, classes)) if counts.any() else {}

    def caption(self, model: Model, row: dict[str, Any]) -> str:
        shares = ((row[f"share_{name}"], name) for name in _classes(model.info))
        return ", ".join(f"{name} {share:.0%}" for share, name in sorted(shares, reverse=True)[:3])

    def sheet(self, model: Model, shown: list[tuple[str, Any, dict[str, Any]]]) -> Figure:
        """Each picture under its mask in colours."""
        import numpy as np

        from torchloom.problems.segmentation.colours import key, overlaid
        from torchloom.system.figures import contact_sheet

        numbers = np.zeros(256, dtype=np.uint8)
        numbers[_greys(model.info)] = np.arange(len(_classes(model.info)))
        pictures = []
        for _, image, row in shown:
            mask = _opened(row["mask_png"])
            pictures.append((255 * overlaid(image[None], numbers[mask][None])[0]).astype(np.uint8))
        return contact_sheet(pictures, [self.caption(model, row) for *_, row in shown], key(_classes(model.info)))

    def doubt(self, metrics: Mapping[str, Any]) -> str | None:
        always = metrics.get("mean_iou_of_the_commonest", 0.0)
        if metrics["mean_iou"] > 1.02 * always:
            return None
        return (
            f"It is no better (mean IoU {metrics['mean_iou']:.4f}) than by always answering the commonest class "
            f"({always:.4f})."
        )

    def said(self, model: Model) -> dict[str, Any]:
        return {"classes": _classes(model.info), "values": _greys(model.info).tolist()}


PROBLEM = Segmentation


def _classes(info: Info) -> list[str]:
    assert isinstance(info.target, Classes)  # as check_data has seen to
    return info.target.classes


def _sheet(images: np.ndarray, masks: np.ndarray, answers: np.ndarray, titles: list[str], classes: list[str]) -> Figure:
    from torchloom.problems.segmentation.colours import key, mistakes, overlaid
    from torchloom.system.figures import segmentations

    parts = [images / 255, overlaid(images, masks), overlaid(images, answers), mistakes(images, masks, answers)]
    pictures = zip(*(part.transpose(0, 2, 3, 1) for part in parts), strict=True)
    return segmentations(list(zip(titles, pictures, strict=True)), HEADINGS, key(classes))


def _segment(model: Model, names: list[str], samples: list[Any]) -> Columns:
    # one view: maps of others would have to be turned back
    masks = model.run("maps", **model.info.batch(samples)).argmax(1).astype("uint8")  # (B, H, W)
    shares = {name: (masks == number).mean((1, 2)) for number, name in enumerate(names)}
    return {**shares, "mask_png": [_png(_greys(model.info)[mask]) for mask in masks]}


def _greys(info: Info) -> np.ndarray:
    """The grey level that stands for each class in masks that are answers (classes,) uint8."""
    import numpy as np

    assert isinstance(info.target, Classes)
    return np.array(info.target.values or range(len(info.target.classes)), dtype=np.uint8)


def _mask(info: Info, picture: Path, mask: Path) -> np.ndarray:
    """The true mask of a picture (H, W) uint8, as large as the model's."""
    from torchloom.data.masks import Coding, mask_of

    assert isinstance(info, ImageInfo)
    assert isinstance(info.target, Classes)
    assert info.target.coding
    known = info.target.coding
    coding = Coding(info.target.classes, known.numbers, known.nearest, known.palette)
    return mask_of(picture, mask, coding, (info.shape[1], info.shape[2]), info.fit)


def _opened(png: str) -> np.ndarray:
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def _png(mask: Any) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
