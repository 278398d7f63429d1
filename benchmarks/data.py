"""Part data: batches of CIFAR-10's shape, cropped, flipped and normalised; a PIL DataLoader against torchloom's."""

from functools import partial

from benchmarks import inputs, ours, plain
from benchmarks.measure import Comparison, Options, Worker, interleave

BATCH = 128


def run(options: Options) -> list[Comparison]:
    env = inputs.environment("cifar10", options.quick)
    task = (inputs.prepared(env, "cifar10"), BATCH, BATCH * (4 if options.quick else 200))
    with Worker(plain.data_path, options.device) as textbook, Worker(ours.data_path, options.device) as torchloom:
        sides = {
            "PIL DataLoader, no workers": partial(textbook, *task, 0),
            "PIL DataLoader, 2 workers": partial(textbook, *task, 2),
            "torchloom": partial(torchloom, *task),
        }
        measured = interleave(sides, options.turns(7))
    fastest = max(list(measured)[:2], key=lambda side: sorted(measured[side])[len(measured[side]) // 2])
    note = f"batches of {BATCH}, random crop, flip, normalisation; the ratio is to the faster of the plain ones"
    data = inputs.describe(env, "cifar10")
    return [Comparison("Data path", "images/s", measured, data, fastest, required=15, note=note)]
