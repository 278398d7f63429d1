"""Part step: training, the textbook's loop in float32 against the pipeline's `train`, on the same networks.

torchloom trains with large batches, its own precision, memory layout, optimiser kernels and settings of threads and
malloc; the plain loop with the batch size of textbooks and PyTorch's defaults.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import inputs, ours, plain
from benchmarks.measure import Comparison, Options, Worker, interleave

ADAM: dict[str, Any] = {"name": "Adam", "lr": 0.001}
SGD: dict[str, Any] = {"name": "SGD", "lr": 0.05, "momentum": 0.9}


@dataclass(frozen=True)
class Contest:
    """`batch_sizes` are those of the plain loop and of torchloom; `images` are those of one turn on a CPU."""

    data: str
    network: dict[str, Any]
    optimizer: dict[str, Any]
    batch_sizes: tuple[int, int]
    images: int
    required: float | None = None


CONTESTS = {
    "MLP 784-512-10": Contest("mnist", {"name": "mlp"}, ADAM, (64, 2048), 40_960, required=12),
    "LeNet-5": Contest("mnist", {"name": "lenet"}, ADAM, (64, 512), 12_800),
    "LSTM over rows": Contest("mnist", {"name": "row_rnn", "width": 128}, ADAM, (64, 512), 12_800, required=3),
    "ResNet-18": Contest("cifar10", {"name": "resnet"}, SGD, (128, 512), 1_024, required=2.5),
}
MORE_ON_GPU = 20  # times the images


def run(options: Options) -> list[Comparison]:
    with Worker(plain.training, options.device) as textbook, Worker(ours.training, options.device) as torchloom:
        return [compare(title, contest, textbook, torchloom, options) for title, contest in CONTESTS.items()]


def compare(title: str, contest: Contest, textbook: Worker, torchloom: Worker, options: Options) -> Comparison:
    env = inputs.environment(contest.data, options.quick)
    folder = inputs.prepared(env, contest.data)
    images = contest.images * (MORE_ON_GPU if options.device == "cuda" else 1)
    theirs, our = contest.batch_sizes
    if options.quick:
        images, theirs, our = 16, min(theirs, 16), min(our, 16)
    sides = {
        f"plain PyTorch, batches of {theirs}": partial(
            textbook, folder, contest.network["name"], contest.optimizer, theirs, images
        ),
        f"torchloom, batches of {our}": partial(torchloom, folder, contest.network, contest.optimizer, our, images),
    }
    measured = interleave(sides, options.turns(7))
    baseline, _ = measured
    data = inputs.describe(env, contest.data)
    return Comparison(f"Training {title}", "images/s", measured, data, baseline, required=contest.required)
