"""The block `data` of a task."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from torchloom.config import own
from torchloom.config.base import Block, Count, Fraction, Named, NotNegative, Positive
from torchloom.config.choices import answering_for


class AffineConfig(Block):
    """Turning, moving, scaling and shearing about the centre, as torchvision's RandomAffine; black around."""

    degrees: float = Field(0.0, ge=0, le=180, description="turned by at most so much either way")
    translate: float = Field(0.0, ge=0, le=1, description="moved by at most this share of the side, by whole pixels")
    scale: list[Positive] = Field([1.0, 1.0], description="least and greatest factor of the size")
    shear: float = Field(0.0, ge=0, lt=90, description="rows slanted by at most so many degrees either way")

    @field_validator("scale")
    @classmethod
    def _ordered(cls, scale: list[float]) -> list[float]:
        if len(scale) != 2 or scale[0] > scale[1]:
            raise ValueError("must be two factors, [least, greatest]")
        return scale


class ColorConfig(Block):
    """Factors from [max(0, 1 - x), 1 + x], applied in random order, as torchvision's ColorJitter."""

    brightness: NotNegative = Field(0.0, description="x of the distance from black")
    contrast: NotNegative = Field(0.0, description="x of the distance from the image's mean grey")
    saturation: NotNegative = Field(0.0, description="x of the distance from each pixel's grey")


class PolicyConfig(Named):
    """A policy of torchvision.transforms.v2 by its class name, with its arguments (`magnitude`, `num_ops`, …).

    One of the user's own is a class below torch.nn.Module: images (B, C, H, W) uint8 -> the same.
    """

    groups: Count = Field(16, description="random parts of a batch, each changed by a draw of its own")

    @model_validator(mode="after")
    def _exists(self) -> PolicyConfig:
        from torch.nn import Module

        known = answering_for("policy")

        own.chosen(self.name, known.POLICIES, "a policy of torchvision.transforms.v2", parent=Module)
        known.check_policy(self.name, self.arguments)
        return self


class AugmentConfig(Block):
    """Random changes to training images, in this order, drawn for each image and batch anew."""

    crop_padding: int = Field(0, ge=0, description="pixels of border that a crop of the old size is cut from")
    crop_border: Literal["black", "reflect"] = Field("black", description="what the border shows")
    affine: AffineConfig | None = Field(None, description="turns, moves, scales and shears")
    flip: Literal[False, True, "alternating"] = Field(
        False,
        description="mirror left and right with probability 1/2; alternating: half of the images in the first epoch, "
        "the others in the next, and so on in turn",
    )
    policy: PolicyConfig | None = Field(None, description="RandAugment and its kin")
    color: ColorConfig | None = Field(None, description="changes brightness, contrast and saturation")
    cutout: int = Field(0, ge=0, description="side in pixels of a square in the mean colour, centred anywhere")
    mixup: NotNegative = Field(0.0, description="alpha of MixUp, which blends images and their labels; 0 leaves it out")
    cutmix: NotNegative = Field(
        0.0, description="alpha of CutMix, which pastes; 0 leaves it out; with mixup too, each batch gets one of both"
    )
    per_sample: bool = Field(
        False, description="all before cutout image by image, by torchvision's own transforms: the slow reference"
    )

    @property
    def mixes(self) -> bool:
        """Whether labels become shares of classes."""
        return self.mixup > 0 or self.cutmix > 0


class SoundAugmentConfig(Block):
    """Random changes to training sounds, drawn for each sound and batch anew."""

    speed: float = Field(
        0.0, ge=0, le=0.5, description="played faster or slower, and so higher or lower, by at most this share"
    )
    gain: NotNegative = Field(0.0, description="louder or softer by at most so many decibels")
    noise: float | None = Field(
        None, description="white noise, softer than the sound by so many decibels or up to 30 more; none: none"
    )
    time_masks: int = Field(0, ge=0, description="stretches of time that are covered (SpecAugment)")
    time_mask: Fraction = Field(0.2, description="greatest share of the sound that one of them covers")
    frequency_masks: int = Field(0, ge=0, description="stretches of frequencies that are covered (SpecAugment)")
    frequency_mask: Fraction = Field(0.2, description="greatest share of the bands that one of them covers")


class DataConfig(Block):
    """The block `data` of a task: how prepared data become batches."""

    augment: AugmentConfig = Field(default_factory=AugmentConfig, description="of images only")
    augment_sound: SoundAugmentConfig = Field(default_factory=SoundAugmentConfig, description="of sounds only")
    seconds: Positive = Field(
        10.0,
        description="of sounds only: of longer ones so much of the middle counts, and in training of anywhere, drawn "
        "for each epoch anew",
    )
    max_tokens: Count | None = Field(
        None, description="of documents only: of longer ones so many of the last words count"
    )
    window: int = Field(128, ge=2, description="of a text only: length of a training sequence, in characters")
    include_validation: bool = Field(
        False, description="train on the validation split too; then the last epoch, not the best, is the model"
    )
    subset: Count | None = Field(None, description="train on so many samples only, drawn by train.seed")
    sampler: Literal["shuffled", "weighted"] = Field(
        "shuffled",
        description="of classes: weighted draws as many samples of each in an epoch, with replacement, as those of "
        "torch's WeightedRandomSampler that weigh as 1 / count; shuffled takes each sample once",
    )
    on_device: bool | None = Field(
        None,
        description="whether the data lie in the device's memory as a whole, or come batch by batch from the files, "
        "the next ones while the device computes; none: as a whole when they fit into half of what is free",
    )
