"""What `predict` answers on the raw test files is what `evaluate` measures, sample by sample, for each kind of data."""

import csv
import io
import json
import logging
import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.sounds import save, tone, whistles
from tests.tables import as_columns, films, hours, people, reviews, steps, waves, write
from torchloom.config import (
    ArraysPreprocessConfig,
    DataConfig,
    DebuggingConfig,
    DistributedConfig,
    DocumentPreprocessConfig,
    FolderPreprocessConfig,
    LabelledSeriesPreprocessConfig,
    PicturesPreprocessConfig,
    PredictConfig,
    PreprocessConfig,
    SeriesPreprocessConfig,
    ServeConfig,
    SoundFilesPreprocessConfig,
    SplitByConfig,
    TableFilesPreprocessConfig,
    TablePreprocessConfig,
    TextFilesPreprocessConfig,
    TextPreprocessConfig,
)
from torchloom.data.pictures import decode_image
from torchloom.data.readers import (
    arrays,
    cifar10,
    diabetes,
    imdb,
    labelled_series,
    mnist,
    pictures,
    series,
    sounds,
    table,
    texts,
    wonderland,
)
from torchloom.data.readers import folder as reader
from torchloom.datasets.folders import FolderDataset
from torchloom.datasets.raw import RawFiles
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.export.onnx import export_checkpoint
from torchloom.inference.model import open_model
from torchloom.inference.serving import answerer
from torchloom.modalities.modules import Views
from torchloom.pipelines.prediction import nodes as prediction_nodes
from torchloom.pipelines.training.nodes import build_dataloaders, train
from torchloom.problems import problem_of, regression
from torchloom.problems.classification.config import EvaluateClassifierConfig
from torchloom.problems.evaluation import predict
from torchloom.problems.forecasting.metrics import Errors
from torchloom.problems.regression.intervals import bounds
from torchloom.training.checkpoint import Checkpoint, CheckpointDataset
from torchloom.training.loaders import LoaderPlan

pytestmark = [pytest.mark.xdist_group("export"), pytest.mark.usefixtures("exporter")]

ROW_NETWORKS: dict[str, dict[str, Any]] = {
    "linear": {"name": "linear"},
    "tabular_mlp": {"name": "tabular_mlp", "hidden": [8]},
    "tabm": {"name": "tabm", "hidden": [8]},
    "ft_transformer": {"name": "ft_transformer", "width": 8, "heads": 2, "layers": 2, "feedforward": 8},
}
TRAIN = {"epochs": 1, "batch_size": 8, "optimizer": {"name": "Adam", "lr": 0.005}, "threads": 1}


class Trained:
    """A task's stages up to its checkpoint, in a folder, from what its preprocessing returns."""

    def __init__(
        self,
        folder: Path,
        prepared: tuple[Tensors, Tensors, Tensors, dict[str, Any]],
        network: dict[str, Any],
        problem: str = "classification",
        data: DataConfig | None = None,
        settings: dict[str, Any] | None = None,
        **evaluation: Any,
    ) -> None:
        self.folder = folder
        *splits, info = prepared
        asked = problem_of(problem)
        self.evaluation: Any = asked.evaluation(**evaluation)
        training = asked.training(**{**TRAIN, **(settings or {})})
        model = asked.network(**network)
        tensors = [self.saved(name, part) for name, part in zip(("train", "val", "test"), splits, strict=True)]
        debugging = DebuggingConfig()
        self.plan: LoaderPlan = build_dataloaders(
            *tensors, info, data or DataConfig(), training, self.evaluation, debugging
        )
        self.checkpoint: Checkpoint = train(
            self.plan, model, training, DistributedConfig(), debugging, problem=asked
        ).best

    def saved(self, name: str, tensors: Tensors) -> Tensors:
        dataset = TensorsDataset(filepath=str(self.folder / f"{name}.safetensors"))
        dataset.save(tensors)
        return dataset.load()

    def tested(self) -> tuple[torch.Tensor, ...]:
        """The model's outputs on the test split, as `evaluate` has them."""
        model: Any = self.checkpoint.build()
        if getattr(self.evaluation, "views", "one") != "one":
            model = Views(model, self.evaluation.views)
        return predict(model, self.plan.loader("test"))[0]

    def asked(self, files: Path, as_checkpoint: bool = False, **settings: Any) -> list[dict[str, Any]]:
        """The rows of `predict` on these files; nothing must be unreadable."""
        path = self.folder / ("model.safetensors" if as_checkpoint else "model.onnx")
        if as_checkpoint:
            CheckpointDataset(filepath=str(path)).save(self.checkpoint)
        elif not path.is_file():
            path.write_bytes(export_checkpoint(self.checkpoint))
        config = PredictConfig(model=str(path), files=str(files), models="", threads=1, **settings)
        table, _, self.sheet, unreadable, self.scores, self.pictures = prediction_nodes.ask(
            *prediction_nodes.find(config), config
        )
        assert unreadable.to_pylist() == []
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    def measured(self) -> dict[str, Any]:
        """The figures that `evaluate` has found."""
        history = [{"epoch": 1, "train_loss": 1.0, "learning_rate": 0.1}]
        evaluated = problem_of(self.checkpoint.problem).evaluate(self.checkpoint, self.plan, history, self.evaluation)
        found: dict[str, Any] = evaluated["metrics"]
        return found

    def served(self, items: list[Any]) -> list[dict[str, Any]]:
        """What `serve` answers."""
        model = open_model(self.folder / "model.onnx", threads=1)
        return answerer(model, ServeConfig(models="", most=1000))(items)

    def classified(self, rows: Sequence[dict[str, Any]]) -> None:
        """The rows have the class of each test sample, and its probability, as `evaluate` has them."""
        (logits,) = self.tested()
        shares = logits.softmax(1).numpy()
        assert len(rows) == len(shares)
        classes = self.plan.info.target.classes  # type: ignore[union-attr]
        for row, share in zip(rows, shares, strict=True):
            assert row["class_1"] == classes[share.argmax()]
            assert row["probability_1"] == pytest.approx(share.max(), abs=1e-4)
        assert len({round(row["probability_1"], 3) for row in rows}) > len(rows) / 3  # they tell the samples apart


# ---- pictures in folders -------------------------------------------------------------------------------------------

DEPTHS = {"8": 255, "12": 4095, "16": 65_535, "float": 1.0, "signed": 2000}


