"""What layers inside a network answer: the same in PyTorch, in the table of a task, in ONNX and in `predict`."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from kedro.io import DataCatalog
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn

from conftest import ROOT
from tests.sounds import whistles
from tests.tables import people, reviews, write
from tests.test_as_tested import Trained
from torchloom.config import (
    ExportConfig,
    FeaturesConfig,
    FolderPreprocessConfig,
    SoundFilesPreprocessConfig,
    TableFilesPreprocessConfig,
    TextFilesPreprocessConfig,
)
from torchloom.data.readers import folder, sounds, table, texts
from torchloom.data.targets import Classes
from torchloom.datasets.reports import TableDataset
from torchloom.errors import InputError
from torchloom.export.features import Featured, featured, forms_of
from torchloom.inference.model import open_model
from torchloom.modalities import DocumentInfo, ImageInfo
from torchloom.models import build_model
from torchloom.pipelines.features.nodes import features
from torchloom.problems import problem_of

pytestmark = [pytest.mark.xdist_group("export"), pytest.mark.usefixtures("exporter")]
PICTURES = ImageInfo(target=Classes(classes=["a", "b", "c"]), shape=[3, 8, 8], mean=[0.5] * 3, std=[0.25] * 3)
IMAGES = torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def heard(model: nn.Module, layer: str, *inputs: Tensor, pool: Any = "average", info: Any = PICTURES) -> Tensor:
    """What is heard of a layer when the model is asked about inputs."""
    some = dict(zip(info.inputs, inputs, strict=True))
    made = Featured(model.eval(), forms_of(model, [layer], info, some), pool)
    with torch.no_grad():
        *_, found = made(*inputs)
    return found


# ---- pictures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "arguments", "layer", "pool"),
    [
        ("resnet", {"width": 4, "blocks": [1, 1]}, "network.stages", "average"),
        ("resnet", {"width": 4, "blocks": [1, 1]}, "network.stages.1.body", "average"),
        ("vit", {"width": 8, "heads": 2, "layers": 2}, "network.encoder", "average"),
        ("mlp", {"hidden": [7]}, "network.2", "max"),
    ],
)
def test_the_head_makes_the_answer_of_what_comes_before_it(
    network: str, arguments: dict[str, Any], layer: str, pool: str
) -> None:
    model = build_model(network, arguments, PICTURES, problem_of("classification")).eval()
    found = heard(model, layer, IMAGES, pool=pool)
    if layer.endswith("body"):  # before what works in place, and is not changed by it
        with torch.no_grad():
            stage = model.network.stages[1]  # type: ignore[index, union-attr]
            before = model.network.stages[0](model.network.stem(model.normalize(IMAGES)))  # type: ignore
            assert torch.allclose(found, stage.body(before).mean((2, 3)), atol=1e-6)
        return
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    assert torch.allclose(head(found), model(IMAGES), atol=1e-5)


def test_what_is_not_pooled_has_all_numbers() -> None:
    model = build_model("resnet", {"width": 4, "blocks": [1, 1]}, PICTURES, problem_of("classification"))
    whole, most = (heard(model, "network.stages.0", IMAGES, pool=pool) for pool in ("none", "max"))
    assert whole.shape == (5, 4 * 8 * 8)
    assert torch.equal(whole.view(5, 4, 64).amax(2), most)


def test_what_works_in_place_does_not_change_what_was_heard() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(inplace=True))
    assert heard(model, "1", IMAGES.float() - 128).min() < 0


class Odd(nn.Module):
    """Layers that answer in all sorts of ways."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Identity()
        self.dense, self.named, self.unused = nn.Linear(6, 5), Named(), nn.Linear(1, 1)
        self.rows = nn.LSTM(5, 4)
        self.apart = nn.Flatten(0, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.last(self.first(images.float()).permute(0, 2, 3, 1))  # (B, H, W, C)
        x = self.named(self.dense(x))["states"]
        outputs, _ = self.rows(x.mean(1).transpose(0, 1))  # (W, B, 4)
        self.apart(outputs)
        answer: Tensor = self.head(outputs.mean(0))
        return answer


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"states": x, "more": x[:1]}


