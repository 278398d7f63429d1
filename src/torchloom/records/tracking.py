"""Trackers: MLflow or TensorBoard are shown what becomes of each task, epoch by epoch while it trains.

Both are extras, imported only when the block `tracking` asks for one. What they are shown decides nothing.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from torchloom.config import TrackingConfig
from torchloom.errors import InputError
from torchloom.records.runs import OUT_OF_FOLD
from torchloom.system.files import atomic_write
from torchloom.system.words import extra

logger = logging.getLogger(__name__)

PACKAGES = {"mlflow": "kedro_mlflow", "tensorboard": "tensorboard"}  # which each extra brings
Figures = Mapping[str, float]


class Tracker(Protocol):
    """Keeps the run of one task at a time."""

    def begin(self, task: str, run: str | None, parameters: Mapping[str, str], tags: Mapping[str, str]) -> str:
        """Go on with this run, if it is there, or begin another one; return which it is."""

    def epochs(self) -> set[int]:
        """Those whose figures the run has."""

    def log(self, figures: Figures, epoch: int) -> None:
        """Figures of the task after so many epochs."""

    def keep(self, name: str, path: Path) -> None:
        """A file or folder that a stage has left, under its name in the catalog without the task."""

    def end(self, ended: str) -> None:
        """`ended` is finished, failed or interrupted."""


class Tracking:
    """What a run of a pipeline shows a tracker; what goes wrong there ends the tracking, never the run."""

    def __init__(self, config: TrackingConfig, folder: Path, context: Any) -> None:
        """`folder` is where trackers keep their files. InputError when the one that is asked for cannot be used."""
        self.folder, self.task = folder / config.name, ""
        self.epochs: set[int] = set()
        self.tracker: Tracker | None = None
        package = PACKAGES.get(config.name)
        if package is None:
            return
        if find_spec(package) is None:
            raise InputError(
                f"tracking.name {config.name} needs {package.replace('_', '-')}, which is not installed. Install the "
                f"extra: {extra(config.name)}"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.tracker = MLflow(context) if config.name == "mlflow" else TensorBoard(self.folder)
        except Exception as error:
            raise InputError(f"tracking.name {config.name}: cannot be used ({error})") from error

    def begin(self, task: str, anew: bool, parameters: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """A stage of the task begins: go on with its last run, or begin one `anew`."""
        if task == self.task and not anew:
            return
        self.end("finished")
        note = self.folder / f"{task}.json"
        with self._forgiving() as tracker:
            last = json.loads(note.read_text(encoding="utf-8"))["run"] if note.is_file() and not anew else None
            run = tracker.begin(task, last, parameters, tags)
            self.task, self.epochs = task, tracker.epochs() if run == last else set()
            with atomic_write(note) as temporary:
                temporary.write_text(json.dumps({"run": run}) + "\n", encoding="utf-8")

    def watch(self, row: Figures) -> None:
        """See a row of the history, but not a second time when a training goes on from a state before it."""
        epoch = int(row["epoch"])
        if epoch not in self.epochs:
            self.epochs.add(epoch)
            with self._forgiving() as tracker:
                tracker.log({name: value for name, value in row.items() if name != "epoch"}, epoch)

    def results(self, metrics: Mapping[str, Any]) -> None:
        """See the figures on the test split, after the epoch that they are of."""
        measured = {name: value for name, value in metrics.items() if isinstance(value, float)}
        figures = {name if name.startswith(OUT_OF_FOLD) else f"test_{name}": value for name, value in measured.items()}
        with self._forgiving() as tracker:
            tracker.log(figures, int(metrics.get("epoch", 0)))

    def keep(self, name: str, path: Path) -> None:
        if path.exists():
            with self._forgiving() as tracker:
                tracker.keep(name, path)

    def end(self, ended: str) -> None:
        if self.task:
            self.task = ""
            with self._forgiving() as tracker:
                tracker.end(ended)

    @contextmanager
    def _forgiving(self) -> Iterator[Any]:
        try:
            yield self.tracker or _Nobody()
        except Exception as error:
            self.tracker, self.task = None, ""
            logger.warning("tracking ends here, and the run goes on: %s", error)


class _Nobody:
    """Takes everything and keeps nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: 0


# ---- MLflow --------------------------------------------------------------------------------------------------------

EVERY = 1.0  # seconds between two messages, each of which takes milliseconds
MOST = 900  # figures in a message
ENDED = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
LONGEST = 6000  # characters of a parameter


def open_mlflow(context: Any) -> Any:
    """The settings of conf/<env>/mlflow.yml, as kedro-mlflow reads them, put into force.

    They are left in `context.mlflow`, where its commands look for them.
    """
    from kedro_mlflow.config.kedro_mlflow_config import KedroMlflowConfig

    for library in ("alembic", "kedro_mlflow", "mlflow"):
        logging.getLogger(library).setLevel(logging.ERROR)
    config = KedroMlflowConfig.model_validate(context.config_loader["mlflow"])
    scheme, _, path = str(config.server.mlflow_tracking_uri).partition("sqlite:///")
    if path and not scheme:  # kedro-mlflow takes other relative paths from the project's folder on, but not these
        file = Path(context.project_path) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        config.server.mlflow_tracking_uri = f"sqlite:///{file}"
    config.setup(context)
    object.__setattr__(context, "mlflow", config)
    return config


