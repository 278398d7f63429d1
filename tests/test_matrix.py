"""Each network on each kind of data and for each problem that it fits, on tiny data: docs/reference/matrix.md.

A test writes what it found into its line of the page, and fails where the page said something else: see what changed
with git diff, and commit it if it is right.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor, nn

from conftest import ROOT
from tests.sounds import HEIGHTS, whistles
from tests.tables import films, hours, reviews, waves, write
from torchloom.compression.quantization import quantize_model
from torchloom.config import (
    BookPreprocessConfig,
    DataConfig,
    DebuggingConfig,
    DistributedConfig,
    ExportConfig,
    LabelledSeriesPreprocessConfig,
    PairsPreprocessConfig,
    PicturesPreprocessConfig,
    QuantizeConfig,
    SeriesPreprocessConfig,
    SoundFilesPreprocessConfig,
    TableFilesPreprocessConfig,
    TextFilesPreprocessConfig,
)
from torchloom.data.readers import book, labelled_series, pictures, series, sounds, table, texts
from torchloom.data.readers import pairs as pair_reader
from torchloom.datasets.tensors import TensorsDataset
from torchloom.inference.model import open_model
from torchloom.modalities import MODALITIES
from torchloom.models import network_names, sizes_of
from torchloom.pipelines.training.nodes import build_dataloaders, export_onnx, train
from torchloom.problems import problem_names, problem_of
from torchloom.tasks import METHODS
from torchloom.training.callbacks import Callback
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan
from torchloom.training.state import TrainingStates

PAGE = ROOT / "docs/reference/matrix.md"
Prepared = tuple[Any, Any, Any, dict[str, Any]]
Cell = tuple[str, str, str]  # problem, modality, network

BERT = {"model_type": "bert", "vocab_size": 1000, "hidden_size": 16, "intermediate_size": 32}
BERT |= {"num_hidden_layers": 1, "num_attention_heads": 2}
# As small as they can be and still are what they are.
SMALL: dict[str, dict[str, Any]] = {
    "airbench": {"widths": [8, 8, 8], "scale": 1.0},
    "alexnet": {"width": 2},
    "audio_cnn": {"widths": [8, 8]},
    "autoencoder": {"hidden": [16], "latent": 4},
    "cnn": {"width": 4, "hidden": 8},
    "dcgan": {"latent": 8, "width": 4},
    "densenet": {"depth": 10, "growth": 4},
    "ft_transformer": {"width": 8, "heads": 2, "layers": 2, "feedforward": 8},
    "huggingface": {"config": BERT},
    "language_rnn": {"embedding": 8, "width": 16},
    "language_transformer": {"width": 16, "layers": 2, "heads": 2, "context": 8},
    "mlp": {"hidden": [16]},
    "patchtst": {"patch": 4, "stride": 2, "width": 8, "heads": 2, "layers": 1, "feedforward": 8},
    "resnet": {"depth": 18, "width": 4},
    "row_rnn": {"width": 16},
    "series_cnn": {"widths": [8], "kernels": [3]},
    "series_lstm": {"width": 16},
    "series_transformer": {"width": 8, "heads": 2, "layers": 1},
    "tabm": {"hidden": [8], "members": 4},
    "tabular_mlp": {"hidden": [8]},
    "translation_rnn": {"width": 16},
    "translation_transformer": {"width": 16, "layers": 1, "heads": 2},
    "tcn": {"width": 8, "blocks": 2},
    "text_cnn": {"embedding": 8, "width": 8},
    "text_ngrams": {"rows": 50, "embedding": 8, "width": 8},
    "text_rnn": {"embedding": 8, "width": 8},
    "text_transformer": {"width": 16, "layers": 1, "heads": 2},
    "unet": {"width": 4, "depth": 2},
    "vgg": {"depth": 11, "width": 4},
    "vit": {"patch": 8, "width": 16, "layers": 1, "heads": 2},
}
THEIRS = ["timm/test_resnet", "torchvision/mobilenet_v3_small"]  # of each library for pictures, a small one
TARGETS = {"classification": "kind", "multilabel": "tags", "regression": "size"}


# ---- the data ------------------------------------------------------------------------------------------------------


def asked(number: int) -> dict[str, Any]:
    """Of the sample of that number what each problem asks: a class, some labels and a number."""
    kind = number % 3
    tags = ";".join(name for name, held in {"even": kind != 1, "high": kind == 2}.items() if held)
    return {"kind": "abc"[kind], "tags": tags, "size": 10.0 + 5 * kind}


def prepared(reader: Any, block: Any, folder: Path, problem: str, **given: Any) -> Prepared:
    target = TARGETS.get(problem)
    more = {"target": target} if target else {}
    more |= {"separator": ";"} if problem == "multilabel" else {}
    config = block.model_validate({**given, **more})
    found: Prepared = reader.preprocess(reader.find(config), config, folder)
    return found


def images(folder: Path, problem: str) -> Prepared:
    """A bright square on a dark ground, at a height that tells the class, with its place as a mask."""
    rows = []
    for number in range(48):
        mask = np.zeros((32, 32), np.uint8)
        mask[4 + 8 * (number % 3) : 12 + 8 * (number % 3), 8:24] = 255
        noise = np.random.default_rng(number).integers(0, 40, (32, 32, 3), dtype=np.uint8)
        for place, pixels in {"image": noise + mask[..., None] // 2, "label": mask}.items():
            (folder / "own" / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"own/{place}/{number:02}.png")
        rows.append({"picture": f"own/image/{number:02}.png", **asked(number)})
    files = str(folder / "own") if problem == "segmentation" else str(write(folder / "all.csv", rows))
    given: dict[str, Any] = {"files": files, "size": [32, 32]}
    target = {} if problem in {*TARGETS, "segmentation"} else {"target": "kind"}
    return prepared(pictures, PicturesPreprocessConfig, folder, problem, **given, **target)


def documents(folder: Path, problem: str) -> Prepared:
    said = ["soup was cold and late", "bread is warm and fresh", "a street in the evening"]
    if problem == "translation":
        rows = [{"words": said[n % 3], "number": f"{n % 3}{n % 2}"} for n in range(60)]
        given = {"files": str(write(folder / "all.csv", rows)), "text": "words", "target": "number"}
        return prepared(pair_reader, PairsPreprocessConfig, folder, problem, **given)
    rows = [{"review": f"{said[n % 3]} {row['review']}", **asked(n)} for n, row in enumerate(reviews(60))]
    return prepared(texts, TextFilesPreprocessConfig, folder, problem, files=str(write(folder / "all.csv", rows)))


def a_table(folder: Path, problem: str) -> Prepared:
    rows = [{"laughs": row["laughs"], "level": n % 3 + row["lat"], **asked(n)} for n, row in enumerate(films(90))]
    rows = [{key: value for key, value in row.items() if key in {"laughs", "level", TARGETS[problem]}} for row in rows]
    return prepared(table, TableFilesPreprocessConfig, folder, problem, files=str(write(folder / "all.csv", rows)))


def audio(folder: Path, problem: str) -> Prepared:
    made = whistles(folder / "own", 48)
    rows = [{"sound": row["sound"], **asked(list(HEIGHTS).index(row["height"]))} for row in made]
    files = str(write(folder / "own/all.csv", rows))
    return prepared(sounds, SoundFilesPreprocessConfig, folder, problem, files=files)


def whole_series(folder: Path, problem: str) -> Prepared:
    rows = []
    for number, row in enumerate(waves(60)):
        values = {f"t{step}": (row[f"t{step}"] or 0.0) + 2 * (number % 3) for step in range(20)}
        rows.append({**values, **asked(number)})
    given = {"files": str(write(folder / "all.csv", rows)), "columns": [f"t{step}" for step in range(20)]}
    return prepared(labelled_series, LabelledSeriesPreprocessConfig, folder, problem, **given)


def steps_of_series(folder: Path, problem: str) -> Prepared:
    path = write(folder / "hours.csv", hours(200))
    given = {"files": str(path), "columns": ["load", "heat"], "window": 24, "horizon": 6}
    return prepared(series, SeriesPreprocessConfig, folder, problem, **given)


def running_text(folder: Path, problem: str) -> Prepared:
    (folder / "own.txt").write_text("".join(f"{row['review']}. " for row in reviews(40)))
    return prepared(book, BookPreprocessConfig, folder, problem, files=str(folder / "own.txt"))


DATA: dict[str, Callable[[Path, str], Prepared]] = {
    "images": images,
    "documents": documents,
    "text": running_text,
    "table": a_table,
    "audio": audio,
    "series": steps_of_series,
    "labelled_series": whole_series,
}


# ---- the cells -----------------------------------------------------------------------------------------------------


def pairs() -> Iterator[tuple[str, str]]:
    """Each problem with each modality that it accepts and that has what it asks for."""
    for name in problem_names():
        problem = problem_of(name)
        own = problem.modalities != problem_of("regression").modalities  # it is for a few modalities
        for kind, info in MODALITIES.items():
            has_targets = kind not in {"series", "text"}  # of which what comes next is asked
            learnt = kind != "draws"  # which are what a generator is asked for
            if learnt and issubclass(info, problem.modalities) and (own or has_targets):
                yield name, kind


def networks_of(problem: str, kind: str) -> list[str]:
    asked = problem_of(problem).network
    ours = network_names(asked.outputs, asked.inputs or MODALITIES[kind].size_names)
    return [*ours, *(THEIRS if "mlp" in ours and kind == "images" else [])]


CELLS: list[Cell] = [(*pair, network) for pair in pairs() for network in networks_of(*pair)]


class PowerCut(BaseException):
    """Nothing is asked any more."""


class Cut(Callback):
    """Ends a training after its third step, where it is told to."""

    armed = False

    def on_step(self, step: int, model: nn.Module, loss: Tensor) -> None:
        if Cut.armed and step == 3:
            raise PowerCut


class Trial:
    """One network on one kind of data, for one problem."""

    def __init__(self, folder: Path, cell: Cell) -> None:
        name, kind, network = cell
        self.folder, self.problem = folder, problem_of(name)
        *splits, info = DATA[kind](folder, name)
        settings: dict[str, Any] = {"epochs": 3, "batch_size": 8, "optimizer": {"name": "Adam", "lr": 0.01}}
        settings |= {"threads": 1, "precision": "fp32", "save_minutes": 1e-6, "device": "cpu"}
        settings |= {"callbacks": [{"name": "test_matrix.Cut"}]}
        self.training: Any = self.problem.training(**settings)
        self.network = self.problem.network(name=network, **SMALL.get(network, {}))
        tensors = [self.saved(part, split) for part, split in zip(("train", "val", "test"), splits, strict=True)]
        evaluation, data = self.problem.evaluation(), DataConfig(window=16) if kind == "text" else DataConfig()
        self.plan: LoaderPlan = build_dataloaders(*tensors, info, data, self.training, evaluation, DebuggingConfig())
        self.trained = self.train("whole")

    def saved(self, name: str, tensors: Any) -> Any:
        dataset = TensorsDataset(filepath=str(self.folder / f"{name}.safetensors"))
        dataset.save(tensors)
        return dataset.load()

    def train(self, states: str) -> Any:
        stage = partial(train, self.plan, self.network, self.training, DistributedConfig(), DebuggingConfig())
        return stage(TrainingStates(self.folder / states), problem=self.problem)

    @property
    def checkpoint(self) -> Checkpoint:
        best: Checkpoint = self.trained.best
        return best

    def learns(self) -> str:
        figures = [row.get("val_frechet", row["train_loss"]) for row in self.trained.history]  # a contest has no loss
        assert min(figures[1:]) < figures[0]
        return "yes"

    def goes_on(self) -> str:
        Cut.armed = True
        with pytest.raises(PowerCut):
            self.train("cut")
        Cut.armed = False
        assert TrainingStates(self.folder / "cut").files()
        found = self.train("cut")
        assert found.last.fingerprint() == self.trained.last.fingerprint()
        return "same bits"

    def exports(self) -> str:
        self.exported, report = export_onnx(self.checkpoint, self.plan, ExportConfig())
        assert report["greatest_difference"] < 1e-3
        return "yes"

    def compiles(self) -> str:
        """By the gradients of the loss; what inductor makes of such a graph is seen in models/test_compiled.py."""
        model = self.checkpoint.build().train()
        without_dropout(model)
        objective = self.problem.objective(self.training, self.plan.info)
        batch = tuple(self.plan.first("train", 8))
        plain, compiled = (gradients(model, called, objective, batch) for called in (model, captured(model)))
        assert plain.keys() == compiled.keys()
        for name, gradient in plain.items():
            torch.testing.assert_close(compiled[name], gradient, rtol=1e-3, atol=1e-4, msg=name)
        return "yes"

    def quantizes(self) -> str:
        """As the method quantization does, which is for this problem only."""
        if METHODS["quantization"].parent != self.problem.name:
            return "for classes only"
        samples = {name: tensor.numpy() for name, tensor in self.plan.samples("train", 100).items()}
        made = quantize_model(self.exported, samples, QuantizeConfig())
        assert len(made) < len(self.exported) + 100_000  # of networks as small as these nodes take more than weights
        plain, small = (self.answers(name, model) for name, model in {"plain": self.exported, "small": made}.items())
        agreed = float((plain.argmax(1) == small.argmax(1)).mean())
        assert agreed >= 0.75
        return "yes"

    def answers(self, name: str, model: bytes) -> np.ndarray:
        path = self.folder / f"{name}.onnx"
        path.write_bytes(model)
        inputs = {key: tensor.numpy() for key, tensor in self.plan.samples("train", 100).items()}
        found: np.ndarray = open_model(path, threads=1).run("logits", **inputs)
        return found


def without_dropout(model: nn.Module) -> None:
    """What torch.compile draws are other numbers."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0  # type: ignore[assignment]


