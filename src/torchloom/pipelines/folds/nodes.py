"""The stages of a cross-validation. What they need is imported when they run, as in all stages."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import statistics
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchloom.config import AnewConfig, DataConfig, DebuggingConfig, DistributedConfig, FoldsConfig
from torchloom.data import readers
from torchloom.data.folds import Fold
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.pipelines.training.nodes import Trained, build_dataloaders, train
from torchloom.problems.base import Problem
from torchloom.records.provenance import Lineage, code_of, strings
from torchloom.records.runs import OUT_OF_FOLD, main_figures
from torchloom.system.files import atomic_write
from torchloom.system.words import counted
from torchloom.training.loaders import LoaderPlan
from torchloom.training.state import TrainingStates

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any  # Kedro resolves the annotations of the stages; it takes long to import

logger = logging.getLogger(__name__)

Rows = list[dict[str, Any]]
Prepared = tuple[Tensors, Tensors, Tensors, dict[str, Any]]
ISSUES, SHOWN = "label_issues.csv", 20  # on the page; the file has all of them
PICTURE = (
    "The main metrics: a point for each model on the fold that it has not seen, the mean and, shaded, one standard "
    "deviation to both sides."
)
SHOWN_METRICS = 4
COUNTS = {"fold", "epoch", "test_samples"}  # of a fold, of which no mean is a metric


def cross_validate(
    loaders: LoaderPlan,
    data: DataConfig,
    network: Any,
    training: Any,
    evaluation: Any,
    folds: FoldsConfig,
    distributed: DistributedConfig,
    debugging: DebuggingConfig,
    states: TrainingStates,
    finished: Path,
    source: Any = None,
    preparation: Any = None,
    *,
    problem: Problem,
    reader: str = "",
) -> tuple[Rows, Rows]:
    """Train once without each fold of the training and validation samples; the test split is not touched.

    Returns the metrics of each training on its fold, and what it answers to each sample of it, by the sample's number
    among those of training and then validation. What is done with a fold is kept in the folder `finished`: a run that
    was stopped goes on, in the middle of a training too. With a `reader` the data of each fold are prepared anew from
    the `source`, as the block `preparation` says. InputError when something cannot be trained or divided.
    """
    if debugging.on:
        raise InputError("debugging: folds are whole trainings; leave it, or its environment, out")
    # a state is found by all that its training hangs on, and so there is nothing to ask
    training = training.model_copy(
        update={"resume": "never" if training.resume == "never" else "auto", "keep_state": False}
    )
    results = []
    for number in range(folds.count):
        logger.info("fold %d of %d", number + 1, folds.count)
        plan = fold_of(loaders, folds, number)
        room = finished / f"fold-{number + 1}-data"
        numbers = plan.numbers("test").tolist()
        if reader:
            tensors = _prepared(plan, source, preparation, reader, room)
            anew = build_dataloaders(*tensors, data, training, evaluation, debugging)
            plan = anew.model_copy(update={"tested": plan.tested})
        digest = _digest(problem, plan, network, training, evaluation)
        own = TrainingStates(states.folder / f"fold-{number + 1}-{digest[:16]}")
        path = finished / f"fold-{number + 1}.json"
        result = _kept(path, digest)
        if result:
            logger.info("fold %d is done: %s", number + 1, path)
        else:
            trained = train(plan, network, training, distributed, debugging, own, problem=problem)
            result = {"recipe": digest, **_measured(problem, plan, numbers, trained, evaluation)}
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps(result) + "\n", encoding="utf-8")
        shutil.rmtree(room, ignore_errors=True)
        for left in states.folder.glob(f"fold-{number + 1}-*"):  # of this training, and of others before it
            TrainingStates(left).clear()
        results.append(result)
    return _together(results)


def _prepared(plan: LoaderPlan, source: Any, preparation: AnewConfig, reader: str, room: Path) -> Prepared:
    """What the reader makes of the data of a fold: nothing of it hangs on samples that are not to train."""
    known, splits = readers.reader(reader), ("train", "validation", "test")
    numbers = {split: plan.numbers(split).tolist() if plan.splits[split] else [] for split in splits}
    function = known.preprocess if getattr(preparation, "entry", None) is None else known.preprocess_entry
    scratch = [room] if "scratch" in signature(function).parameters else []
    room.mkdir(parents=True, exist_ok=True)
    *made, info = function(source, preparation.of_fold(numbers), *scratch)
    datasets = [TensorsDataset(filepath=str(room / f"{split}.safetensors")) for split in splits]
    for dataset, tensors in zip(datasets, made, strict=True):
        dataset.save(tensors)
    train, validation, test = (dataset.load() for dataset in datasets)
    return train, validation, test, info


def _together(results: list[dict[str, Any]]) -> tuple[Rows, Rows]:
    """A row of metrics for each fold, those that all of them have, and the answers in the order of the samples."""
    numbered = list(enumerate(results, 1))
    names = [name for name in results[0]["metrics"] if all(name in result["metrics"] for result in results)]
    metrics = [{"fold": number, **{name: result["metrics"][name] for name in names}} for number, result in numbered]
    answers = [{"sample": row["sample"], "fold": number, **row} for number, each in numbered for row in each["answers"]]
    return metrics, sorted(answers, key=lambda row: row["sample"])


def _digest(problem: Problem, plan: LoaderPlan, network: Any, training: Any, evaluation: Any) -> str:
    """What tells this training of a fold from others: its parameters, data and code."""
    names = [network.name, problem.name, plan.info.kind, *strings(training.recipe())]
    blocks = [network.model_dump(mode="json"), training.recipe(), evaluation.model_dump(mode="json"), plan.recipe()]
    code = code_of(train, problem.evaluate, problem.answers_to, problem.objective, names=names)
    return hashlib.sha256(json.dumps([blocks, code], sort_keys=True).encode()).hexdigest()


def _measured(
    problem: Problem, plan: LoaderPlan, numbers: list[int], trained: Trained, evaluation: Any
) -> dict[str, Any]:
    """How the model does on its fold, and its answer to each sample of it, whose `numbers` these are."""
    made = problem.evaluate(trained.best, plan, trained.history, evaluation)
    rows = problem.answers_to(trained.best, plan, evaluation)
    answers = [{"sample": sample, **row} for sample, row in zip(numbers, rows, strict=True)] if rows else []
    return {"metrics": made["metrics"], "answers": answers}


def fold_of(loaders: LoaderPlan, folds: FoldsConfig, number: int) -> LoaderPlan:
    """The loaders with all that is not the fold to train and, in the same share as before, to validate on."""
    together = [*loaders.splits["train"], *loaders.splits["validation"]]
    share = loaders.length("validation") / (loaders.length("train") + loaders.length("validation"))
    fold = Fold(number=number, count=folds.count, validation=share, seed=folds.seed)
    splits = {"train": together, "validation": together if share else [], "test": together}
    plan = loaders.model_copy(update={"splits": splits, "fold": fold, "tested": "out-of-fold"})
    return plan.model_copy(update={"info": plan.info.measured(plan)})


def _kept(path: Path, digest: str) -> dict[str, Any] | None:
    """What an earlier run has left of a fold that was trained in the same way."""
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return result if result["recipe"] == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def report_folds(
    loaders: LoaderPlan, folds: Rows, answers: Rows, lineage: Lineage, *, problem: Problem
) -> tuple[dict[str, float], Rows, Figure, str]:
    """Mean and standard deviation of each metric over the folds, labels that are likely wrong, a figure of the main
    metrics, and a page on it."""
    from torchloom.reporting.page import png
    from torchloom.system.figures import by_fold

    rows = [{name: float(value) for name, value in row.items()} for row in folds]
    metrics: dict[str, float] = {}
    for name in [name for name in rows[0] if name not in COUNTS]:
        values = [row[name] for row in rows]
        mean, deviation = statistics.fmean(values), statistics.stdev(values)
        metrics |= {f"{OUT_OF_FOLD}{name}": mean, f"{OUT_OF_FOLD}{name}_deviation": deviation}
        logger.info("out-of-fold %s %.4f ± %.4f over %d folds", name, mean, deviation, len(rows))
    doubt = problem.doubt({name: metrics[f"{OUT_OF_FOLD}{name}"] for name in rows[0] if name not in COUNTS})
    if doubt:
        logger.warning("on average over the folds: %s", doubt)
    together = [*loaders.splits["train"], *loaders.splits["validation"]]
    whole = loaders.model_copy(update={"splits": {**loaders.splits, "test": together}})
    issues = problem.label_issues(answers, whole)
    if issues:
        found = f"{counted(len(issues), 'label')} of {len(answers):,}"
        logger.warning("%s may be wrong, by the answers of models that have not seen them: look at %s", found, ISSUES)
    main = main_figures({name: value for name, value in rows[0].items() if name not in COUNTS}, most=SHOWN_METRICS)
    figure = by_fold({name: [row[name] for row in rows] for name in main}, problem.units(loaders.info))
    title, called = f"{lineage.task}: {counted(len(rows), 'fold')}", problem.called(loaders.info)
    return metrics, issues, figure, _page(title, called, doubt or "", rows, metrics, issues, png(figure))


def _page(
    title: str, called: str, doubt: str, folds: Rows, metrics: dict[str, float], issues: Rows, picture: bytes
) -> str:
    from torchloom.reporting.page import Facts, Picture, Section, Table, render

    names = [name for name in folds[0] if name not in COUNTS]
    means = {name: metrics[f"{OUT_OF_FOLD}{name}"] for name in names}
    over = {
        f"out-of-fold {name}".replace("_", " "): f"{mean:.4f} ± {metrics[f'{OUT_OF_FOLD}{name}_deviation']:.4f}"
        for name, mean in means.items()
    }
    rows = [{"fold": str(int(row["fold"])), **{name: row[name] for name in names}} for row in folds]
    table = Table("Each fold", rows)
    caption = f"Labels to look at, which may be wrong: the first {SHOWN} of {len(issues):,}; all are in {ISSUES}"
    return render(
        title,
        f"{called.capitalize()}: a training without each fold, measured on that fold. Of the folds there are the mean "
        f"± the standard deviation. {doubt}".rstrip(),
        dict(list(over.items())[:4]),
        [
            Section("Mean and standard deviation", [Facts("Over the folds", over), Picture(PICTURE, picture), table]),
            Section("Labels", [Table(caption, issues[:SHOWN])] if issues else []),
        ],
    )