class MLflow:
    """A run of MLflow for each task; its store and experiment are those of mlflow.yml."""

    def __init__(self, context: Any) -> None:
        config = open_mlflow(context)
        self.client = config.server._mlflow_client
        self.experiment = config.tracking.experiment._experiment.experiment_id
        self.run = ""
        self.waiting: list[Any] = []
        self.sent = 0.0

    def begin(self, task: str, run: str | None, parameters: Mapping[str, str], tags: Mapping[str, str]) -> str:
        from mlflow.entities import Param, RunTag
        from mlflow.exceptions import MlflowException

        try:
            known = self.client.get_run(run).data.params if run else {}
            self.run = run or ""
        except MlflowException:  # its store is another one
            known, self.run = {}, ""
        if self.run:
            self.client.update_run(self.run, status="RUNNING")
        else:
            self.run = self.client.create_run(self.experiment, run_name=task).info.run_id
        # what a run has been told of its parameters stays
        new = [Param(name, value[:LONGEST]) for name, value in parameters.items() if name not in known]
        for first in range(0, len(new), 100):
            self.client.log_batch(self.run, params=new[first : first + 100])
        self.client.log_batch(self.run, tags=[RunTag(name, value) for name, value in tags.items()])
        return self.run

    def epochs(self) -> set[int]:
        return {metric.step for metric in self.client.get_metric_history(self.run, "train_loss")}

    def log(self, figures: Figures, epoch: int) -> None:
        from mlflow.entities import Metric

        now = time.time()
        self.waiting += [Metric(name, value, int(now * 1000), epoch) for name, value in figures.items()]
        if now - self.sent > EVERY or len(self.waiting) > MOST:
            self._send()
            self.sent = now

    def _send(self) -> None:
        for first in range(0, len(self.waiting), MOST):
            self.client.log_batch(self.run, metrics=self.waiting[first : first + MOST])
        self.waiting = []

    def keep(self, name: str, path: Path) -> None:
        if path.suffix == ".onnx":
            self._keep_model(path)
        elif path.is_dir():
            self.client.log_artifacts(self.run, str(path), name)
        else:
            self.client.log_artifact(self.run, str(path))

    def _keep_model(self, path: Path) -> None:
        """As a model that `mlflow.pyfunc.load_model` opens and `mlflow models serve` serves."""
        import mlflow
        import onnx

        with mlflow.start_run(run_id=self.run, nested=True):
            mlflow.onnx.log_model(
                onnx.load(path), name="model", signature=_signature(path), pip_requirements=["onnx", "onnxruntime"]
            )
        self.client.update_run(self.run, status="RUNNING")

    def end(self, ended: str) -> None:
        self._send()
        self.client.set_terminated(self.run, ENDED[ended])


def _signature(path: Path) -> Any:
    """The inputs and outputs of an ONNX model; sizes that may vary are -1."""
    import numpy as np
    import onnx
    import onnxruntime
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(nodes: Any) -> Any:
        graph = onnx.load(path, load_external_data=False).graph
        kinds = {value.name: value.type.tensor_type.elem_type for value in [*graph.input, *graph.output]}
        return Schema(
            [
                TensorSpec(
                    np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kinds[node.name])),
                    [size if isinstance(size, int) else -1 for size in node.shape],
                    node.name,
                )
                for node in nodes
            ]
        )

    session = onnxruntime.InferenceSession(path)
    return ModelSignature(schema(session.get_inputs()), schema(session.get_outputs()))


# ---- TensorBoard ---------------------------------------------------------------------------------------------------


class TensorBoard:
    """A folder of event files for each run of a task, <task>/<when it began>: figures, pictures and the parameters."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, folder
        self.writer: Any = None
        self.epoch = 0

    def begin(self, task: str, run: str | None, parameters: Mapping[str, str], tags: Mapping[str, str]) -> str:
        from torch.utils.tensorboard import SummaryWriter

        known = bool(run) and (self.folder / str(run)).is_dir()
        name = str(run) if known else f"{task}/{time.strftime('%Y-%m-%dT%H.%M.%S')}"
        self.run = self.folder / name
        self.writer = SummaryWriter(str(self.run))
        if not known:
            for kind, values in {"parameters": parameters, "run": tags}.items():
                rows = "\n".join(f"| {key} | {value} |" for key, value in values.items())
                self.writer.add_text(kind, f"| | |\n|---|---|\n{rows}")
        return name

    def epochs(self) -> set[int]:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(self.run), {"scalars": 0}).Reload()
        known = "loss/train" in events.Tags()["scalars"]
        return {event.step for event in events.Scalars("loss/train")} if known else set()

    def log(self, figures: Figures, epoch: int) -> None:
        self.epoch = epoch
        for name, value in figures.items():
            split, _, figure = name.partition("_")
            # curves of the same figure stand together
            tag = f"{figure}/{split}" if split in {"train", "val", "test"} else f"training/{name}"
            self.writer.add_scalar(tag, value, epoch)

    def keep(self, name: str, path: Path) -> None:
        if path.suffix == ".png":
            import numpy as np
            from PIL import Image

            with Image.open(path) as picture:
                self.writer.add_image(name, np.asarray(picture.convert("RGB")), self.epoch, dataformats="HWC")

    def end(self, ended: str) -> None:  # noqa: ARG002
        self.writer.close()