def captured(model: nn.Module) -> Any:
    torch._dynamo.reset()
    return torch.compile(model, backend="aot_eager_decomp_partition")


def gradients(model: nn.Module, called: Any, objective: Any, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.zero_grad()
    torch.manual_seed(0)
    loss, _ = objective(called, batch)
    loss.backward()
    model.load_state_dict(state)  # batch norm has counted
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


CHECKS = {
    "learns": Trial.learns,
    "goes on": Trial.goes_on,
    "ONNX": Trial.exports,
    "compiles": Trial.compiles,
    "8 bits": Trial.quantizes,
}


# ---- the page ------------------------------------------------------------------------------------------------------


def start_of(cell: Cell) -> str:
    problem, kind, network = cell
    return f"| {problem} | {kind.replace('_', ' ')} | `{network}` |"


def line(text: str, cell: Cell) -> str | None:
    found = re.search(rf"^{re.escape(start_of(cell))}.*$", text, flags=re.MULTILINE)
    return found and found[0]


def write_line(cell: Cell, said: str, lock: Path) -> None:
    with FileLock(lock):
        text = PAGE.read_text(encoding="utf-8")
        if there := line(text, cell):  # else test_each_cell_is_on_the_page adds it
            PAGE.write_text(text.replace(there, said), encoding="utf-8")


def unfit() -> Iterator[str]:
    """A sentence for each network: where it does not stand in the table, and why."""
    for network in network_names():
        fits = {(problem, kind) for problem, kind, name in CELLS if name == network}
        asked_for = " and ".join(f"`{size}`" for size in sizes_of(network))
        kinds = " and ".join(sorted({kind.replace("_", " ") for _, kind in fits}))
        yield f"- `{network}` asks for {asked_for}, which go with {kinds}."


def page() -> str:
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    rows = [line(text, cell) or f"{start_of(cell)}{' not tried |' * len(CHECKS)}" for cell in CELLS]
    heads = ["problem", "data", "network", *CHECKS]
    table = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}", *rows]
    return "\n".join([HEAD, *table, "", BELOW, *unfit(), ""])