@pytest.mark.parametrize(("layer", "width"), [("first", 6), ("last", 6), ("dense", 5), ("named", 5), ("rows", 4)])
def test_channels_are_told_wherever_they_are(layer: str, width: int) -> None:
    model = Odd()
    assert heard(model, layer, IMAGES).shape == (5, width)
    if layer == "rows":
        assert torch.allclose(model.head(heard(model, layer, IMAGES)), model(IMAGES), atol=1e-6)
    if layer == "last":
        assert torch.allclose(heard(model, "last", IMAGES), heard(model, "first", IMAGES), atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("netwerk.stages.0", r"there is no layer netwerk\.stages\.0; the nearest are .*network\.stages\.0"),
        ("conv5_2", "there is no layer conv5_2; there are network, network.stem"),
        ("", "there is no layer ;"),
    ],
)
def test_a_layer_that_is_not_there(layer: str, message: str) -> None:
    model = build_model("resnet", {"width": 4, "blocks": [1, 1]}, PICTURES, problem_of("classification"))
    with pytest.raises(InputError, match=f"^features.layers: {message}"):
        featured(model, model, [layer], "average", PICTURES, {"images": IMAGES})


@pytest.mark.parametrize(
    ("layer", "message"),
    [("unused", "unused is not called when the network answers"), ("apart", r"apart gives \(40, 4\) for 5 samples")],
)
def test_a_layer_that_says_nothing_of_each_sample(layer: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^features.layers: {message}"):
        heard(Odd(), layer, IMAGES)


def test_each_layer_once() -> None:
    with pytest.raises(ValidationError, match="must name a only once"):
        FeaturesConfig(layers=["a", "a"])


# ---- sequences -----------------------------------------------------------------------------------------------------


WORDS = DocumentInfo.model_validate(
    {
        "target": {"classes": ["bad", "good"]},
        "tokenizer": {"kind": "words", "vocabulary": ["<pad>", "<unk>", *"abcdefgh"]},
    }
)
LENGTHS = torch.tensor([7, 3, 5])
TOKENS = torch.randint(2, 10, (3, 7), generator=torch.Generator().manual_seed(1)) * (torch.arange(7) < LENGTHS[:, None])


@pytest.mark.parametrize("pool", ["average", "max"])
@pytest.mark.parametrize(
    ("network", "arguments", "layer"),
    [
        ("text_rnn", {"embedding": 6, "width": 4}, "rnn"),
        ("text_rnn", {"embedding": 6, "width": 4}, "embedding"),
        ("text_transformer", {"width": 8, "heads": 2}, "encoder.blocks.0"),
        ("text_cnn", {"embedding": 6, "width": 4, "kernels": [1]}, "convolutions.0"),
    ],
)
def test_padding_does_not_count(network: str, arguments: dict[str, Any], layer: str, pool: str) -> None:
    model = build_model(network, arguments, WORDS, problem_of("classification"))
    together = heard(model, layer, TOKENS, LENGTHS, pool=pool, info=WORDS)
    for number, length in enumerate(LENGTHS.tolist()):
        one = slice(number, number + 1)
        alone = heard(model, layer, TOKENS[one, :length], LENGTHS[one], pool=pool, info=WORDS)
        assert torch.allclose(alone[0], together[number], atol=1e-6), number


def test_the_mean_over_the_words_is_what_a_network_takes_itself() -> None:
    model = build_model(
        "text_rnn", {"embedding": 6, "width": 4, "pooling": "both"}, WORDS, problem_of("classification")
    )
    parts = [heard(model, "rnn", TOKENS, LENGTHS, pool=pool, info=WORDS) for pool in ("average", "max")]
    assert torch.allclose(model.head(torch.cat(parts, 1)), model(TOKENS, LENGTHS), atol=1e-6)  # type: ignore[operator]


# ---- the stage -----------------------------------------------------------------------------------------------------


def kept(task: Trained, tmp_path: Path, *layers: str, **settings: Any) -> tuple[Any, Path]:
    """The table of the stage as it is loaded again, and the file of its model."""
    config = FeaturesConfig(layers=list(layers), **settings)
    found, onnx_model = features(task.checkpoint, task.plan, config, ExportConfig(), tmp_path)
    dataset, path = TableDataset(filepath=str(tmp_path / "features.parquet")), tmp_path / "features.onnx"
    dataset.save(found)
    path.write_bytes(onnx_model)
    return dataset.load(), path


def test_rows_of_a_table(tmp_path: Path) -> None:
    """A linear probe on the features is the head itself; and `predict` has the same features of the same rows."""
    write(tmp_path / "people/train.csv", people(120))
    write(tmp_path / "people/test.csv", people(40, seed=1))
    config = TableFilesPreprocessConfig.model_validate({"files": str(tmp_path / "people"), "target": "bike"})
    network = {"name": "tabular_mlp", "hidden": [6, 5]}
    task = Trained(tmp_path, table.preprocess(table.find(config), config, tmp_path), network)
    leaves = [name for name, module in task.checkpoint.build().named_modules() if not [*module.children()]]
    names = [leaves[0], leaves[-2]]
    found, path = kept(task, tmp_path, *names)
    rows = polars.read_parquet(tmp_path / "features.parquet")
    assert rows.columns == ["split", "sample", "file", "true", *names]
    splits = {split: task.plan.length(split) for split in ("train", "validation", "test")}
    assert {row["split"]: row["count"] for row in rows["split"].value_counts().to_dicts()} == splits
    tested = rows.filter(polars.col("split") == "test")
    assert tested["true"].to_list() == [row["bike"] for row in people(40, seed=1)]
    vectors = tested[names[-1]].to_numpy()
    assert vectors.shape == (40, 5)
    model = task.checkpoint.build()
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        np.testing.assert_allclose(head(torch.tensor(vectors)).numpy(), task.tested()[0], atol=1e-5)
    trained = np.stack(found.filter(pa.compute.equal(found["split"], "train"))[names[-1]].to_pylist())
    assert len(np.unique(trained, axis=0)) > 50  # each sample once, in order, as it is
    answers = task.asked(tmp_path / "people/test.csv")
    (tmp_path / "model.onnx").write_bytes(path.read_bytes())
    with_features = task.asked(tmp_path / "people/test.csv", batch_size=7)
    assert tested["file"].to_list() == [row["file"] for row in with_features]
    np.testing.assert_allclose([row[names[-1]] for row in with_features], vectors, atol=1e-5)
    assert [{key: row[key] for key in answers[0]} for row in with_features] == answers
    served = task.served(people(40, seed=1))
    np.testing.assert_allclose([row[names[0]] for row in served], tested[names[0]].to_numpy(), atol=1e-5)


def test_pictures_have_the_names_of_their_files(tmp_path: Path) -> None:
    for number in range(20):
        path = tmp_path / f"shots/{['dark', 'light'][number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 100 * (number % 2) + 5 * number).save(path)
    config = FolderPreprocessConfig(folder=str(tmp_path / "shots"), size=[8, 8], channels=1)
    task = Trained(tmp_path, folder.preprocess(folder.find(config), config, tmp_path), {"name": "mlp", "hidden": [5]})
    found, path = kept(task, tmp_path, "network.2")
    (tmp_path / "model.onnx").write_bytes(path.read_bytes())
    answers = {row["file"]: row for row in task.asked(tmp_path / "shots")}
    assert found["file"].to_pylist() != sorted(answers) == sorted(found["file"].to_pylist())
    for row in found.to_pylist():
        np.testing.assert_allclose(answers[row["file"]]["network.2"], row["network.2"], atol=1e-5)
        assert answers[row["file"]]["true"] == row["true"] == row["file"].partition("/")[0]


def test_texts(tmp_path: Path) -> None:
    write(tmp_path / "reviews/train.csv", reviews(80))
    write(tmp_path / "reviews/test.csv", reviews(40, seed=1))
    config = TextFilesPreprocessConfig(files=str(tmp_path / "reviews"), target="verdict", tokens="words")
    prepared = texts.preprocess(texts.find(config), config, tmp_path)
    task = Trained(tmp_path, prepared, {"name": "text_rnn", "embedding": 6, "width": 4, "pooling": "mean"})
    found, path = kept(task, tmp_path, "rnn", splits=["test"])
    vectors = torch.tensor(np.stack(found["rnn"].to_pylist()), dtype=torch.float32)
    with torch.no_grad():
        np.testing.assert_allclose(task.checkpoint.build().head(vectors), task.tested()[0], atol=1e-5)  # type: ignore[operator]
    assert found["text"].to_pylist() == [row["review"] for row in reviews(40, seed=1)]
    (tmp_path / "model.onnx").write_bytes(path.read_bytes())
    answers = task.asked(tmp_path / "reviews/test.csv", batch_size=9)
    np.testing.assert_allclose([row["rnn"] for row in answers], vectors, atol=1e-5)
    words, path = kept(task, tmp_path, "rnn", splits=["test"], pool="none")
    lengths = [len(row) // 8 for row in words["rnn"].to_pylist()]
    _, counts, _ = next(iter(task.plan.loader("test")))
    assert lengths == counts.tolist()
    np.testing.assert_allclose(
        [np.reshape(row, (-1, 8)).mean(0) for row in words["rnn"].to_pylist()], vectors, atol=1e-5
    )
    with pytest.raises(InputError, match=r"^rnn: has as many numbers as there are steps; for vectors, set feat"):
        _ = open_model(path).features


def test_sounds_of_different_lengths(tmp_path: Path) -> None:
    rows = whistles(tmp_path / "all", 30)
    write(tmp_path / "all/train.csv", rows[:20])
    write(tmp_path / "all/test.csv", rows[20:])
    config = SoundFilesPreprocessConfig(files=str(tmp_path / "all"), target="height")
    prepared = sounds.preprocess(sounds.find(config), config, tmp_path)
    task = Trained(tmp_path, prepared, {"name": "audio_cnn", "widths": [4, 8]})
    found, _ = kept(task, tmp_path, "network.joint", "network.blocks.1", splits=["test"])
    assert found["file"].to_pylist() == [row["sound"] for row in rows[20:]]
    vectors = np.stack(found["network.joint"].to_pylist())
    model: Any = task.checkpoint.build()
    seen: list[Tensor] = []
    model.network.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for number in range(10):  # each alone, where nothing is filled up
        waveform, length, _ = task.plan.chosen("test", [number])
        with torch.no_grad():
            model(waveform, length)
    np.testing.assert_allclose(torch.cat(seen)[:, :8], vectors, atol=1e-4)


def test_a_table_that_is_wide_is_kept_and_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchloom.datasets.reports.GROUP", 4000)
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(10_000, dtype=np.float32)), 100)
    TableDataset(filepath=str(tmp_path / "wide.parquet")).save(pa.table({"n": range(100), "x": values}))
    file = pq.ParquetFile(tmp_path / "wide.parquet")
    assert file.num_row_groups == 12
    assert file.read()["x"][99].as_py() == list(range(9900, 10_000))
    TableDataset(filepath=str(tmp_path / "wide.csv")).save(pa.table({"n": range(100), "x": values}))
    assert (tmp_path / "wide.csv").read_text().splitlines()[:2] == ['"n"', "0"]


