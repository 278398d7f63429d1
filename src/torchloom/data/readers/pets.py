"""Oxford-IIIT Pet: 7,349 pictures of cats and dogs, with what is pet, background and outline in each.

Parkhi, Vedaldi, Zisserman, Jawahar, "Cats and dogs", CVPR 2012.
"""

from __future__ import annotations

import gzip
import io
import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import Field

from torchloom.config import Count, ImagesPreprocessConfig
from torchloom.data.archives import open_packed, walk_tar
from torchloom.data.download import write_sums
from torchloom.data.images import channel_counts, describe_pixels
from torchloom.data.targets import Classes
from torchloom.datasets.raw import AGAIN, RawFiles
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.system.progress import step_bar
from torchloom.system.words import counted

logger = logging.getLogger(__name__)

IMAGES, ANNOTATIONS = "images.tar.gz", "annotations.tar.gz"
CLASSES = ["background", "pet", "outline"]
NUMBERS = np.array(
    [0, 1, 0, 2], dtype=np.uint8
)  # of classes, by the values of a trimap: 1 pet, 2 background, 3 outline
LISTS = {"trainval.txt": "train", "test.txt": "test"}
LARGEST_FILE = 64 << 20  # bytes


class PetsConfig(ImagesPreprocessConfig):
    size: list[Count] = Field([128, 128], min_length=2, max_length=2, description="height and width in pixels")


def preprocess(raw: RawFiles, config: PetsConfig) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Both archives -> training, validation and test tensors, `images` (N, H, W, 3) and `masks` (N, H, W) uint8, and
    what is known about them. All are brought to one size, out of proportion."""
    from torchloom.data.pictures import decode_image

    height, width = config.size
    names: dict[str, list[str]] = {}
    masks: dict[str, np.ndarray] = {}
    for member, content in _files(raw.path(ANNOTATIONS)):
        if member.name in LISTS:
            names[LISTS[member.name]] = [
                line.split()[0] for line in content.decode("utf-8", "replace").splitlines() if line.strip()
            ]
        elif member.parent.name == "trimaps" and member.suffix == ".png":
            masks[member.stem] = read_trimap(content, (height, width), f"{raw.path(ANNOTATIONS)}, {member}")
    names = {split: list(dict.fromkeys(part)) for split, part in names.items()}
    wanted = {name for part in names.values() for name in part}
    if len(wanted) < sum(map(len, names.values())):
        raise InputError(f"{raw.path(ANNOTATIONS)}: names pictures to train and to test that are the same. {AGAIN}")
    images: dict[str, np.ndarray] = {}
    with step_bar() as bar:
        task = bar.add_task("pictures", total=len(wanted), status="")
        for member, content in _files(raw.path(IMAGES)):
            if member.stem in wanted and member.suffix == ".jpg":
                try:
                    pixels = decode_image(io.BytesIO(content), (3, height, width), fit="squash")
                except InputError as error:
                    raise InputError(f"{raw.path(IMAGES)}, {member}: {error.message}. {AGAIN}") from error
                images[member.stem] = pixels.transpose(1, 2, 0)
                bar.update(task, advance=1)
    parts = {split: _together(split, names.get(split, []), images, masks) for split in ("train", "test")}
    chosen = np.zeros(len(parts["train"]["images"]), dtype=bool)
    order = np.random.default_rng(config.seed).permutation(len(chosen))
    chosen[order[: min(round(config.validation_fraction * len(chosen)), len(chosen) - 1)]] = True
    train, validation = ({name: array[rows] for name, array in parts["train"].items()} for rows in (~chosen, chosen))
    splits = {"train": train, "validation": validation, "test": parts["test"]}
    known = {
        **describe_pixels([3, height, width], channel_counts(train["images"]), config),
        "fit": "squash",
        "target": Classes(array="masks", classes=CLASSES).model_dump(),
        "images": {split: len(part["images"]) for split, part in splits.items()},
    }
    for split, part in splits.items():
        logger.info("%s: %s", split, counted(len(part["images"]), "image"))
    return Tensors(train), Tensors(validation), Tensors(splits["test"]), known


def _files(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """The files in a packed archive, whose folder on top is left out of their names."""
    try:
        with open_packed(path) as packed:
            for member, file in walk_tar(packed):
                place = PurePosixPath(*PurePosixPath(member.name).parts[1:])
                if file and not place.name.startswith("."):  # of macOS, hidden ones lie beside the trimaps
                    if member.size > LARGEST_FILE:
                        raise tarfile.ReadError(f"{member.name} has {member.size:,} bytes")
                    yield place, file.read()
    except InputError:
        raise
    except Exception as error:  # see archives.py
        raise InputError(f"{path}: damaged, or not such an archive ({error}). {AGAIN}") from error


def read_trimap(content: bytes, size: tuple[int, int], place: str) -> np.ndarray:
    """A trimap's classes (H, W) uint8; each pixel is that of the nearest one in the file."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            values = np.asarray(picture.convert("L").resize(size[::-1], Image.Resampling.NEAREST))
    except Exception as error:  # Pillow has many
        raise InputError(f"{place}: is a damaged picture ({error}). {AGAIN}") from error
    if values.max() >= len(NUMBERS) or values.min() < 1:
        raise InputError(f"{place}: holds values other than 1, 2 and 3. {AGAIN}")
    classes: np.ndarray = NUMBERS[values]
    return classes