HEAD = """# What was tried

Each network on each kind of data and for each problem that it fits, small and on tiny data, by `tests/test_matrix.py`,
which wrote this page.

- learns: the loss of its training falls, of a generator the distance of what it draws
- goes on: a training that was cut off goes on and ends with the bits of one that was not
- ONNX: ONNX Runtime answers as PyTorch does
- compiles: the graph that `torch.compile` takes of it has the same gradients
- 8 bits: quantised, it decides as before; only models that tell classes can be
"""
BELOW = """A pair of data and problem that is not in the table does not exist: forecasting is of series,
segmentation and reconstruction are of images, a language model is of running text, and all others have a target beside
their inputs. Of timm and torchvision a small network each stands for all. A network that does not stand beside a pair
asks for sizes that it does not have:
"""


def test_each_cell_is_on_the_page() -> None:
    assert {kind for _, kind in pairs()} == DATA.keys() == MODALITIES.keys() - {"draws"}
    assert {network for *_, network in CELLS} == {*network_names(), *THEIRS}
    made, there = page(), PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if made != there:
        PAGE.write_text(made, encoding="utf-8")
    assert there == made, "the page was written anew: see what changed, and commit it"
    assert "not tried" not in there


@pytest.mark.long
@pytest.mark.xdist_group("export")
@pytest.mark.usefixtures("exporter")
@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_a_cell(tmp_path: Path, cell: Cell) -> None:
    trial = Trial(tmp_path, cell)
    found = " | ".join(check(trial) for check in CHECKS.values())
    said, there = f"{start_of(cell)} {found} |", line(PAGE.read_text(encoding="utf-8"), cell)
    if said != there:
        write_line(cell, said, PAGE.with_suffix(".lock"))
    assert there == said, "the line was written anew: see what changed, and commit it"
