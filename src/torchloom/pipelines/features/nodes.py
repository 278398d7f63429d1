"""The stage that keeps what layers inside a trained network answer to each sample."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchloom.config import ExportConfig, FeaturesConfig
from torchloom.pipelines.training.nodes import check_parity
from torchloom.system.words import counted
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import Table

    from torchloom.export.features import Featured
else:
    Table = Any  # Kedro resolves the annotations of the stages; it takes long to import

logger = logging.getLogger(__name__)

PROBED = 8  # samples by which the forms of what layers give are told


def features(
    checkpoint: Checkpoint, loaders: LoaderPlan, config: FeaturesConfig, export: ExportConfig, scratch: Path
) -> tuple[Table, bytes]:
    """A table with a row for each sample, and the model in ONNX with what the layers give as further outputs.

    The columns are the split, the number of the sample in it, what `predict` calls it and what is true of it, and for
    each layer a list of float32: it stays one column however wide it is, and polars, DuckDB and numpy.stack make an
    array of it. The table lies in a temporary file in the folder `scratch`: memory may not hold it. Raises InputError
    when a layer is not there, or when ONNX Runtime does not give the same.
    """
    from torchloom.export.features import featured
    from torchloom.export.onnx import onnx_parity, signature, to_onnx
    from torchloom.inference.model import OUTPUT
    from torchloom.problems import problem_of
    from torchloom.system.progress import working

    model = checkpoint.build()
    exported = problem_of(checkpoint.problem).exported(model).eval()
    some = loaders.samples("test", PROBED)
    made = featured(exported, model, config.layers, config.pool, checkpoint.info, some)
    form = signature(exported, loaders.samples("test", max(2, *export.batch_sizes)), checkpoint)
    form = form._replace(outputs=[*form.outputs, *(OUTPUT + name for name in config.layers)])
    said = [
        {"name": name, "steps": axes.steps is not None and config.pool == "none"}
        for name, axes in zip(config.layers, made.layers.values(), strict=True)
    ]
    with working("exporting the features to ONNX"):
        onnx_model = to_onnx(made, form, checkpoint, export.opset, {"layers": said})
        report = onnx_parity(made, onnx_model, form, export.batch_sizes)
    check_parity("the exported model of the features", report, export)
    table = _table(made, config, checkpoint, loaders, scratch)
    logger.info("features of %s: %s", counted(len(table), "sample"), ", ".join(config.layers))
    return table, onnx_model


def _table(made: Featured, config: FeaturesConfig, checkpoint: Checkpoint, loaders: LoaderPlan, scratch: Path) -> Table:
    import pyarrow

    from torchloom.inference.kept import Kept

    kept: Kept | None = None
    for split in config.splits:
        for columns in _columns(made, config, checkpoint, loaders, split):
            batch = pyarrow.record_batch(columns)
            kept = kept or Kept(batch.schema, scratch)
            kept.add(batch)
    assert kept is not None  # there are test samples, or the loaders would not be
    with kept:
        return kept.table()


def _columns(
    made: Featured, config: FeaturesConfig, checkpoint: Checkpoint, loaders: LoaderPlan, split: str
) -> Iterator[dict[str, Any]]:
    """Those of each batch of a split, in the order of its samples, as they are."""
    import pyarrow
    import torch

    from torchloom.problems import problem_of
    from torchloom.problems.evaluation import smaller_batches
    from torchloom.system.devices import choose_device, enough_memory
    from torchloom.system.progress import step_bar

    info, problem = checkpoint.info, problem_of(checkpoint.problem)
    # the split test is the one that is neither shuffled nor changed
    plan = loaders.model_copy(update={"splits": {**loaders.splits, "test": loaders.splits[split]}})
    loader = plan.loader("test", choose_device(config.device))
    advice = smaller_batches(loader.sampler.batch_size)  # type: ignore[attr-defined]
    made.to(choose_device(config.device))
    start = 0
    with torch.no_grad(), enough_memory(advice), step_bar() as bar:
        task = bar.add_task(f"features of {split}", total=len(loader), status="")
        for *inputs, target in bar.track(loader, total=len(loader), task_id=task):
            heard = made.hear(*inputs)[1]
            numbers = range(start, start + len(target))
            start += len(target)
            told = info.target.said(target.cpu().numpy()) if info.target else None
            layers = (_column(values.cpu().numpy(), real) for values, real in heard.values())
            yield {
                "split": pyarrow.array([split] * len(target), pyarrow.string()),
                "sample": pyarrow.array(numbers, pyarrow.int64()),
                **{name: pyarrow.array(values) for name, values in info.named(plan, numbers).items()},
                **(problem.truth(told, info) if told is not None else {}),
                **dict(zip(config.layers, layers, strict=True)),
            }


def _column(values: Any, real: Any) -> pyarrow.Array:
    """Lists of float32 of (N, width), or of (N, steps, width) of each sample's own steps."""
    import numpy as np
    import pyarrow

    if values.ndim == 2:
        width = values.shape[1]
        return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.reshape(-1)), width)
    counts = real.tolist() if real is not None else [values.shape[1]] * len(values)
    rows = [row[:count].reshape(-1) for row, count in zip(values, counts, strict=True)]
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    return pyarrow.ListArray.from_arrays(pyarrow.array(offsets), pyarrow.array(np.concatenate(rows)))
