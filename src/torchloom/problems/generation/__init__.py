"""Generation: a network that makes images of numbers that are drawn, and learns it from one that tells them from real
ones."""

from __future__ import annotations

import base64
import io
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from kedro.pipeline import Node

from torchloom.errors import InputError
from torchloom.modalities import DrawInfo, ImageInfo, Info
from torchloom.modalities.base import Axes
from torchloom.problems.base import Columns, Objective, Problem, Whole, check_count, known_classes
from torchloom.problems.generation.config import (
    EvaluateGenerationConfig,
    GenerateImagesConfig,
    GenerationTrainConfig,
    GeneratorConfig,
)
from torchloom.system.words import listed

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from matplotlib.figure import Figure
    from pyarrow import Table
    from torch import Tensor, nn

    from torchloom.config import AnswerConfig
    from torchloom.inference.model import Model
    from torchloom.problems.generation.contest import Contest
    from torchloom.problems.generation.metrics import Look
    from torchloom.training.checkpoint import Checkpoint
    from torchloom.training.loaders import LoaderPlan
else:
    Checkpoint = Table = (
        Any  # Kedro resolves the annotations of `generate`; what asks an exported model needs no training
    )

logger = logging.getLogger(__name__)

ROWS = 20  # of images by class at most
COLLAPSED = 0.5  # of the entropy that even classes have


