"""Part scaling: the cost of an image per epoch, by the size of the data and by the batch size."""

import tempfile
from functools import partial
from pathlib import Path

from benchmarks import inputs, ours
from benchmarks.measure import Comparison, Options, Worker, interleave

BATCH = 128
CNN = {"name": "cnn", "form": "two_conv"}
ADAM = {"name": "Adam", "lr": 0.001}


def run(options: Options) -> list[Comparison]:
    sizes = [1_000, 5_000] if options.quick else [10_000, 50_000, 500_000]
    batches = [32, 500] if options.quick else [32, 128, 500, 2_000]
    images = 500 if options.quick else 8_000  # of each turn that trains
    with (
        tempfile.TemporaryDirectory() as root,
        Worker(ours.data_path, options.device) as loading,
        Worker(ours.training, options.device) as training,
    ):
        folders = {size: inputs.random_images(Path(root) / str(size), size) for size in sizes}
        middle = folders[sizes[1]]
        by_size = {f"{size:,} images": partial(loading, folders[size], BATCH) for size in sizes}
        by_batch = {f"batches of {batch}": partial(loading, middle, batch) for batch in batches}
        steps = {f"batches of {batch}": partial(training, middle, CNN, ADAM, batch, images) for batch in batches}
        turns = options.turns(5)
        return [
            costs("Data path by number of images", interleave(by_size, turns)),
            costs("Data path by batch size", interleave(by_batch, turns)),
            costs("Training of the small CNN by batch size", interleave(steps, turns)),
        ]


def costs(title: str, rates: dict[str, list[float]]) -> Comparison:
    sides = {side: [1e6 / rate for rate in values] for side, values in rates.items()}
    data = "random images of CIFAR-10's shape"
    return Comparison(title, "µs per image", sides, data, next(iter(sides)), less_is_better=True)