def guide() -> str:
    """The block of parameters in docs/how-to/features.md."""
    return str(re.findall("```yaml\n(.*?)```", (ROOT / "docs/how-to/features.md").read_text(), re.DOTALL)[0])


def test_the_guide_has_the_stage_and_its_features(
    project: Path, run: Callable[..., DataCatalog], caplog: pytest.LogCaptureFixture
) -> None:
    write(project / "people/people.csv", people(120))
    block = guide().replace("~/people", str(project / "people"))
    path = project / "conf/base/parameters/bikes.yml"
    path.write_text(block)
    catalog = run("bikes_mlp", to_nodes=["bikes_mlp.features"])
    found = catalog.load("bikes_mlp.features")
    assert found.column_names == ["split", "sample", "file", "true", "network.0"]
    model = project / "data/sample/06_models/bikes_mlp/features.onnx"
    params = {"predict": {"model": str(model), "files": str(project / "people/people.csv")}}
    answers = run("predict", params=params).load("predict.predictions_parquet")
    assert len(answers["network.0"][0].as_py()) == len(found["network.0"][0].as_py())
    csv = (project / "data/sample/07_model_output/predict/predictions.csv").read_text()
    assert "network.0" not in csv.splitlines()[0]
    path.write_text(block.replace("network.0", "network.00"))
    with pytest.raises(InputError, match=r"features\.layers: there is no layer network\.00; the nearest are netw"):
        run("bikes_mlp", from_nodes=["bikes_mlp.features"])
