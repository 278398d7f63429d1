from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchloom.config import PreprocessConfig
from torchloom.data.images import LabelledImages, channel_counts, channel_statistics, describe_pixels, prepare
from torchloom.datasets.tensors import TensorsDataset
from torchloom.errors import InputError

CLASSES = ["ant", "bee", "cat"]
COUNTS = [40, 25, 7]  # images of each class


def labelled(counts: list[int] = COUNTS, seed: int = 0) -> LabelledImages:
    """Random images that tell their own number: pixel (0, 0) of image n is n."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    images = generator.integers(0, 256, (len(labels), 5, 4, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels))
    return LabelledImages(images, labels)


def prepared(train: LabelledImages, test: LabelledImages | None = None, **config: Any) -> Any:
    return prepare(train, test or labelled([1, 1, 1]), CLASSES, PreprocessConfig(**config))


def test_the_split_is_exact_and_loses_nothing() -> None:
    source, held_out = labelled(), labelled([3, 2, 1], seed=1)
    train, validation, test, info = prepared(source, held_out, validation_fraction=0.2)
    assert info["images"] == {
        "train": {"ant": 32, "bee": 20, "cat": 6},
        "validation": {"ant": 8, "bee": 5, "cat": 1},  # 1.4 rounded
        "test": {"ant": 3, "bee": 2, "cat": 1},
    }
    numbers = [part.arrays["images"][:, 0, 0, 0].tolist() for part in (train, validation)]
    assert sorted(numbers[0] + numbers[1]) == list(range(72))
    for part, chosen in zip((train, validation), numbers, strict=True):
        np.testing.assert_array_equal(part.arrays["images"], source.images[chosen])
        np.testing.assert_array_equal(part.arrays["labels"], source.labels[chosen])
    assert test.arrays["images"] is held_out.images
    assert test.arrays["labels"] is held_out.labels


def test_statistics_are_those_of_the_training_split() -> None:
    train, _, _, info = prepared(labelled(), validation_fraction=0.25)
    scaled = train.arrays["images"].astype(np.float64) / 255
    np.testing.assert_allclose(info["mean"], scaled.mean((0, 1, 2)), rtol=0, atol=1e-6)
    np.testing.assert_allclose(info["std"], scaled.std((0, 1, 2)), rtol=0, atol=1e-6)
    assert info["shape"] == [3, 5, 4]
    assert info["target"]["classes"] == CLASSES


def test_a_constant_channel_has_standard_deviation_one() -> None:
    images = labelled().images.copy()
    images[..., 0], images[..., 2] = 0, 77
    mean, std = channel_statistics(channel_counts(images))
    assert mean[0] == 0
    assert mean[2] == pytest.approx(77 / 255, abs=1e-12)
    assert std[0] == std[2] == 1
    assert std[1] == pytest.approx((images[..., 1] / 255).std(), abs=1e-12)


@pytest.mark.parametrize(
    ("step", "told"), [(0, "in channel 1 by 0 of 255 greys"), (1, "in channel 1 by 0.5 of"), (4, None)]
)
def test_pixels_that_are_nearly_alike_are_a_warning(
    step: int, told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    counts = np.zeros((2, 256), np.int64)
    counts[0, [68, 68 + step]] = 50
    counts[1] = 1
    describe_pixels([2, 5, 4], counts)
    assert [told in message for message in caplog.messages] == ([True] if told else [])


@pytest.mark.parametrize("part", ["training", "test"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda good: LabelledImages(good.images[1:], good.labels), "hold 71 images but 72 labels"),
        (lambda good: LabelledImages(good.images, good.labels[1:]), "hold 72 images but 71 labels"),
        (lambda good: good[np.zeros(72, bool)], "hold no image"),
        (
            lambda good: LabelledImages(good.images, good.labels + 1),
            "hold the label 3, but there are only 3 classes (0 to 2)",
        ),
        (lambda good: LabelledImages(good.images, good.labels - 3), "hold the label -"),
    ],
)
def test_wrong_data_are_refused(part: str, change: Any, message: str) -> None:
    good = labelled()
    both = (change(good), good) if part == "training" else (good, change(good))
    with pytest.raises(InputError) as caught:
        prepared(*both)
    assert caught.value.message.startswith(f"the {part} data {message}")


def test_training_and_test_images_must_be_of_one_shape() -> None:
    good = labelled()
    with pytest.raises(InputError, match=r"training images are \(5, 4, 3\) \(H, W, C\), test images \(5, 3, 3\)"):
        prepared(good, LabelledImages(good.images[:, :, :3], good.labels))


def test_something_of_each_class_is_left_to_train_on() -> None:
    *_, info = prepared(labelled([40, 1, 3]), validation_fraction=0.9)
    assert info["images"]["train"] == {"ant": 4, "bee": 1, "cat": 1}
    assert info["images"]["validation"] == {"ant": 36, "bee": 0, "cat": 2}


@pytest.mark.parametrize(("counts", "missing"), [([0, 25, 7], "'ant'"), ([40, 0, 0], "'bee', 'cat'")])
@pytest.mark.parametrize("part", ["training", "test"])
def test_a_class_without_an_image_is_named(part: str, counts: list[int], missing: str) -> None:
    good, bad = labelled(), labelled(counts)
    with pytest.raises(InputError) as caught:
        prepared(*((bad, good) if part == "training" else (good, bad)))
    assert caught.value.message == f"the {part} data hold no image of {missing}; every class needs at least one"


def test_one_image_of_each_class_is_enough() -> None:
    train, validation, test, info = prepared(labelled([1, 1, 1]), labelled([1, 1, 1], seed=1))
    assert [len(part.arrays["labels"]) for part in (train, validation, test)] == [3, 0, 3]
    assert np.isfinite([info["mean"], info["std"]]).all()


def test_an_empty_validation_split_can_be_stored(tmp_path: Path) -> None:
    _, validation, _, info = prepared(labelled(), validation_fraction=0.0)
    assert info["images"]["validation"] == {"ant": 0, "bee": 0, "cat": 0}
    dataset = TensorsDataset(filepath=str(tmp_path / "validation.safetensors"))
    dataset.save(validation)
    arrays = dataset.load().arrays
    assert arrays["images"].shape == (0, 5, 4, 3)
    assert arrays["labels"].shape == (0,)
