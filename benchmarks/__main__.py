"""The command: choose parts, run them, print tables, write JSON and pictures."""

import argparse
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.measure import Options, machine, report

PARTS = {
    "data": "benchmarks.data",
    "step": "benchmarks.step",
    "end_to_end": "benchmarks.end_to_end",
    "inference": "benchmarks.inference",
    "overhead": "benchmarks.overhead",
    "scaling": "benchmarks.scaling",
    "distribution": "benchmarks.distribution",
    "streaming": "benchmarks.streaming",
    "start": "benchmarks.start",
    "recompute": "benchmarks.recompute",
    "gpu": "benchmarks.records",
}


def main() -> None:
    options, parts = parse()
    print("\n".join(f"{name}: {value}" for name, value in machine(options.device).items()))
    for part in parts:
        report(part, import_module(PARTS[part]).run(options), options)


def parse() -> tuple[Options, list[str]]:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__, epilog="parts: " + ", ".join(PARTS))
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help="all if none is given; gpu then only with CUDA")
    add("--quick", action="store_true", help="tiny sizes on drawn data: shows that all works, measures nothing")
    add(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="of data, step, inference, scaling and distribution",
    )
    add("--repeats", type=int, help="turns that each side takes; else each part's own number")
    add("--goal", type=float, help="end_to_end: test accuracy to reach (default 0.983, 0.9 on drawn data)")
    add("--env", help="gpu: Kedro's environment (default gpu with CUDA, else cpu)")
    add("--runs", nargs="+", metavar="TASK=COUNT", help="gpu: how many seeds of which tasks")
    add("--minutes", type=float, default=10.0, help="gpu: no run is started after that, nor one that would last longer")
    add("--output", type=Path, default=Path("benchmarks/results"), help="folder of the JSON files and pictures")
    given = vars(parser.parse_args())
    parts = given.pop("parts")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    cuda = torch.cuda.is_available()
    if given["device"] == "cuda" and not cuda:
        parser.error("--device cuda: there is none")
    if given["device"] == "auto":
        given["device"] = "cuda" if cuda else "cpu"
    return Options(**given), parts or [part for part in PARTS if part != "gpu" or cuda]


if __name__ == "__main__":
    main()