def _together(
    split: str, names: list[str], images: dict[str, np.ndarray], masks: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The pictures and masks of a split; InputError when one is missing."""
    if not names:
        raise InputError(f"{ANNOTATIONS}: names no {split} pictures. {AGAIN}")
    for name in names:
        if name not in images or name not in masks:
            missing = IMAGES if name not in images else ANNOTATIONS
            raise InputError(f"{missing}: lacks {name}, which is in the list of {split} pictures. {AGAIN}")
    return {"images": np.stack([images[name] for name in names]), "masks": np.stack([masks[name] for name in names])}


# ---- a sample ------------------------------------------------------------------------------------------------------


def draw_sample(folder: Path, train: int = 160, test: int = 60, seed: int = 0) -> None:
    """Draw pets of our own, in the same two archives, and a SHA256SUMS, into `folder`.

    A body and a head with ears in a colour with some noise, before a background in another.
    """
    generator = np.random.default_rng(seed)
    pictures, annotations = {}, {}
    for split, count in (("trainval", train), ("test", test)):
        names = [f"{'Cat' if number % 2 else 'dog'}_{split}_{number}" for number in range(count)]
        annotations[f"annotations/{split}.txt"] = "".join(f"{name} 1 1 1\n" for name in names).encode()
        for name in names:
            picture, trimap = _draw(generator)
            pictures[f"images/{name}.jpg"] = _encoded(picture, "JPEG", quality=92)
            annotations[f"annotations/trimaps/{name}.png"] = _encoded(trimap, "PNG")
    for archive, files in ((IMAGES, pictures), (ANNOTATIONS, annotations)):
        with gzip.GzipFile(folder / archive, "wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    write_sums(folder)


def _draw(generator: np.random.Generator, rows: int = 72, columns: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A picture (rows, columns, 3) and its trimap (rows, columns), both uint8."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    centre_x, centre_y = generator.uniform(30, columns - 30), generator.uniform(36, rows - 20)
    body, head = generator.uniform(12, 20), generator.uniform(8, 12)
    side = generator.choice([-1, 1])
    far = ((x - centre_x) / (1.4 * body)) ** 2 + ((y - centre_y) / (0.8 * body)) ** 2 - 1  # negative inside
    head_x, head_y = centre_x + side * 1.3 * body, centre_y - 0.7 * body
    shapes = [far, ((x - head_x) / head) ** 2 + ((y - head_y) / head) ** 2 - 1]
    shapes += [
        ((x - head_x - offset * head) / (0.35 * head)) ** 2 + ((y - head_y + head) / (0.6 * head)) ** 2 - 1
        for offset in (-0.6, 0.6)
    ]
    nearest = np.stack(shapes).min(0)
    pet, inner = nearest < 0, nearest < -0.25
    fur, wall = generator.uniform(60, 220, (2, 3))
    while np.abs(fur - wall).sum() < 90:
        wall = generator.uniform(60, 220, 3)
    picture = np.where(pet[..., None], fur, wall) + generator.normal(0, 22, (rows, columns, 1))
    picture += 25 * np.sin(x / generator.uniform(3, 9) + y / generator.uniform(3, 9))[..., None]
    trimap = np.where(inner, 1, np.where(pet, 3, 2)).astype(np.uint8)
    return picture.clip(0, 255).astype(np.uint8), trimap


def _encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()
