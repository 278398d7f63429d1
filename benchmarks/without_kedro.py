"""What `kedro run --pipelines mnist_mlp` does, as a plain script of the same functions: `… without_kedro ENV FOLDER`.

(The functions' modules import kedro.io for the classes that read and write files. What is missing is the command line,
the session, the configuration and its checks, the catalog, the runner and the hooks.)
"""

import json
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from benchmarks import inputs
from benchmarks.stages import evaluate, train
from torchloom.config import DataConfig, DebuggingConfig, DistributedConfig, ExportConfig, ImagesPreprocessConfig
from torchloom.data.download import download
from torchloom.data.readers.mnist import preprocess
from torchloom.datasets.onnx import ONNXDataset
from torchloom.datasets.raw import RawFiles, Source
from torchloom.datasets.tensors import TensorsDataset
from torchloom.pipelines.training.nodes import build_dataloaders, export_onnx
from torchloom.problems.classification.config import (
    ClassificationTrainConfig,
    ClassifierConfig,
    EvaluateClassifierConfig,
)
from torchloom.training.checkpoint import CheckpointDataset
from torchloom.training.loaders import LoaderPlan, LoaderPlanDataset
from torchloom.training.state import TrainingStates


def main(env: str, folder: Path) -> None:
    task = inputs.parameters("mnist_mlp", env)
    training = ClassificationTrainConfig.model_validate(task["train"])
    evaluation = EvaluateClassifierConfig.model_validate(task["evaluate"])
    plan = prepare(verified(env), env, folder, DataConfig.model_validate(task["data"]), training, evaluation)
    LoaderPlanDataset(filepath=str(folder / "dataloaders.json")).save(plan)
    states = TrainingStates(folder / "training_states")
    network = ClassifierConfig.model_validate(task["model"])
    best, last, history, _ = train(plan, network, training, DistributedConfig(), DebuggingConfig(), states)
    CheckpointDataset(filepath=str(folder / "checkpoint.safetensors")).save(best)
    CheckpointDataset(filepath=str(folder / "last_checkpoint.safetensors")).save(last)
    save(history, folder / "history")
    states.clear()
    for number, report in enumerate(evaluate(best, plan, history, evaluation).values()):
        save(report, folder / f"report_{number}")
    onnx, report = export_onnx(best, plan, ExportConfig.model_validate(task["export"]))
    ONNXDataset(filepath=str(folder / "model.onnx")).save(onnx)
    save(report, folder / "export_report")


def verified(env: str) -> RawFiles:
    """The raw files, held to their checksums."""
    known = OmegaConf.load(Path("conf") / env / "catalog_sources.yml").mnist_source
    folder = inputs.data_folder(env) / "01_raw" / "mnist"
    return download(Source("mnist", folder, dict(known.files), known.get("fetch", "{name}"), list(known.places)))


def prepare(raw: RawFiles, env: str, folder: Path, data: DataConfig, training: Any, evaluation: Any) -> LoaderPlan:
    """Read, split, save and plan the loaders of what was saved."""
    config = ImagesPreprocessConfig.model_validate(inputs.parameters("mnist", env)["preprocess"])
    *splits, info = preprocess(raw, config)
    files = [TensorsDataset(filepath=str(folder / f"{name}.safetensors")) for name in ("train", "validation", "test")]
    for file, tensors in zip(files, splits, strict=True):
        file.save(tensors)
    save(info, folder / "info")
    train_split, validation, test = (file.load() for file in files)
    return build_dataloaders(train_split, validation, test, info, data, training, evaluation, DebuggingConfig())


def save(report: Any, path: Path) -> None:
    """A figure as PNG, anything else as JSON."""
    if hasattr(report, "savefig"):
        report.savefig(path.with_suffix(".png"))
    else:
        path.with_suffix(".json").write_text(json.dumps(report, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
