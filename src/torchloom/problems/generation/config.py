"""The blocks of a generation."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from torchloom.config import (
    Block,
    Count,
    EvaluateExamplesConfig,
    Fraction,
    LossConfig,
    ModelConfig,
    NotNegative,
    Seed,
    TrainConfig,
)
from torchloom.config.checks import ArgumentError


class GeneratorConfig(ModelConfig):
    inputs = ("shape", "classes")
    outputs = ("verdicts",)


class AdversarialLoss(LossConfig):
    """Predictions are the discriminator's scores, targets 1 of real images and 0 of generated ones.

    BCEWithLogitsLoss is that of Goodfellow et al. (NIPS 2014) with the generator's non-saturating one, MSELoss that of
    Mao et al. (ICCV 2017), HingeLoss that of Lim & Ye (arXiv:1705.02894).
    """

    of = "labels"
    suitable = frozenset({"BCEWithLogitsLoss", "MSELoss", "HingeLoss"})
    name: str = "BCEWithLogitsLoss"

    @model_validator(mode="after")
    def _alone(self) -> AdversarialLoss:
        for key in ("plus", "weight", "pos_weight"):
            if key in self.arguments:
                raise ArgumentError.of(
                    key, self.arguments[key], "must be left out: the contest has one loss, no classes"
                )
        return self


class GenerationTrainConfig(TrainConfig):
    whole: ClassVar[frozenset[str]] = frozenset({"frechet"})

    loss: AdversarialLoss = Field(default_factory=AdversarialLoss)
    label_smoothing: Fraction = Field(
        0.0, description="real images count as so much less than 1 for the discriminator (Salimans et al., NIPS 2016)"
    )
    r1: NotNegative = Field(
        0.0,
        description="adds r1 / 2 * the squared slope of the discriminator's score at real images to its loss "
        "(Mescheder et al., ICML 2018)",
    )
    monitor: Literal["frechet", "loss"] = Field(  # type: ignore[assignment]
        "frechet", description="frechet is the distance of generated images from those of the validation split"
    )


class EvaluateGenerationConfig(EvaluateExamplesConfig):
    pictures: Count = Field(36, description="generated images shown")


class GenerateImagesConfig(Block):
    """The block `generate` of a generation."""

    count: Count = Field(36, description="images to draw")
    seed: Seed = Field(0, description="of the first one; each further one has the next")
    classes: list[str] = Field([], description="of a conditional network: which ones, by turns; none takes all of them")