def draw(folder: Path, depth: str, count: int) -> None:
    """Wide and high pictures of two classes, of all the kinds that there are in that depth."""
    generator = np.random.default_rng(count)
    for label, name in enumerate(("dark", "light")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            shape = (12, 30) if number % 2 else (26, 10)
            shares = generator.beta(2, 2, shape) * 0.4 + 0.3 * label + 0.1
            place = folder / name / f"{number:02}"
            if depth == "8":
                save_of_eight_bits(place, shares, number)
                continue
            values = shares * DEPTHS[depth] - (1000 if depth == "signed" else 0)
            kind = {"float": np.float32, "signed": np.int32}.get(depth, np.uint16)
            picture = Image.fromarray(values.astype(kind))
            picture.save(place.with_suffix(".png" if kind is np.uint16 and number % 3 else ".tif"))


def save_of_eight_bits(place: Path, shares: np.ndarray, number: int) -> None:
    colours = np.random.default_rng(number).uniform(0.6, 1, 3)
    picture = Image.fromarray((255 * shares[..., None] * colours).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    clear = Image.fromarray((255 * shares).astype(np.uint8))
    kinds = [
        lambda: picture.save(place.with_suffix(".png")),
        lambda: picture.save(place.with_suffix(".jpg"), exif=exif),
        lambda: picture.convert("L").save(place.with_suffix(".bmp")),
        lambda: picture.quantize(16).save(place.with_suffix(".gif")),
        lambda: Image.merge("RGBA", [*picture.split(), clear]).save(place.with_suffix(".png")),
        lambda: picture.convert("CMYK").save(place.with_suffix(".tif")),
        lambda: picture.save(place.with_suffix(".webp")),
        lambda: picture.resize((300, 260)).save(place.with_suffix(".jpeg")),
    ]
    kinds[number % len(kinds)]()


def of_pictures(folder: Path, depth: str, evaluation: dict[str, Any], **settings: Any) -> Trained:
    draw(folder / "own/train", depth, 9)
    draw(folder / "own/test", depth, 8)
    config = FolderPreprocessConfig(folder=str(folder / "own"), size=[8, 8], validation_fraction=0.2, **settings)
    prepared = reader.preprocess(reader.find(config), config, folder)
    return Trained(folder, prepared, {"name": "mlp", "hidden": [8]}, **evaluation)


SOME = [("squash", 3, "8"), ("pad", 1, "12"), ("crop", 1, "16"), ("squash", 1, "float"), ("pad", 3, "signed")]
ALL = [case for case in product(("crop", "pad", "squash"), (1, 3), DEPTHS) if case not in SOME]


@pytest.mark.parametrize(
    ("fit", "channels", "depth"), [*SOME, *(pytest.param(*case, marks=pytest.mark.long) for case in ALL)]
)
def test_pictures_are_asked_about_as_they_were_tested(tmp_path: Path, fit: str, channels: int, depth: str) -> None:
    task = of_pictures(tmp_path, depth, {}, fit=fit, channels=channels)
    task.classified(task.asked(tmp_path / "own/test"))
    bodies = [path.read_bytes() for path in sorted((tmp_path / "own/test").glob("*/*"))]
    task.classified([task.served([body])[0] for body in bodies])


@pytest.mark.parametrize(("views", "cache"), [("mirror", "always"), ("mirror_and_shift", "never")])
def test_pictures_are_asked_about_from_all_sides(
    tmp_path: Path, views: str, cache: str, caplog: pytest.LogCaptureFixture
) -> None:
    task = of_pictures(tmp_path, "12" if cache == "never" else "8", {"views": views}, fit="squash", cache=cache)
    with caplog.at_level(logging.INFO, logger="torchloom"):
        task.classified(task.asked(tmp_path / "own/test", as_checkpoint=cache == "never"))
        assert "pictures are not put to the model" not in caplog.text
        other = task.asked(tmp_path / "own/test", views="one", fit="crop")
    line = f'those of its test were: fit "crop" instead of "squash", views "one" instead of "{views}"'
    assert line in caplog.text
    task.evaluation = EvaluateClassifierConfig()
    with pytest.raises(AssertionError):
        task.classified(other)  # because of the fit
    task.classified(task.asked(tmp_path / "own/test", views="one"))


# ---- the data sets that come with the project ----------------------------------------------------------------------


def test_pictures_that_a_table_names(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    draw(folder / "pictures", "8", 9)
    names = sorted(str(path.relative_to(folder)) for path in folder.glob("pictures/*/*"))
    rows = [
        {"picture": name, "bright": Path(name).parent.name, "set": ["train", "test"][number % 2]}
        for number, name in enumerate(names)
    ]
    config = PicturesPreprocessConfig(
        files=str(write(folder / "all.csv", rows)), target="bright", size=[8, 8], split_by=SplitByConfig(column="set")
    )
    prepared = pictures.preprocess(pictures.find(config), config, tmp_path)
    task = Trained(tmp_path, prepared, {"name": "mlp", "hidden": [8]})
    asked = [row for row in rows if row["set"] == "test"]
    answers = task.asked(write(folder / "test.csv", asked))
    assert [row["file"] for row in answers] == [row["picture"] for row in asked]
    task.classified(answers)
    there = [{**row, "picture": f"s3://bucket/own/{row['picture']}"} for row in asked]  # of files that were brought
    task.classified(task.asked(write(folder / "test.csv", there)))
    task.classified([task.served([(folder / row["picture"]).read_bytes()])[0] for row in asked])


@pytest.mark.parametrize("form", ["stem", "linked"])
@pytest.mark.parametrize("kind", ["pictures", "sounds"])
def test_paths_of_a_table_that_begin_elsewhere(tmp_path: Path, kind: str, form: str) -> None:
    """As in training: without endings, and absolute ones over a link; then where the parameters say."""
    here, there = tmp_path / "lists", tmp_path / "files"
    if kind == "pictures":
        draw(there, "8", 9)
    else:
        whistles(there, 18)
    (tmp_path / "link").symlink_to(there)
    names = sorted(str(path.relative_to(there)) for path in there.rglob("*.*") if path.suffix in {".png", ".wav"})
    cells = [str(tmp_path / "link" / name) if form == "linked" else name[:-4] for name in names]
    rows = [
        {"path": cell, "kind": Path(name).parts[0].split("_")[0], "set": ["train", "test"][number % 2]}
        for number, (cell, name) in enumerate(zip(cells, names, strict=True))
    ]
    known, block, network = {
        "pictures": (pictures, PicturesPreprocessConfig, {"name": "mlp", "hidden": [8]}),
        "sounds": (sounds, SoundFilesPreprocessConfig, {"name": "audio_cnn"}),
    }[kind]
    given: dict[str, Any] = {"files": str(write(here / "all.csv", rows)), "folder": str(there), "target": "kind"}
    given |= {"size": [8, 8]} if kind == "pictures" else {}
    config = block.model_validate({**given, "split_by": {"column": "set"}})
    task = Trained(tmp_path, known.preprocess(known.find(config), config, tmp_path), network)
    asked = [row for row in rows if row["set"] == "test"]
    answers = task.asked(write(here / "asked/test.csv", asked))
    assert [row["file"] for row in answers] == [row["path"] for row in asked]
    task.classified(answers)
    if form == "stem":
        there.rename(tmp_path / "moved")
        config = PredictConfig(model=str(tmp_path / "model.onnx"), files=str(here / "asked/test.csv"), models="")
        _, _, _, lost, *_ = prediction_nodes.ask(*prediction_nodes.find(config), config)
        assert lost.num_rows == len(asked)
        assert re.search(r"^is not in .*asked or .*files\. Say where .* predict\.folder", lost["reason"][0].as_py())
        task.classified(task.asked(here / "asked/test.csv", folder=str(tmp_path / "moved")))


def test_masks(tmp_path: Path) -> None:
    for number in range(12):
        mask = np.zeros((16, 24), dtype=np.uint8)
        mask[2 + number % 4 : 12, 2 + number % 6 : 14] = 255
        for place, pixels in {"image": 60 + mask // 2, "label": mask}.items():
            (tmp_path / "own" / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / f"own/{place}/{number:02}.png")
    config = PicturesPreprocessConfig(files=str(tmp_path / "own"), size=[16, 16])
    prepared = pictures.preprocess(pictures.find(config), config, tmp_path)
    task = Trained(tmp_path, prepared, {"name": "unet", "width": 2, "depth": 1}, problem="segmentation")
    (maps,) = task.tested()
    images = {image.tobytes(): number for number, image in enumerate(np.asarray(prepared[2].arrays["images"]))}
    found = 0
    rows = task.asked(tmp_path / "own/image")
    FolderDataset(filepath=str(tmp_path / "answers")).save(task.pictures)
    for path, row in zip(sorted((tmp_path / "own/image").glob("*")), rows, strict=True):
        with path.open("rb") as file:
            number = images.get(decode_image(file, (3, 16, 16)).transpose(1, 2, 0).tobytes())
        if number is not None:
            found += 1
            assert row["mask_png"] == f"pictures/{path.name}"
            answer = np.asarray(Image.open(tmp_path / "answers" / path.name))
            assert answer.tolist() == (255 * maps[number].argmax(0)).tolist()  # as the file's own masks
            assert row["share_255"] == pytest.approx(answer.mean() / 255)
    assert found >= 2


def drawn(source: Any, folder: Path, names: Sequence[str], **sizes: int) -> RawFiles:
    raw = folder / "raw"
    raw.mkdir()
    source.draw_sample(raw, **sizes)
    return RawFiles(raw, dict.fromkeys(names, ""))


IDX = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def save_pictures(folder: Path, images: np.ndarray) -> Path:
    """(N, H, W, C) uint8 as PNG files."""
    (folder / "files").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(folder / "files" / f"{number:04}.png")
    return folder / "files"


def test_digits(tmp_path: Path) -> None:
    raw = drawn(mnist, tmp_path, IDX, train=60, test=30)
    task = Trained(tmp_path, mnist.preprocess(raw, PreprocessConfig()), {"name": "mlp", "hidden": [8]})
    _, test = mnist.read_images(raw)
    task.classified(task.asked(save_pictures(tmp_path, test.images)))


@pytest.mark.long
def test_shapes_in_colour_from_all_sides(tmp_path: Path) -> None:
    names = [*cifar10.TRAIN_BATCHES, *(f"{cifar10.FOLDER}/{name}" for name in ("test_batch", "batches.meta"))]
    raw = drawn(cifar10, tmp_path, names, train=100, test=30)
    prepared = cifar10.preprocess(raw, PreprocessConfig())
    task = Trained(tmp_path, prepared, {"name": "mlp", "hidden": [8]}, views="mirror_and_shift")
    task.classified(task.asked(save_pictures(tmp_path, np.asarray(prepared[2].arrays["images"]))))


@pytest.mark.long
def test_images_that_are_reconstructed(tmp_path: Path) -> None:
    raw = drawn(mnist, tmp_path, IDX, train=60, test=30)
    network = {"name": "autoencoder", "hidden": [8], "latent": 3}
    task = Trained(tmp_path, mnist.preprocess(raw, PreprocessConfig()), network, "reconstruction")
    _, test = mnist.read_images(raw)
    rows = task.asked(save_pictures(tmp_path, test.images))
    reconstructions, latents, _ = task.tested()
    errors = (test.images.transpose(0, 3, 1, 2) / 255 - reconstructions.numpy()) ** 2
    expected = np.column_stack([errors.mean((1, 2, 3)), latents])
    np.testing.assert_allclose([list(row.values())[1:] for row in rows], expected, atol=1e-4)


@pytest.mark.parametrize("max_tokens", [5, pytest.param(None, marks=pytest.mark.long)])
def test_reviews(tmp_path: Path, max_tokens: int | None) -> None:
    raw = drawn(imdb, tmp_path, [imdb.ARCHIVE], train=60, test=30)
    prepared = imdb.preprocess(raw, DocumentPreprocessConfig())
    network = {"name": "text_rnn", "cell": "gru", "embedding": 8, "width": 8, "bidirectional": False}
    task = Trained(tmp_path, prepared, network, data=DataConfig(max_tokens=max_tokens))
    texts = task.plan.texts("test", range(30))
    (tmp_path / "files").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / f"files/{number:04}.txt").write_text(f"\ufeff \r\n{text}\r\n\r\n", encoding="utf-8", newline="")
    (tmp_path / "lines.txt").write_text("\r\n\r\n".join(texts), encoding="utf-8", newline="")
    task.classified(task.asked(tmp_path / "files"))
    task.classified(task.asked(tmp_path / "lines.txt", batch_size=7))
    task.classified(task.served(texts))


def test_rows(tmp_path: Path) -> None:
    from sklearn.datasets import load_diabetes

    names = ["diabetes_data_raw.csv", "diabetes_target.csv"]
    values = load_diabetes(scaled=False)
    for name, part in zip(names, (values.data, values.target), strict=True):
        np.savetxt(tmp_path / name, part, fmt="%.17g")
    config = TablePreprocessConfig()
    prepared = diabetes.preprocess(RawFiles(tmp_path, dict.fromkeys(names, "")), config)
    task = Trained(tmp_path, prepared, {"name": "linear"}, "regression")
    chosen = diabetes.choose_rows(len(values.target), config)["test"]
    rows = [dict(zip(diabetes.FEATURES, map(float, row), strict=True)) for row in values.data[chosen]]
    with (tmp_path / "rows.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ["name", *reversed(diabetes.FEATURES)])
        writer.writeheader()
        writer.writerows({"name": "Doe, J.", **row} for row in rows)
    (expected,) = task.tested()
    for answers in (task.asked(tmp_path / "rows.csv"), task.served(rows)):
        np.testing.assert_allclose([row[diabetes.TARGET] for row in answers], expected, rtol=1e-4)


@pytest.mark.parametrize(("tokens", "network"), [("words", "text_rnn"), ("characters", "text_ngrams")])
def test_texts_in_a_column_of_a_table(tmp_path: Path, tokens: str, network: str) -> None:
    """In another order of columns, with more of them, and as texts in JSON."""
    write(tmp_path / "reviews/train.csv", reviews(80))
    write(tmp_path / "reviews/test.csv", reviews(40, seed=1))
    config = TextFilesPreprocessConfig.model_validate(
        {"files": str(tmp_path / "reviews"), "target": "verdict", "tokens": tokens}
    )
    prepared = texts.preprocess(texts.find(config), config, tmp_path)
    task = Trained(tmp_path, prepared, {"name": network}, data=DataConfig(max_tokens=20))
    rows = [{"more": 1, **dict(reversed(row.items()))} for row in reviews(40, seed=1)]
    task.classified(task.asked(write(tmp_path / "asked.csv", rows, ";")))
    task.classified(task.served([str(row["review"]) for row in rows]))


def test_a_number_that_is_told_from_texts_of_subwords(tmp_path: Path) -> None:
    write(tmp_path / "reviews/train.csv", reviews(80))
    write(tmp_path / "reviews/test.csv", reviews(40, seed=1))
    config = TextFilesPreprocessConfig(files=str(tmp_path / "reviews"), target="stars", tokens="subwords")
    prepared = texts.preprocess(texts.find(config), config, tmp_path)
    task = Trained(tmp_path, prepared, {"name": "text_rnn", "width": 8}, "regression")
    (expected,) = task.tested()
    for answers in (
        task.asked(tmp_path / "reviews/test.csv"),
        task.served([str(row["review"]) for row in reviews(40, seed=1)]),
    ):
        np.testing.assert_allclose([row["stars"] for row in answers], expected, rtol=1e-3)
    assert expected.std() > 0


@pytest.mark.long
def test_a_text_is_continued_by_what_was_foretold(tmp_path: Path) -> None:
    """The likeliest character after each beginning of the test split is that which `evaluate` compares with it."""
    raw = drawn(wonderland, tmp_path, [wonderland.FILE], characters=3000)
    prepared = wonderland.preprocess(raw, TextPreprocessConfig())
    network = {"name": "language_rnn", "cell": "gru", "embedding": 8, "width": 16, "layers": 1}
    task = Trained(tmp_path, prepared, network, "language_model", DataConfig(window=32))
    tokens = task.plan.tokens("test").long()
    with torch.no_grad():
        logits, *_ = task.checkpoint.build()(tokens[None])
    vocabulary = task.plan.info.tokenizer.vocabulary  # type: ignore[union-attr]
    text, foretold = ("".join(vocabulary[token] for token in part) for part in (tokens, logits[0].argmax(1)))
    lengths = [length for length in range(1, len(text)) if text[length - 1].strip()][::9]
    (tmp_path / "files").mkdir()
    for length in lengths:
        text_so_far = text[:length].replace("\n", "\r\n")
        (tmp_path / f"files/{length:04}.txt").write_text(text_so_far, encoding="utf-8", newline="")
    expected = [foretold[length - 1] for length in lengths if text[:length].strip() == text[:length]]
    rows = task.asked(tmp_path / "files", generate={"length": 1, "temperature": 0.0})
    assert len(set(foretold)) > 3
    assert [row["continuation"] for row in rows] == expected


@pytest.mark.parametrize("network", ROW_NETWORKS)
def test_rows_of_words_and_gaps(tmp_path: Path, network: str) -> None:
    """In another order of columns, with more of them, with gaps and new words, as a file has them and as JSON has."""
    rows = people(160)
    for number, row in enumerate(rows):
        row["town"] = "Paris" if number in {140, 150} else row["town"]
        row["income"] = "?" if number % 9 == 0 else row["income"]
    write(tmp_path / "people/train.csv", rows[:120])
    write(tmp_path / "people/test.csv", rows[120:])
    config = TableFilesPreprocessConfig(files=str(tmp_path / "people"), target="bike")
    task = Trained(tmp_path, table.preprocess(table.find(config), config, tmp_path), ROW_NETWORKS[network])
    asked = [{"more": "x", **dict(reversed(row.items()))} for row in rows[120:]]
    task.classified(task.asked(write(tmp_path / "asked.csv", asked, ";")))
    del asked[0]["bike"]
    task.classified(task.served([{name: None if cell == "?" else cell for name, cell in row.items()} for row in asked]))


def test_arrays_of_numpy(tmp_path: Path) -> None:
    """As rows, and as pictures with their classes."""
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 3
    features = generator.normal(labels[:, None], 1.0, (120, 4)).astype(np.float32)
    for split, part in {"train": slice(0, 90), "test": slice(90, 120)}.items():
        (tmp_path / "rows").mkdir(exist_ok=True)
        np.savez(tmp_path / f"rows/{split}.npz", x=features[part], y=np.array(["a", "b", "c"])[labels[part]])
    config = TableFilesPreprocessConfig(files=str(tmp_path / "rows"), target="y")
    task = Trained(tmp_path, table.preprocess(table.find(config), config, tmp_path), {"name": "linear"})
    task.classified(task.asked(tmp_path / "rows/test.npz"))
    assert_as_measured(task, 30)
    pixels = (60 * labels[:, None, None, None] + generator.integers(0, 120, (120, 8, 6, 3))).astype(np.uint8)
    path, asked = tmp_path / "x.npz", tmp_path / "asked.npz"
    np.savez(path, x_train=pixels[:90], y_train=labels[:90], x_test=pixels[90:], y_test=labels[90:])
    np.savez(asked, x=pixels[90:], y=labels[90:])
    block = ArraysPreprocessConfig(files=str(path))
    prepared = arrays.preprocess(arrays.find(block), block, tmp_path)
    task = Trained(tmp_path / "pictures", prepared, {"name": "mlp", "hidden": [8]})
    task.classified(task.asked(asked))
    assert_as_measured(task, 30)
    bodies = []
    for picture in pixels[90:]:
        np.save(body := io.BytesIO(), picture)
        bodies.append(body.getvalue())
    task.classified(task.served(bodies))
    np.save(body := io.BytesIO(), pixels)
    with pytest.raises(InputError, match=r"^the body: holds several pictures\. Send one at a time$"):
        task.served([body.getvalue()])


@pytest.mark.parametrize("columns", [["age"], ["town"], ["since"], ["income"]])
def test_rows_of_one_kind_of_column(tmp_path: Path, columns: list[str]) -> None:
    """Numbers alone, words alone, dates alone, or numbers with gaps: of each there is nothing of the others."""
    rows = [{name: row[name] for name in [*columns, "bike"]} for row in people(160)]
    write(tmp_path / "people/train.csv", rows[:120])
    write(tmp_path / "people/test.csv", rows[120:])
    config = TableFilesPreprocessConfig(files=str(tmp_path / "people"), target="bike")
    task = Trained(tmp_path, table.preprocess(table.find(config), config, tmp_path), {"name": "linear"})
    (logits,) = task.tested()
    answers = task.asked(tmp_path / "people/test.csv")
    shares = logits.softmax(1).max(1).values.numpy()
    np.testing.assert_allclose([row["probability_1"] for row in answers], shares, atol=1e-4)


def test_an_answer_says_what_is_odd_about_its_row(tmp_path: Path) -> None:
    rows = people(200)
    path = write(tmp_path / "people.csv", rows)
    config = TableFilesPreprocessConfig(files=str(path), target="bike")
    task = Trained(tmp_path, table.preprocess(table.find(config), config, tmp_path), {"name": "linear"})
    plain = {"age": 30, "town": "Ulm", "income": 3000.5, "since": "2015-05-15"}
    asked = [plain, {**plain, "town": "Rom", "age": 17.25}, {**plain, "income": "", "since": "2031-05-15 18:30"}]
    assert [row["remarks"] for row in task.asked(write(tmp_path / "asked.csv", asked))] == [
        "",
        "age 17.25 is below 18; town is new",
        "income is missing; since year 2031 is above 2023; since hour 18.5 is above 1",
    ]
    (answer,) = task.served([{**plain, "age": None}])
    assert answer["remarks"] == "age is missing"


@pytest.mark.parametrize("network", ["tabm", "ft_transformer"])
def test_numbers_that_are_told_from_rows_with_gaps(tmp_path: Path, network: str) -> None:
    rows = people(160)
    write(tmp_path / "people/train.csv", rows[:120])
    write(tmp_path / "people/test.csv", rows[120:])
    config = TableFilesPreprocessConfig(files=str(tmp_path / "people"), target="age")
    prepared = table.preprocess(table.find(config), config, tmp_path)
    task = Trained(tmp_path, prepared, ROW_NETWORKS[network], "regression")
    (expected,) = task.tested()
    for answers in (task.asked(tmp_path / "people/test.csv"), task.served(rows[120:])):
        np.testing.assert_allclose([row["age"] for row in answers], expected, rtol=1e-4)
    assert expected.std() > 0


@pytest.mark.parametrize("form", ["table", "classes"])
def test_sounds(tmp_path: Path, form: str) -> None:
    """Of other rates, in stereo, longer than what counts; as files, by a table, and as the body of a request."""
    rows = whistles(tmp_path / "all", 45)
    for number, row in enumerate(rows[::4]):
        wave = tone(float(row["hertz"]), 0.4 + 0.1 * number, 22_050, number)
        save(tmp_path / "all" / str(row["sound"]), np.stack([wave, 0.5 * wave], 1), 22_050, subtype="PCM_24")
    if form == "table":
        path = tmp_path / "all"
        write(path / "train.csv", rows[:30])
        files = write(path / "test.csv", rows[30:])
    else:
        path = tmp_path / "classes"
        for number, row in enumerate(rows):
            place = path / ("train" if number < 30 else "test") / str(row["height"]) / str(row["sound"])
            place.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "all" / str(row["sound"])).rename(place)
        files = path / "test"
    config = SoundFilesPreprocessConfig(files=str(path), target="height" if form == "table" else None)
    prepared = sounds.preprocess(sounds.find(config), config, tmp_path)
    data = DataConfig.model_validate({"seconds": 0.25, "augment_sound": {"gain": 6.0, "speed": 0.1, "time_masks": 1}})
    task = Trained(tmp_path, prepared, {"name": "audio_cnn", "widths": [8, 16]}, data=data)
    names = task.plan.texts("test", range(15))
    answers = {str(row["file"]): row for row in task.asked(files)}
    found = [answers[name.removeprefix("test/")] for name in names]
    task.classified(found)
    assert task.plan.info.read((path / names[0]).open("rb")).shape[0] <= 2000  # type: ignore[attr-defined]
    task.classified([task.served([(path / name).read_bytes()])[0] for name in names])


@pytest.mark.long
def test_a_number_that_is_told_from_sounds(tmp_path: Path) -> None:
    rows = whistles(tmp_path / "all", 45)
    write(tmp_path / "all/train.csv", rows[:30])
    files = write(tmp_path / "all/test.csv", rows[30:])
    config = SoundFilesPreprocessConfig(files=str(tmp_path / "all"), target="hertz", target_type="number")
    task = Trained(
        tmp_path,
        sounds.preprocess(sounds.find(config), config, tmp_path),
        {"name": "audio_cnn", "widths": [8]},
        "regression",
    )
    (expected,) = task.tested()
    np.testing.assert_allclose([row["hertz"] for row in task.asked(files)], expected, rtol=1e-3)
    assert expected.std() > 0


# ---- several labels, several numbers, and the target beside what is asked -------------------------------------------


def of_films(
    folder: Path,
    problem: str,
    network: dict[str, Any],
    columns: bool = False,
    training: dict[str, Any] | None = None,
    **settings: Any,
) -> Trained:
    for name, rows in {"train": films(120), "test": films(40, seed=1)}.items():
        write(folder / f"films/{name}.csv", as_columns(rows, settings["target"]) if columns else rows)
    block = {"files": str(folder / "films"), "columns": {"tags": "out"} if columns else {}, **settings}
    config = TableFilesPreprocessConfig.model_validate(block)
    prepared = table.preprocess(table.find(config), config, folder)
    return Trained(folder, prepared, network, problem, settings=training)


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("network", ["tabm", "linear", "ft_transformer"])
def test_rows_with_several_labels(tmp_path: Path, columns: bool, network: str) -> None:
    settings = {"target": ["horror", "drama"]} if columns else {"target": "tags", "separator": ";"}
    task = of_films(tmp_path, "multilabel", ROW_NETWORKS[network], columns, **settings)
    (logits,) = task.tested()
    names = task.plan.info.target.labels  # type: ignore[union-attr]
    rows = task.asked(tmp_path / "films/test.csv")
    found = np.array([[row[f"probability_{name}"] for name in names] for row in rows])
    np.testing.assert_allclose(found, logits.sigmoid(), atol=1e-5)
    assert [row["labels"] for row in rows] == [
        ";".join(name for name, share in zip(names, shares, strict=True) if share >= 0.5) for shares in found
    ]
    assert_as_measured(task, 40)
    rows_alone = [{name: row[name] for name in ("laughs", "deaths", "tears", "lat", "minutes")} for row in films(40, 1)]
    served = task.served(rows_alone)
    np.testing.assert_allclose([[row[f"probability_{name}"] for name in names] for row in served], found, atol=1e-5)
    task.asked(write(tmp_path / "asked.csv", rows_alone))
    assert task.scores == {}  # there is nothing to judge by


@pytest.mark.parametrize("cache", ["always", "never"])
def test_pictures_of_a_table_with_several_labels(tmp_path: Path, cache: str) -> None:
    """By lists of labels, from a table that names the pictures; the answers are held to it."""
    folder = tmp_path / "own"
    draw(folder / "pictures", "8", 16)
    names = sorted(str(path.relative_to(folder)) for path in folder.glob("pictures/*/*"))
    rows = [
        {"picture": name, "set": ["train", "test"][number % 2], "tags": f"{Path(name).parent.name}|t{number % 3}"}
        for number, name in enumerate(names)
    ]
    block = {"files": str(write(folder / "all.csv", rows)), "target": "tags", "separator": "|", "cache": cache}
    config = PicturesPreprocessConfig.model_validate({**block, "size": [8, 8], "split_by": {"column": "set"}})
    prepared = pictures.preprocess(pictures.find(config), config, tmp_path)
    task = Trained(tmp_path, prepared, {"name": "mlp", "hidden": [8]}, "multilabel")
    (logits,) = task.tested()
    labels = task.plan.info.target.labels  # type: ignore[union-attr]
    assert labels == ["dark", "light", "t0", "t1", "t2"]
    asked = [row for row in rows if row["set"] == "test"]
    answers = task.asked(write(folder / "test.csv", asked))
    served = [task.served([(folder / row["picture"]).read_bytes()])[0] for row in asked]
    for found in (answers, served):
        shares = [[row[f"probability_{name}"] for name in labels] for row in found]
        np.testing.assert_allclose(shares, logits.sigmoid(), atol=1e-4)
    assert_as_measured(task, len(asked))
    assert [row["true"] for row in answers] == [row["tags"] for row in asked]


def assert_as_measured(task: Trained, count: int) -> None:
    """The figures of `predict` are those of `evaluate`."""
    measured = task.measured()
    assert task.scores["samples"] == measured["test_samples"] == count
    assert len(task.scores) > 2
    for name, value in task.scores.items():
        assert name == "samples" or value == pytest.approx(measured[name], rel=1e-6, abs=1e-4), name


@pytest.mark.parametrize(
    ("network", "scale"),
    [("tabular_mlp", "linear"), ("tabular_mlp", "log"), ("tabular_mlp", "robust"), ("ft_transformer", "log")],
)
def test_rows_with_several_numbers(tmp_path: Path, network: str, scale: str) -> None:
    told: dict[str, Any] = {"target": ["lat", "minutes"], "target_scale": scale}
    task = of_films(tmp_path, "regression", ROW_NETWORKS[network], training={"prediction_interval": 0.8}, **told)
    (expected,) = task.tested()
    rows = task.asked(tmp_path / "films/test.csv")
    for answers in (rows, task.served(films(40, seed=1))):
        np.testing.assert_allclose([[row["lat"], row["minutes"]] for row in answers], expected, rtol=1e-4)
    assert expected.std(0).min() > 0
    assert_as_measured(task, 40)
    assert task.scores.keys() > {"r2", "rmse_lat", "mae_minutes", "interval_coverage", "interval_width_lat"}
    columns = zip(regression.numbers_of(task.checkpoint.info), expected.numpy().T, strict=True)
    ends = {name: values for each, column in columns for name, values in bounds(each, column).items()}
    for answers in (rows, task.served(films(40, seed=1))):
        for name, values in ends.items():
            np.testing.assert_allclose([row[name] for row in answers], values, rtol=1e-3)
    kept = problem_of("regression").answers_to(task.checkpoint, task.plan, task.evaluation)
    assert [row["low minutes"] for row in kept] == pytest.approx([row["minutes_low"] for row in rows], rel=1e-3)
    assert list(rows[0]) == [
        "file",
        "true lat",
        "true minutes",
        *[f"lat{end}" for end in ("", "_low", "_high")],
        *[f"minutes{end}" for end in ("", "_low", "_high")],
        "remarks",
    ]
    given = [(row["lat"], row["minutes"]) for row in films(40, seed=1)]
    assert [(row["true lat"], row["true minutes"]) for row in rows] == given


def test_the_target_beside_rows_and_texts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In another order, with gaps, with a class that is new, and only in some of the files."""
    write(tmp_path / "people/train.csv", people(120))
    write(tmp_path / "people/test.csv", people(40, seed=1))
    config = TableFilesPreprocessConfig(files=str(tmp_path / "people"), target="bike")
    prepared = table.preprocess(table.find(config), config, tmp_path)
    task = Trained(tmp_path, prepared, {"name": "linear"})
    with caplog.at_level(logging.INFO):
        task.asked(tmp_path / "people/test.csv")
        assert_as_measured(task, 40)
        assert "beside the target, which 40 samples come with: accuracy " in caplog.text
        rows = [dict(reversed(row.items())) for row in people(12, seed=1)]
        rows[0]["bike"], rows[1]["bike"] = "?", "maybe"
        write(tmp_path / "asked/a.csv", rows)
        write(tmp_path / "asked/b.csv", [{**row, "bike": ""} for row in rows])
        answers = task.asked(tmp_path / "asked")
    right = [row["bike"] == answer["class_1"] for row, answer in zip(rows, answers, strict=False)]
    assert task.scores["samples"] == 11
    assert task.scores["accuracy"] == pytest.approx(np.mean(right[1:]))
    assert "training did not have 'maybe', which count as wrong" in caplog.messages
    assert [row["true"] for row in answers] == [None, "maybe", *(row["bike"] for row in rows[2:]), *[None] * 12]
    (tmp_path / "asked/a.csv").unlink()
    assert "true" not in task.asked(tmp_path / "asked")[0]
    write(tmp_path / "reviews/train.csv", reviews(60))
    write(tmp_path / "reviews/test.csv", reviews(30, seed=1))
    block = TextFilesPreprocessConfig(files=str(tmp_path / "reviews"), target="stars")
    prepared = texts.preprocess(texts.find(block), block, tmp_path)
    task = Trained(tmp_path / "stars", prepared, {"name": "text_rnn", "width": 8}, "regression")
    task.asked(tmp_path / "reviews/test.csv")
    assert_as_measured(task, 30)
    odd = [{**row, "stars": "many" if number == 3 else row["stars"]} for number, row in enumerate(reviews(30, seed=1))]
    with caplog.at_level(logging.WARNING):
        answers = task.asked(write(tmp_path / "odd.csv", odd))
    assert task.scores["samples"] == 29
    assert [row["true"] for row in answers] == [None if row["stars"] == "many" else row["stars"] for row in odd]
    assert "the target of 1 row cannot be judged: 'many' is not a number" in caplog.messages


HEIGHTS: dict[str, dict[str, str]] = {  # as they are written, and read
    "number": {"low": "1.040", "middle": "2.000,5", "high": "3.100"},
    "classes": {"low": "1,5", "middle": "2,5", "high": "1.000"},
    "dates": {"low": "01.02.2024", "middle": "03.04.2024", "high": "05.06.2024"},
}
READ: dict[str, list[Any]] = {
    "number": [1040.0, 2000.5, 3100.0],
    "classes": ["1.5", "2.5", "1000"],
    "dates": ["2024-02-01T00:00:00", "2024-04-03T00:00:00", "2024-06-05T00:00:00"],
}
NAMED: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "sounds": (sounds, SoundFilesPreprocessConfig, {"name": "audio_cnn", "widths": [8]}),
    "pictures": (pictures, PicturesPreprocessConfig, {"name": "mlp", "hidden": [8]}),
    "texts": (texts, TextFilesPreprocessConfig, {"name": "text_ngrams", "width": 8}),
}


@pytest.mark.parametrize(
    ("kind", "form"),
    [("sounds", "dates"), ("pictures", "number"), ("pictures", "dates"), ("texts", "number"), ("texts", "classes")],
)
def test_the_target_is_read_as_training_read_it(tmp_path: Path, kind: str, form: str) -> None:
    """Of numbers and dates that a table writes as in German, and texts that are such numbers."""
    rows = whistles(tmp_path / "own", 45) if kind == "sounds" else []
    for number in range(45 - len(rows)):
        name, height = f"{number:02}.png", list(HEIGHTS["number"])[number % 3]
        if kind == "pictures":
            (tmp_path / "own").mkdir(exist_ok=True)
            Image.fromarray(np.full((8, 8), 90 * (number % 3) + number, np.uint8)).save(tmp_path / "own" / name)
        text = f"{number % 7},{number % 3}" if number % 2 else f"the {height} one of {number}"
        rows.append({"text" if kind == "texts" else "picture": text if kind == "texts" else name, "height": height})
    given = [{**row, "height": HEIGHTS[form][row["height"]]} for row in rows]
    write(tmp_path / "own/train.csv", given[:30], ";")
    files = write(tmp_path / "own/test.csv", given[30:], ";")
    reader_of, block, network = NAMED[kind]
    config = block(
        files=str(tmp_path / "own"),
        target="height",
        target_type="number" if form == "number" else "classes",
        decimal=",",
        date_format="%d.%m.%Y",
        **({"text": "text"} if kind == "texts" else {}),
    )
    prepared = reader_of.preprocess(reader_of.find(config), config, tmp_path)
    task = Trained(tmp_path, prepared, network, "regression" if form == "number" else "classification")
    answers = task.asked(files)
    meant = dict(zip(HEIGHTS[form], READ[form], strict=True))
    assert [row["true" if "true" in row else "true height"] for row in answers] == [
        meant[row["height"]] for row in rows[30:]
    ]
    assert_as_measured(task, 15)
    if kind == "texts":
        as_tested(task, task.served([row["text"] for row in given[30:]]), "height" if form == "number" else "kind")


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        ([True, False], ["False", "True"]),
        ([1, 0], ["0", "1"]),
        ([1.0, 0.0, None], ["0", "1"]),
        (["01", "1", "好评", "True", None], ["01", "1", "True", "好评"]),
    ],
    ids=["truths", "whole numbers", "with gaps", "words"],
)
def test_labels_are_what_the_file_says(tmp_path: Path, cells: list[Any], names: list[str]) -> None:
    """In answers, figures and metadata; and what is missing is none."""
    rows = [{"x": number / 10, "label": cells[number % len(cells)]} for number in range(60)]
    (tmp_path / "own").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "own/rows.parquet")
    config = TableFilesPreprocessConfig(
        files=str(tmp_path / "own"), target="label", columns={"x": "number"}, target_type="classes"
    )
    prepared = table.preprocess(table.find(config), config, tmp_path)
    assert sum(prepared[3]["rows"].values()) == sum(row["label"] is not None for row in rows)
    task = Trained(tmp_path, prepared, {"name": "linear"})
    for answer in (task.asked(tmp_path / "own"), task.served(rows[:9])):
        assert {row[f"class_{place + 1}"] for row in answer for place in range(min(3, len(names)))} <= set(names)
    assert task.scores["samples"] == sum(row["label"] is not None for row in rows)
    history = [{"epoch": 1, "train_loss": 1.0, "learning_rate": 0.1}]
    found = problem_of("classification").evaluate(task.checkpoint, task.plan, history, task.evaluation)
    assert list(found["per_class"]) == names
    metadata = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(metadata["target"])["classes"] == names


# ---- numbers far beyond all others ---------------------------------------------------------------------------------


@pytest.mark.parametrize("huge", [1e9, pytest.param(1e5, marks=pytest.mark.long)])
def test_a_few_huge_numbers_do_not_keep_the_others_from_being_learnt(
    tmp_path: Path, huge: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """y = 2x + 5, to a hundredth of the range where nearly all of the 20,000 rows are."""
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 100, 20_000)
    x[:10] = generator.uniform(huge / 100, huge, 10)
    config = TableFilesPreprocessConfig(entry="rows", target="y", columns={"x": "number"})
    prepared = table.preprocess_entry([{"x": each, "y": 2 * each + 5} for each in x.tolist()], config)
    recipe = {"epochs": 6, "batch_size": 256, "optimizer": {"name": "AdamW", "lr": 0.005}}
    for key, value in {**recipe, "scheduler": {"name": "CosineAnnealingLR"}}.items():
        monkeypatch.setitem(TRAIN, key, value)
    task = Trained(tmp_path, prepared, {"name": "tabular_mlp", "hidden": [128, 128], "dropout": 0.0}, "regression")
    asked = torch.linspace(1, 99, 99)[:, None]
    with torch.no_grad():
        missed = (task.checkpoint.build()(asked) - 2 * asked[:, 0] - 5).abs() / 200
    assert missed.mean() < 0.01
    assert missed.max() < 0.1
    assert task.measured()["mae"] < huge / 100


def test_the_closed_form_of_very_many_rows_is_that_of_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And what it says of the test rows it says of some at once."""
    noise = np.random.default_rng(0).normal(size=600).tolist()
    rows = [{"x": each % 20, "y": 2.0 * (each % 20) + noise[each]} for each in range(600)]
    config = TableFilesPreprocessConfig(entry="rows", target="y", columns={"x": "number"})
    task = Trained(tmp_path, table.preprocess_entry(rows, config), {"name": "linear"}, "regression")
    every = task.measured()["closed_form_r2"]
    with caplog.at_level(logging.INFO):
        monkeypatch.setattr(regression, "CLOSED_FORM", 70 * task.plan.info.sizes()["features"])
        some = task.measured()["closed_form_r2"]
    assert "the closed form is that of 70 training samples, drawn at random" in caplog.messages
    assert 0.98 < some < every


@pytest.mark.parametrize("network", ROW_NETWORKS)
def test_columns_that_are_nearly_constant_cannot_explode(tmp_path: Path, network: str) -> None:
    generator = np.random.default_rng(0)
    rows = [
        {
            "x": float(generator.normal()),
            "still": 5.0 + (number == 7) * 1e-6,
            "seldom": int(number in {3, 50, 90}),
            "y": float(number % 10),
        }
        for number in range(300)
    ]
    config = TableFilesPreprocessConfig(entry="rows", target="y")
    prepared = table.preprocess_entry(rows, config)
    assert {column["name"] for column in prepared[3]["encoding"]} == {"x", "still", "seldom"}
    task = Trained(tmp_path, prepared, ROW_NETWORKS[network], "regression")
    others = [{**rows[0], "still": still, "seldom": seldom} for still in (-1e30, 0, 1e30) for seldom in (-1e30, 1e30)]
    (tmp_path / "model.onnx").write_bytes(export_checkpoint(task.checkpoint))
    answers = task.served(others)
    assert all(-20 < row["y"] < 30 for row in answers)
    assert "still -1e+30 is below 5" in answers[0]["remarks"]


# ---- series --------------------------------------------------------------------------------------------------------


HOUR = 3_600_000_000  # microseconds


def of_series(folder: Path, rows: list[dict[str, Any]], network: dict[str, Any], **settings: Any) -> Trained:
    path = write(folder / "hours.csv", rows)
    given = {"files": str(path), "columns": ["load", "heat"], "window": 24, "horizon": 6, **settings}
    config = SeriesPreprocessConfig.model_validate(given)
    prepared = series.preprocess(series.find(config), config, folder)
    return Trained(folder, prepared, network, "forecasting", settings={"prediction_interval": 0.8})


def cut(rows: list[dict[str, Any]], last: str, more: int = 0) -> list[dict[str, Any]]:
    """The table as it was when its last row was that of the moment, and what is planned for so many rows after it."""
    end = next(place for place, row in enumerate(rows) if row["time"] == last) + 1
    planned = [{**row, "load": "", "heat": "", "twice": ""} for row in rows[end : end + more]]
    return [dict(reversed(row.items())) for row in [*rows[:end], *planned]]


@pytest.mark.parametrize(
    ("network", "settings"),
    [
        ("dlinear", {}),
        ("patchtst", {"known": ["plan"], "calendar": True}),
        ("tcn", {"calendar": True, "missing": ["off"], "longest_gap": 2}),
        ("series_lstm", {"known": ["plan"]}),
        ("tcn", {"past": ["plan"], "known": []}),
        ("series_transformer", {"past": ["twice"], "calendar": True}),
        ("series_lstm", {"past": ["twice"], "known": ["plan"], "missing": ["off"]}),
    ],
)
def test_series_are_asked_about_as_they_were_tested(tmp_path: Path, network: str, settings: dict[str, Any]) -> None:
    """From tables that end where a test window does, as files and as JSON; with gaps, and what is planned."""
    rows = [{**row, "twice": 2 * row["load"]} for row in hours(400)]
    if settings.get("missing"):
        rows[330]["load"] = rows[350]["heat"] = rows[351]["heat"] = "off"
        del rows[340:342]
    task = of_series(tmp_path, rows, {"name": network}, **settings)
    (expected,) = task.tested()
    times = task.plan.array("test", "times").tolist()
    assert len(times) == len(expected) > 30
    more = 6 if settings.get("known") else 0
    written = task.plan.info.clock.written  # type: ignore[attr-defined]
    chosen = range(0, len(times), 5)
    there = {row["time"] for row in rows}
    tables = {}
    for number in chosen:
        last = written(times[number] - HOUR)
        if last in there and "off" not in cut(rows, last)[-1].values():
            tables[number] = cut(rows, last, more)
            write(tmp_path / f"asked/{number:03}.csv", tables[number])
    assert len(tables) > 5
    answers = task.asked(tmp_path / "asked")
    assert len(answers) == 6 * len(tables)
    found = np.array([[row["load"], row["heat"]] for row in answers]).reshape(-1, 6, 2)
    np.testing.assert_allclose(found, expected[list(tables)], rtol=1e-4)
    assert [row["time"] for row in answers[::6]] == [written(times[number]) for number in tables]
    within = np.array(task.checkpoint.info.target.within)  # type: ignore[union-attr]
    for end, side in {"low": -1, "high": 1}.items():
        ends = np.array([[row[f"load_{end}"], row[f"heat_{end}"]] for row in answers]).reshape(-1, 6, 2)
        np.testing.assert_allclose(ends, found + side * within, rtol=1e-4)
    for number, answer in zip(tables, task.served(list(tables.values())), strict=True):
        assert answer["time"] == [written(times[number] + step * HOUR) for step in range(6)]
        np.testing.assert_allclose(np.column_stack([answer["load"], answer["heat"]]), expected[number], rtol=1e-4)
        np.testing.assert_allclose(answer["heat_low"], expected[number, :, 1] - within[:, 1], rtol=1e-4)
    assert expected.std(0).min() > 0
    assert "true load" not in answers[0]
    held_back(
        task, rows, [number for number in tables if written(times[number] + 5 * HOUR) in there], tmp_path / "held"
    )


def held_back(task: Trained, rows: list[dict[str, Any]], chosen: list[int], folder: Path) -> None:
    """The windows are asked about, and judged, by tables that go on to the end of what is forecast."""
    info: Any = task.plan.info
    (expected,) = task.tested()
    *_, truth = (part.numpy() for part in task.plan.chosen("test", chosen))
    times = task.plan.array("test", "times").tolist()
    for number in chosen:
        write(folder / f"{number:03}.csv", cut(rows, info.clock.written(times[number] + 5 * HOUR)))
    answers = task.asked(folder, holdout=True)
    found, true = (
        np.array([[row[f"{before}load"], row[f"{before}heat"]] for row in answers]).reshape(-1, 6, 2)
        for before in ("", "true ")
    )
    np.testing.assert_allclose(found, expected[chosen], rtol=1e-4)
    np.testing.assert_allclose(true, truth, rtol=1e-6)
    errors = Errors.of(expected[chosen], torch.from_numpy(truth), info.std)
    within = np.array(task.checkpoint.info.target.within)  # type: ignore[union-attr]
    coverage = (np.abs(expected[chosen].numpy() - truth) <= within)[np.isfinite(truth)].mean()
    widths = {f"interval_width_{name}": 2 * within[:, at].mean() for at, name in enumerate(("load", "heat"))}
    judged = {**errors.metrics(), "interval_coverage": coverage, "interval_asked": 0.8, **widths}
    assert task.scores == pytest.approx({**judged, "samples": len(chosen)}, rel=1e-3)
    assert [row["time"] for row in answers[::6]] == [info.clock.written(times[number]) for number in chosen]


WAVE_NETWORKS: dict[str, dict[str, Any]] = {
    "series_cnn": {"name": "series_cnn", "widths": [8], "kernels": [3]},
    "series_lstm": {"name": "series_lstm", "width": 8},
    "series_transformer": {"name": "series_transformer", "width": 8},
    "tcn": {"name": "tcn", "width": 8, "blocks": 2},
}


def of_waves(
    folder: Path, rows: list[list[dict[str, Any]]], problem: str, network: str = "series_cnn", **settings: Any
) -> Trained:
    for name, part in zip(("train", "test"), rows, strict=True):
        write(folder / f"waves/{name}.csv", part)
    config = LabelledSeriesPreprocessConfig.model_validate({"files": str(folder / "waves"), **settings})
    prepared = labelled_series.preprocess(labelled_series.find(config), config, folder)
    return Trained(folder, prepared, WAVE_NETWORKS[network], problem)


@pytest.mark.parametrize("network", ["series_cnn", "tcn"])
def test_series_in_rows_are_told_apart(tmp_path: Path, network: str) -> None:
    rows = waves(40, seed=1)
    given = {"target": "kind", "columns": [f"t{step}" for step in range(20)]}
    task = of_waves(tmp_path, [waves(80), rows], "classification", network, **given)
    asked = [{"more": 1, **dict(reversed(row.items()))} for row in rows]
    task.classified(task.asked(write(tmp_path / "asked.csv", asked, ";")))
    task.classified(task.served(asked))


def test_series_of_many_rows_are_told_apart(tmp_path: Path) -> None:
    rows = waves(40, seed=1)
    given = {"target": "kind", "series": "wave", "time": "step", "length": 18}
    task = of_waves(tmp_path, [steps(waves(80)), steps(rows)], "classification", "series_lstm", **given)
    answers = {row["file"]: row for row in task.asked(write(tmp_path / "asked.csv", steps(rows)))}
    assert_as_measured(task, 40)
    names = list(dict.fromkeys(row["wave"] for row in steps(rows)))
    task.classified([answers[f"asked.csv:{name}"] for name in names])
    task.classified(task.served([[row for row in steps(rows) if row["wave"] == name] for name in names]))


def test_rows_of_a_series_are_put_together_as_in_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In several files; what they say of it may stand in any of them, and is not judged where they disagree."""
    rows = steps(waves(30, seed=1))
    task = of_waves(
        tmp_path, [steps(waves(80)), rows], "classification", target="kind", series="wave", time="step", length=18
    )
    halves = {"b": [row for row in rows if row["step"] < 9], "a": [row for row in rows if row["step"] >= 9]}
    for name, part in halves.items():
        write(tmp_path / f"asked/{name}.csv", list(reversed(part)))
    names = list(dict.fromkeys(row["wave"] for row in rows))
    kinds = {row["wave"]: row["kind"] for row in rows}
    answers = {str(row["file"]).partition(":")[2]: row for row in task.asked(tmp_path / "asked")}
    task.classified([answers[name] for name in names])
    assert_as_measured(task, 30)
    assert {row["file"] for row in answers.values()} == {f"a.csv:{name}" for name in names}
    assert len(task.asked(tmp_path / "waves")) == 80 + 30  # those of another split are others
    later = [{**row, "kind": row["kind"] if row["step"] == 12 else ""} for row in rows]
    answers = {str(row["file"]): row for row in task.asked(write(tmp_path / "later.csv", later))}
    assert {name: row["true"] for name, row in answers.items()} == {f"later.csv:{name}": kinds[name] for name in names}
    assert_as_measured(task, 30)
    odd = [{**row, "kind": "slow" if row["step"] % 2 else "quick"} if row["wave"] == names[3] else row for row in rows]
    with caplog.at_level(logging.WARNING):
        told = [row["true"] for row in task.asked(write(tmp_path / "odd.csv", odd))]
    assert told == [None if name == names[3] else kinds[name] for name in names]
    assert task.scores["samples"] == 29
    assert f"the target of 1 row cannot be judged: series {names[3]} has several: quick, slow" in caplog.messages


def test_a_number_is_told_from_a_series(tmp_path: Path) -> None:
    rows = waves(40, seed=1)
    columns = [f"t{step}" for step in range(20)]
    task = of_waves(tmp_path, [waves(80), rows], "regression", "series_lstm", target="height", columns=columns)
    (expected,) = task.tested()
    for answers in (task.asked(tmp_path / "waves/test.csv"), task.served(rows)):
        np.testing.assert_allclose([row["height"] for row in answers], expected, rtol=1e-4)
    assert expected.std() > 0


WAVE_FORMS = {"last": (0, 1, 2), "first": (0, 2, 1)}  # where the channels are


@pytest.mark.parametrize(
    ("network", "target", "form"),
    [
        ("series_cnn", "kind", "none"),
        ("series_lstm", "kind", "last"),
        ("series_transformer", "kind", "last"),
        ("tcn", "kind", "first"),
        ("tcn", "h", "last"),
    ],
)
def test_series_in_arrays_are_told_apart(tmp_path: Path, network: str, target: str, form: str) -> None:
    """However they are asked about: in the files of training, without a target, one by one, and as lists."""
    given = {}
    for name, rows in {"train": waves(80), "test": waves(40, seed=1)}.items():
        cells = [[np.nan if row[f"t{step}"] == "" else row[f"t{step}"] for step in range(20)] for row in rows]
        x = np.array(cells, np.float32)
        x = x if form == "none" else np.stack([x, np.cumsum(np.nan_to_num(x), 1)], 2).transpose(WAVE_FORMS[form])
        kinds = np.array([row["kind"] for row in rows])
        given |= {f"x_{name}": x, f"kind_{name}": kinds, f"h_{name}": np.array([row["height"] for row in rows])}
    np.savez(tmp_path / "own.npz", **given)
    own = {"files": str(tmp_path / "own.npz"), "target": target, "array": "x", "channels_first": form == "first"}
    config = LabelledSeriesPreprocessConfig.model_validate(own)
    prepared = labelled_series.preprocess(labelled_series.find(config), config, tmp_path)
    problem = "classification" if target == "kind" else "regression"
    task = Trained(tmp_path, prepared, WAVE_NETWORKS[network], problem)
    np.savez(tmp_path / "test.npz", **{name: array for name, array in given.items() if "test" in name})
    np.save(tmp_path / "asked.npy", given["x_test"])
    (tmp_path / "folder").mkdir()
    (tmp_path / "single").mkdir()
    for name in ("x_test", f"{target}_test"):
        np.save(tmp_path / f"folder/{name}.npy", given[name])
    for number, each in enumerate(given["x_test"]):
        np.save(tmp_path / f"single/{number:02}.npy", each)
    for day, part in {"a": slice(25), "b": slice(25, 40)}.items():
        own_day = {"x": given["x_test"][part], target: given[f"{target}_test"][part]}
        (tmp_path / "persons" / day).mkdir(parents=True)
        for name, array in own_day.items():
            np.save(tmp_path / f"persons/{day}/{name.upper()}.npy", array)
        (tmp_path / "days").mkdir(exist_ok=True)
        np.savez(tmp_path / f"days/{day}.npz", **own_day)
    names = {
        "days": "a.npz:x:7",
        "persons": "a/X.npy:7",
        "test.npz": "test.npz:x_test:7",
        "asked.npy": "asked.npy:7",
        "folder": "x_test.npy:7",
        "single": "07.npy",
    }
    for place, name in names.items():
        answers = task.asked(tmp_path / place)
        assert answers[7]["file"] == name
        as_tested(task, answers, target)
        if place in {"test.npz", "folder", "days", "persons"}:
            assert_as_measured(task, 40)
    lists = [[None if value != value else value for value in each.ravel().tolist()] for each in given["x_test"]]
    cells = [np.array(each, object).reshape(given["x_test"].shape[1:]).tolist() for each in lists]
    as_tested(task, task.served(json.loads(json.dumps([{"x": each} for each in cells]))), target)


def as_tested(task: Trained, answers: list[dict[str, Any]], target: str) -> None:
    if target == "kind":
        task.classified(answers)
        return
    (expected,) = task.tested()
    np.testing.assert_allclose([row[target] for row in answers], expected, rtol=1e-4)
    assert expected.std() > 0