@dataclass(frozen=True)
class Generation(Problem):
    """A network has a `generator` and a `discriminator`, see models/dcgan.py.

    With a `judge`, a classifier of such images, they are compared by what it sees in them.
    """

    judge: Any = None  # a Checkpoint

    network = GeneratorConfig
    training = GenerationTrainConfig
    evaluation = EvaluateGenerationConfig
    modalities: ClassVar = (ImageInfo, DrawInfo)
    reports: ClassVar = {
        "metrics": "",
        "learning_curves": "",
        "generated": "Generated images: of seeds from 0 on, and of a conditional network a row for each class.",
        "samples_by_epoch": "What the same latents became: a row for each time, by the epochs that were over.",
    }
    tag = "generation"
    answers = ("images",)
    pictures = "image_png"
    state_axes: ClassVar[Axes] = {name: {0: "batch"} for name in ("latents", "labels")}
    card = "templates/generation.md"

    def check(self, config: GenerationTrainConfig, loaders: LoaderPlan) -> None:
        super().check(config, loaders)
        augment = loaders.data.augment
        if named := [key for key in ("mixup", "cutmix") if getattr(augment, key)]:
            raise InputError(f"data.augment.{named[0]}: blends images, which would count as real ones; leave it out")
        if config.whitening:
            raise InputError("train.whitening: is for networks whose first layer sees images; leave it out")
        if config.r1 and config.compile:
            raise InputError("train.r1: a compiled network has no slopes to learn from; leave out one of both")
        if self.judge:
            check_judge(self.judge, loaders.info)

    def sizes(self, info: Info) -> dict[str, Any]:
        return {"verdicts": 1, "classes": len(known_classes(info))}

    def meanings(self, info: Info) -> dict[str, Any]:
        return {"classes": known_classes(info)}

    def scaled(self, network: nn.Module, info: Info) -> nn.Module:
        from torchloom.problems.generation.contest import Contest

        assert isinstance(info, ImageInfo)
        return Contest(network, info.shape, info.mean, info.std, len(known_classes(info)))

    def check_answer(self, answer: Any, info: Info) -> None:
        real, _, _, generated, images = answer
        if generated.shape != images.shape:
            raise InputError(
                f"generates images of {list(generated.shape[1:])}, and these data have {list(images.shape[1:])}"
            )
        check_count(real.numel() // len(real), 1)

    def objective(self, config: GenerationTrainConfig, info: Info) -> Objective:
        return adversarial_objective(config.loss.name, config.loss.arguments, config.label_smoothing, config.r1)

    def whole(self, config: GenerationTrainConfig, info: Info) -> Whole:
        """The distance of what is generated in validation from the images there."""
        from torchloom.problems.generation.contest import as_bytes
        from torchloom.problems.generation.metrics import frechet_distance, looking

        look = looking(self.judge)

        def kept(outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
            generated, images = outputs[3:5]
            return look(as_bytes(generated))[0], look(as_bytes(images))[0]

        return Whole(lambda generated, images: {"frechet": frechet_distance(generated, images)}, kept)

    def evaluate(
        self,
        checkpoint: Checkpoint,
        loaders: LoaderPlan,
        history: list[dict[str, float]],
        config: EvaluateGenerationConfig,
    ) -> dict[str, Any]:
        """As many images as the test split has are generated and compared with it, and images to look at."""
        from torchloom.problems.generation.contest import contest_of
        from torchloom.problems.generation.metrics import looking
        from torchloom.system import figures
        from torchloom.system.devices import choose_device

        contest = contest_of(checkpoint.build().to(choose_device(config.device)))
        metrics = measured(contest, looking(self.judge), loaders, config)
        epoch = int(checkpoint.training["epoch"])
        metrics |= {"epoch": epoch, "test_samples": loaders.length("test")}
        logger.info(
            "test: Fréchet distance %.4g, of training images %.4g, of noise %.4g",
            *(metrics[name] for name in ("frechet", "frechet_real", "frechet_noise")),
        )
        classes = known_classes(loaders.info) if contest.conditional else []
        return {
            "metrics": metrics,
            "learning_curves": figures.learning_curves(history),
            "generated": shown(contest, config.pictures, classes),
            "samples_by_epoch": figures.image_rows(frames(contest, epoch, len(classes))),
        }

    def scale(self, metrics: Any, judges: Sequence[str] = ()) -> str:
        seen = f"what {listed(judges) or 'the judge'} sees in them"
        return (
            f"Of frechet 0 is the least: training images come to {metrics['frechet_real']:.4g} and noise to "
            f"{metrics['frechet_noise']:.4g}, by {seen if 'class_entropy' in metrics else 'their pixels in coarse'}."
        )

    def doubt(self, metrics: Any) -> str | None:
        if metrics["frechet"] > metrics["frechet_noise"]:
            return "What it generates is further from the test images than noise is: it has learnt nothing."
        if metrics.get("class_entropy", 1.0) < COLLAPSED:
            return "It generates few of the classes: the judge sees most of its images in the same ones."
        return None

    def more_stages(self) -> Sequence[Node]:
        inputs = ["checkpoint", "params:generate"]
        return [Node(generate, inputs=inputs, outputs="generated_images", name="generate", tags="generate")]

    # ---- for exported models ---------------------------------------------------------------------------------------

    def taken(self, info: Info, checkpoint: Checkpoint) -> Info:
        drawer: Any = checkpoint.exported()
        return DrawInfo(latent=drawer.latent, classes=known_classes(checkpoint.info) if drawer.classes else [])

    def signature(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Latents in place of the images, and labels of a conditional network."""
        import torch

        from torchloom.problems.generation.contest import latents_of

        drawer: Any = model
        count = len(next(iter(inputs.values())))
        labels = {"labels": torch.arange(count) % drawer.classes} if drawer.classes else {}
        return {"latents": latents_of(range(count), drawer.latent), **labels}, list(self.answers)

    def exported(self, model: nn.Module) -> nn.Module:
        from torchloom.problems.generation.contest import Drawer, contest_of

        return Drawer(contest_of(model))

    def answering(self, model: Model, config: AnswerConfig) -> tuple[pyarrow.Schema, Callable[[list[Any]], Columns]]:
        """The image as a PNG file in base64."""
        import pyarrow

        return pyarrow.schema({"image_png": pyarrow.string()}), partial(_generated, model)

    def caption(self, model: Model, row: dict[str, Any]) -> str:
        return ""

    def sheet(self, model: Model, shown: list[tuple[str, Any, dict[str, Any]]]) -> Figure:
        from torchloom.system.figures import contact_sheet

        return contact_sheet([_opened(row["image_png"]) for *_, row in shown], [name for name, *_ in shown])


PROBLEM = Generation


def check_judge(judge: Checkpoint, info: Info) -> None:
    """InputError unless it tells the classes of such images."""
    from torchloom.problems.classification import check_classifier
    from torchloom.problems.generation.metrics import looking

    check_classifier(judge)
    if judge.info.kind != info.kind or judge.info.sizes() != info.sizes():
        raise InputError(
            f"task.judge: the network {judge.network} was trained on other data, {judge.info.sizes()}; these have "
            f"{info.sizes()}. Name a classifier of images of that size"
        )
    looking(judge)


# ---- training ------------------------------------------------------------------------------------------------------


def adversarial_objective(name: str, arguments: dict[str, Any], smoothing: float = 0.0, r1: float = 0.0) -> Objective:
    """The sum of the discriminator's loss and the generator's, of which each has a gradient by its own alone.

    The discriminator's is that of real images, whose targets are 1 - `smoothing`, and that of generated ones, whose
    targets are 0; the generator's, that of its images with the target 1, or see `losses.fooling_loss`. In evaluation a
    batch is always held to the same draws.
    """
    import torch

    from torchloom.problems.losses import fooling_loss, label_loss

    loss, fooling = label_loss(name, arguments), fooling_loss(name, arguments)

    def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        images, *_, labels = batch
        penalised = r1 > 0 and torch.is_grad_enabled()
        with nullcontext() if model.training else drawn_for(images):
            real, fake, fooled, _, _, *slopes = model(images, labels, **({"slopes": True} if penalised else {}))
        with torch.autocast(images.device.type, enabled=False):
            real, fake, fooled = real.float(), fake.float(), fooled.float()
            of_discriminator = loss(real, torch.full_like(real, 1 - smoothing)) + loss(fake, torch.zeros_like(fake))
            of_generator = fooling(fooled, torch.ones_like(fooled))
            total = of_discriminator + of_generator
            figures = {"generator_loss": of_generator, "discriminator_loss": of_discriminator}
            if penalised:
                figures["slope"] = slopes[0].mean()
                total = total + r1 / 2 * figures["slope"]
        return total, figures

    return objective


@contextmanager
def drawn_for(images: Tensor) -> Iterator[None]:
    """What is drawn within depends on the images alone, and what is drawn later not on that."""
    import torch

    devices = [images.device] if images.device.type != "cpu" else []
    with torch.random.fork_rng(devices, device_type=images.device.type if devices else "cuda"):
        torch.manual_seed(int(images.long().sum()))
        yield


# ---- evaluation ----------------------------------------------------------------------------------------------------


def measured(contest: Contest, look: Look, loaders: LoaderPlan, config: EvaluateGenerationConfig) -> dict[str, float]:
    """How far generated images are from those of the test split, by what `look` sees in them.

    `frechet_real` is how far as many training images are, which is as near as can be, and `frechet_noise` how far noise
    of the same mean and deviation is.
    """
    import torch

    from torchloom.problems.evaluation import own_metrics
    from torchloom.problems.generation.metrics import class_figures, frechet_distance, looked_at, noise_like

    info, count = loaders.info, loaders.length("test")
    assert isinstance(info, ImageInfo)
    test = [images for images, *_ in loaders.loader("test", contest.scale.device)]
    sizes = list(map(len, test))
    labels = torch.arange(count) % max(len(known_classes(info)), 1)
    made = list(generated_in(contest, labels, sizes))
    real, _ = looked_at(look, test)
    seen, logits = looked_at(look, made)
    metrics = {
        "frechet": frechet_distance(seen, real),
        "frechet_real": frechet_distance(looked_at(look, trained_in(loaders, count, sizes))[0], real),
        "frechet_noise": frechet_distance(looked_at(look, noise_like(test, info.mean, info.std))[0], real),
        "features": seen.shape[1],
    }
    if logits.shape[1]:
        metrics |= class_figures(logits, labels if contest.conditional else None)
    return metrics | own_metrics(config.metrics, on_unit_scale(made), on_unit_scale(test), metrics)


def trained_in(loaders: LoaderPlan, count: int, sizes: list[int]) -> Iterator[Tensor]:
    """So many of the images that are trained on, or all, drawn at random, in batches of those sizes."""
    import torch

    numbers = loaders.trained_numbers()
    some = numbers[torch.randperm(len(numbers), generator=torch.Generator().manual_seed(0))[:count]]
    for start in range(0, len(some), sizes[0]):
        yield loaders.chosen("train", some[start : start + sizes[0]])[0]


def generated_in(contest: Contest, labels: Tensor, sizes: Sequence[int], seed: int = 0) -> Iterator[Tensor]:
    """Images (B, C, H, W) uint8 of the labels (N,) and of seeds from `seed` on, in batches of those sizes."""
    import torch

    from torchloom.problems.generation.contest import as_bytes, latents_of

    device = contest.scale.device
    for part in labels.split(list(sizes)):  # type: ignore[no-untyped-call]
        latents = latents_of(range(seed, seed + len(part)), contest.latent).to(device)
        seed += len(part)
        with torch.no_grad():
            yield as_bytes(2 * contest.generate(latents, part.to(device)) - 1)


def shown(contest: Contest, count: int, classes: list[str]) -> Figure:
    """Generated images: all in a grid or, with classes, a row of each of them."""
    import torch

    from torchloom.system import figures

    if not classes:
        return figures.image_grid(on_unit_scale(generated_in(contest, torch.zeros(count, dtype=torch.int64), [count])))
    across = max(1, min(figures.COLUMNS, count // min(len(classes), ROWS)))
    labels = torch.arange(len(classes[:ROWS])).repeat_interleave(across)
    rows = on_unit_scale(generated_in(contest, labels, [len(labels)])).split(across)  # type: ignore[no-untyped-call]
    return figures.image_rows(list(zip(classes, rows, strict=False)))


def frames(contest: Contest, epoch: int, classes: int) -> list[tuple[str, Tensor]]:
    """What the same latents became after so many epochs, as images (ACROSS, C, H, W) on [0, 1], and at last."""
    import torch

    from torchloom.problems.generation.contest import ACROSS

    last = on_unit_scale(generated_in(contest, torch.arange(ACROSS) % max(classes, 1), [ACROSS]))
    parts = on_unit_scale([contest.film]).view(-1, *last.shape)
    film = zip(contest.filmed.tolist(), parts, strict=True)
    found = {after: images for after, images in film if 0 <= after < epoch} | {epoch: last}
    return [(f"epoch {after}", images) for after, images in sorted(found.items())]


def on_unit_scale(batches: Iterable[Tensor]) -> Tensor:
    """Images (B, C, H, W) uint8 on [0, 1], on the CPU."""
    import torch

    return torch.cat([images.cpu() for images in batches]).float() / 255


# ---- what it is asked for ------------------------------------------------------------------------------------------


def generate(checkpoint: Checkpoint, config: GenerateImagesConfig) -> Table:
    """Images of seeds one after another, as PNG files by number; of a conditional network the classes by turns, which
    are in the names, too."""
    import pyarrow
    import torch

    from torchloom.datasets.folders import CONTENT, NAME
    from torchloom.problems.generation.contest import contest_of, latents_of

    contest, classes = contest_of(checkpoint.build()), known_classes(checkpoint.info)
    if config.classes and not contest.conditional:
        raise InputError("generate.classes: this network is not conditional, and knows of no classes; leave it out")
    if wrong := [name for name in config.classes if name not in classes]:
        raise InputError(f"generate.classes: {wrong[0]!r} is none of {', '.join(map(repr, classes))}")
    asked = [classes.index(name) for name in config.classes] or list(range(max(len(classes), 1)))
    labels = [asked[number % len(asked)] for number in range(config.count)]
    names, contents = [], []
    for number, label in enumerate(labels):
        with torch.no_grad():
            (image,) = contest.generate(latents_of([config.seed + number], contest.latent), torch.tensor([label]))
        of_class = f"-{_as_file_name(classes[label])}" if contest.conditional else ""
        names.append(f"{config.seed + number:06}{of_class}.png")
        contents.append(_png(image.numpy()))
    return pyarrow.table({NAME: names, CONTENT: contents})


def _as_file_name(name: str) -> str:
    return re.sub(r"[^\w-]+", "_", name)[:50]


def _generated(model: Model, samples: list[Any]) -> Columns:
    images = model.run("images", **model.info.batch(samples))
    return {"image_png": [_png(image) for image in images]}


def _png(image: np.ndarray) -> str:
    """An image (C, H, W) on [0, 1] as a PNG file in base64."""
    import numpy as np
    from PIL import Image

    pixels = (image * 255).round().astype(np.uint8).transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _opened(png: str) -> np.ndarray:
    """(C, H, W) uint8."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
    return np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1))
