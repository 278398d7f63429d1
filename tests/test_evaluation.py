import io
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import rich
import sklearn.metrics
import torch
import torch.nn.functional as F
from matplotlib.colors import to_hex
from rich.console import Console
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, Ridge
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.functional import classification as tm
from torchvision.transforms.v2 import functional

from tests.stages import CLASSIFICATION, evaluate
from torchloom.config import DataConfig
from torchloom.data.batches import Batches, ImageBatches
from torchloom.data.sequences import DocumentBatches
from torchloom.data.targets import Classes, Number
from torchloom.data.text import Tokenizer
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.modalities import DocumentInfo, ImageInfo, TableInfo, TextInfo
from torchloom.modalities.modules import NormalizedImages, Views
from torchloom.models import build_model
from torchloom.problems import problem_of
from torchloom.problems.classification.config import EvaluateClassifierConfig
from torchloom.problems.classification.metrics import (
    classification_metrics,
    hardest,
    most_confident,
    reliability,
    worst_mistakes,
)
from torchloom.problems.evaluation import predict
from torchloom.problems.language_model.metrics import language_model_metrics
from torchloom.problems.losses import classification_loss
from torchloom.problems.reconstruction.metrics import (
    by_error,
    draw_images,
    principal_components_mse,
    reconstruction_metrics,
)
from torchloom.problems.regression import target_of
from torchloom.problems.regression.metrics import (
    LinearSolution,
    coefficients,
    joined,
    largest_residuals,
    least_squares,
    regression_metrics,
)
from torchloom.system.figures import RIGHT, WRONG
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan, TensorFile

# Images as (true, predicted). By class: a has 2 right and 1 wrongly called so, b 1 right and 1 called so, c 1 right.
PAIRS = [(0, 0), (0, 0), (1, 1), (2, 1), (2, 2), (1, 0)]


def sure_of(predicted: list[int], classes: int, logit: float = 2.0) -> Tensor:
    """Logits that are 0 but for the predicted class."""
    return logit * nn.functional.one_hot(torch.tensor(predicted), classes).float()


def confident(confidence: float, right: int, wrong: int) -> tuple[Tensor, Tensor]:
    """Logits of two classes that give class 0 this probability, and labels of which so many are 0."""
    logits = torch.tensor([[confidence, 1 - confidence]]).log().expand(right + wrong, 2)
    return logits, torch.tensor([0] * right + [1] * wrong)


def indexed_images(count: int) -> tuple[Tensor, Tensor]:
    """Images (N, 2, 2, 3) filled with their own number, and it as the label."""
    labels = torch.arange(count)
    return labels.to(torch.uint8)[:, None, None, None].expand(count, 2, 2, 3), labels


def loader(count: int, batch_size: int) -> DataLoader[Any]:
    return DataLoader(ImageBatches(*indexed_images(count)), sampler=Batches(count, batch_size), batch_size=None)


class Corner(nn.Module):
    """Logits that are the image's first pixel and its negative; dropout in training would spoil them."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.9)

    def forward(self, images: Tensor) -> Tensor:
        pixel = self.dropout(images[:, 0, 0, :1].float())
        return torch.cat([pixel, -pixel], dim=1).bfloat16()


def test_figures_counted_by_hand() -> None:
    truth, predicted = zip(*PAIRS, strict=True)
    logits, labels = sure_of(list(predicted), 3), torch.tensor(truth)
    metrics, per_class, confusion = classification_metrics(logits, labels, ["a", "b", "c"])
    for ranked in ("roc_auc", "average_precision"):  # softmax rounds in its own way in each place, which decides
        del metrics[ranked]  # between equals
    f1 = {"a": 0.8, "b": 0.5, "c": 2 / 3}
    everything = math.exp(2) + 2
    assert metrics == pytest.approx(
        {
            "accuracy": 4 / 6,
            "loss": math.log(everything) - 4 / 6 * 2,
            "macro_f1": sum(f1.values()) / 3,
            "macro_precision": (2 / 3 + 1 / 2 + 1) / 3,
            "macro_recall": (1 + 1 / 2 + 1 / 2) / 3,
            "balanced_accuracy": (1 + 1 / 2 + 1 / 2) / 3,
            "accuracy_of_the_commonest": 1 / 3,
            "calibration_error": math.exp(2) / everything - 4 / 6,
        },
        abs=1e-6,
    )
    expected = {"a": (2 / 3, 1.0, 2), "b": (1 / 2, 1 / 2, 2), "c": (1.0, 1 / 2, 2)}
    assert per_class.keys() == expected.keys()
    for name, (precision, recall, images) in expected.items():
        assert per_class[name] == pytest.approx(
            {"precision": precision, "recall": recall, "f1": f1[name], "samples": images}
        )
    assert confusion.to_dense().tolist() == [[2, 0, 0], [1, 1, 0], [0, 1, 1]]


def test_the_area_below_the_roc_curve_is_the_share_of_pairs_in_the_right_order() -> None:
    truth, predicted = zip(*PAIRS, strict=True)
    logits = sure_of(list(predicted), 3, logit=200.0)  # probabilities are 1 and 0
    metrics, _, _ = classification_metrics(logits, torch.tensor(truth), ["a", "b", "c"])
    areas = [3.5 / 4, (3.5 / 4 + 1.5 / 4) / 2, (1 + 2 / 4) / 2]  # half for a draw
    assert metrics["roc_auc"] == pytest.approx(sum(areas) / 3)


@pytest.mark.filterwarnings("ignore:No positive samples")
@pytest.mark.parametrize("ties", [False, True])
def test_macro_means_and_areas_are_those_of_torchmetrics(ties: bool) -> None:
    """Which keeps a row and a column for each class."""
    labels = torch.randint(8, (300,))  # two of ten classes have no samples
    logits = torch.randn(300, 10) + 2 * F.one_hot((labels + (torch.rand(300) < 0.2)) % 9, 10)  # one is never the answer
    logits[:, 9] = -20.0
    logits = logits.round() if ties else logits
    metrics, per_class, confusion = classification_metrics(logits, labels, list("abcdefghij"))
    for name in ("f1_score", "precision", "recall"):
        short, of_torchmetrics = name.removesuffix("_score"), getattr(tm, f"multiclass_{name}")
        assert metrics[f"macro_{short}"] == pytest.approx(of_torchmetrics(logits, labels, 10).item(), abs=1e-6)
        each = of_torchmetrics(logits, labels, 10, average=None).tolist()
        assert [row[short] for row in per_class.values()] == pytest.approx(each, abs=1e-6)
    probabilities = logits.softmax(1)
    areas = tm.multiclass_auroc(probabilities, labels, 10, average=None)[labels.bincount(minlength=10) > 0]
    assert metrics["roc_auc"] == pytest.approx(areas.mean().item(), abs=1e-5)
    top5 = tm.multiclass_accuracy(probabilities, labels, 10, average="micro", top_k=5)
    assert metrics["top5_accuracy"] == pytest.approx(top5.item(), abs=1e-2 if ties else 1e-6)
    error = tm.multiclass_calibration_error(probabilities, labels, 10, n_bins=15)
    assert metrics["calibration_error"] == pytest.approx(error.item(), abs=1e-6)
    torch.testing.assert_close(confusion.to_dense(), tm.multiclass_confusion_matrix(logits, labels, 10))


def test_of_many_classes_the_hardest_that_have_samples() -> None:
    table = {name: {"f1": 0.1 * number, "samples": number % 2} for number, name in enumerate("abcdef")}
    assert hardest(table, most=6) == list("abcdef")
    assert hardest(table, most=2) == ["b", "d"]


def test_top5_takes_the_fifth_and_not_the_sixth() -> None:
    logits = torch.arange(7, 0, -1).float().expand(7, 7)  # class 0 first, class 6 last
    metrics, _, _ = classification_metrics(logits, torch.arange(7), list("abcdefg"))
    assert metrics["top5_accuracy"] == pytest.approx(5 / 7)
    assert metrics["accuracy"] == pytest.approx(1 / 7)


@pytest.mark.parametrize("count", [2, 3, 5, 6])
def test_top5_tells_something_of_six_classes_or_more(count: int) -> None:
    logits = sure_of([0] * count, count)
    metrics, _, confusion = classification_metrics(logits, torch.arange(count), list("abcdef")[:count])
    assert ("top5_accuracy" in metrics) == (count == 6)
    assert metrics["accuracy"] == pytest.approx(1 / count)
    assert confusion.shape == (count, count)


@pytest.mark.parametrize(
    ("groups", "error"),
    [
        ([(0.8, 8, 2)], 0.0),
        ([(0.7, 7, 3), (0.9, 9, 1)], 0.0),
        ([(1 - 1e-7, 5, 5)], 0.5),
        ([(0.55, 1, 3), (0.95, 4, 0)], (4 * 0.30 + 4 * 0.05) / 8),
        ([(0.6, 10, 0)], 0.4),
    ],
    ids=["calibrated", "calibrated in two bins", "overconfident", "two bins", "underconfident"],
)
def test_calibration_error(groups: list[tuple[float, int, int]], error: float) -> None:
    logits, labels = zip(*(confident(*group) for group in groups), strict=True)
    metrics, _, _ = classification_metrics(torch.cat(logits), torch.cat(labels), ["a", "b"])
    assert metrics["calibration_error"] == pytest.approx(error, abs=1e-5)


def test_the_bins_of_confidence_are_those_of_the_calibration_error() -> None:
    labels = torch.arange(500) % 4
    logits = torch.randn(500, 4) + 1.5 * F.one_hot(labels, 4)
    bins = reliability(logits, labels)
    assert sum(row["samples"] for row in bins) == 500
    assert all(row["low"] <= row["confidence"] <= row["high"] <= row["low"] + 0.067 for row in bins)
    gaps = sum(row["samples"] * abs(row["accuracy"] - row["confidence"]) for row in bins) / 500
    metrics, _, _ = classification_metrics(logits, labels, list("abcd"))
    assert gaps == pytest.approx(metrics["calibration_error"], abs=1e-6)
    logits, labels = confident(0.75, 3, 1)  # in the bin from 11/15 to 12/15
    (row,) = reliability(logits, labels)
    assert (row["low"], row["high"], row["samples"]) == (11 / 15, 12 / 15, 4)
    assert (row["confidence"], row["accuracy"]) == (pytest.approx(0.75), 0.75)
    sure = reliability(torch.tensor([[100.0, 0.0]]), torch.tensor([0]))
    assert (sure[0]["high"], sure[0]["confidence"]) == (1.0, 1.0)


@pytest.mark.parametrize("predicted", [[0, 0, 1, 1], [0, 0, 1, 2]], ids=["never seen", "only guessed"])
def test_a_class_without_images_gives_zeros_and_no_nan(predicted: list[int]) -> None:
    metrics, per_class, confusion = classification_metrics(
        sure_of(predicted, 3), torch.tensor([0, 0, 1, 1]), ["a", "b", "c"]
    )
    assert json.dumps([metrics, per_class, confusion.to_dense().tolist()], allow_nan=False)
    assert per_class["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "samples": 0}
    assert per_class["a"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "samples": 2}
    assert confusion.to_dense()[2].tolist() == [0, 0, 0]


@pytest.mark.parametrize("batch_size", [1, 4, 10, 100])
def test_predictions_keep_the_order(batch_size: int) -> None:
    model = Corner().train()
    (logits,), labels = predict(model, loader(10, batch_size))
    assert labels.tolist() == list(range(10))
    assert logits[:, 0].tolist() == list(range(10))
    assert logits.dtype is torch.float32
    assert not logits.requires_grad
    assert not model.training


class Read(nn.Module):
    """Of documents, the last token and all tokens' sum, in two outputs."""

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return tokens.gather(1, lengths[:, None] - 1).half(), tokens.sum(1)


def test_all_outputs_of_several_inputs_are_kept_in_order() -> None:
    documents = DocumentBatches(torch.arange(1, 11), torch.tensor([0, 4, 5, 10]), torch.tensor([1, 0, 1]), None)
    (last, sums), labels = predict(Read(), DataLoader(documents, sampler=Batches(3, 2), batch_size=None))
    assert last.tolist() == [[4.0], [5.0], [10.0]]
    assert sums.tolist() == [10.0, 5.0, 40.0]
    assert labels.tolist() == [1, 0, 1]
    assert last.dtype is sums.dtype is torch.float32


def test_predicting_shows_a_bar_to_who_watches(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "torchloom")
    shown = io.StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=shown, force_terminal=True))
    (logits,), _ = predict(Corner(), loader(10, 4))
    assert len(logits) == 10
    assert "test" in shown.getvalue()
    assert "3/3" in shown.getvalue()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matrix_products_are_of_the_type_that_is_asked_for(dtype: torch.dtype) -> None:
    seen = set()

    class Product(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits = images.float().flatten(1) @ torch.ones(12, 2)
            seen.add(logits.dtype)
            return logits

    (logits,), _ = predict(Product(), loader(10, 4), dtype)
    assert seen == {dtype}
    assert logits.dtype is torch.float32
    assert torch.equal(logits, 12.0 * torch.arange(10)[:, None].expand(10, 2))


# ---- views ---------------------------------------------------------------------------------------------------------


class Patch(nn.Module):
    """Logits from each pixel with a weight of its own, so that any other view gives others; and what it was shown."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, *shape, generator=torch.Generator().manual_seed(1)))
        self.shown: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shown.append(images)
        return torch.einsum("bchw,nchw->bn", images.float() / 255, self.weight).square()


VIEWED = torch.randint(256, (6, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def moved(images: Tensor, down: int, right: int) -> Tensor:
    """What torchvision cuts out of the images with a reflected border of a pixel, at this place."""
    padded = functional.pad(images, [1], padding_mode="reflect")
    return functional.crop(padded, down, right, *images.shape[2:])


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_the_mirror_images_logits_count_as_much(memory: torch.memory_format) -> None:
    model = Patch((3, 5, 7))
    with torch.no_grad():
        expected = (model(VIEWED) + model(functional.horizontal_flip(VIEWED))) / 2
        found = Views(model, "mirror")(VIEWED.to(memory_format=memory))
        assert not torch.allclose(found, model(VIEWED), rtol=0.01)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_shifted_views_count_as_much_as_the_image_and_its_mirror_image(memory: torch.memory_format) -> None:
    model = Patch((3, 5, 7))
    shifted = [moved(VIEWED, 0, 0), moved(VIEWED, 2, 2)]
    views = [(VIEWED, 0.5), (shifted[0], 0.25), (shifted[1], 0.25)]
    with torch.no_grad():
        expected = sum(share * (model(view) + model(functional.horizontal_flip(view))) / 2 for view, share in views)
        model.shown.clear()
        found = Views(model, "mirror_and_shift")(VIEWED.to(memory_format=memory))
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(found, expected)
    assert len(model.shown) == 6
    assert all(view.dtype is torch.uint8 for view in model.shown)
    # shifted down and right, so that the first row and column are reflected ones
    assert torch.equal(shifted[0][:, :, 1:, 1:], VIEWED[:, :, :-1, :-1])
    assert torch.equal(shifted[0][:, :, 0, 1:], VIEWED[:, :, 1, :-1])


@pytest.mark.parametrize("views", ["mirror", "mirror_and_shift"])
def test_views_are_averaged_in_float32_and_keep_the_order(views: Literal["mirror", "mirror_and_shift"]) -> None:
    """All pixels of an image are alike, so that all views are."""
    (logits,), labels = predict(Views(Corner(), views), loader(10, 4))
    assert labels.tolist() == list(range(10))
    assert logits[:, 0].tolist() == list(range(10))
    assert logits.dtype is torch.float32


SHOWN = torch.randint(256, (40, 8, 9, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
SHOWN_AS = torch.arange(40) % 4
MIDGETS = ImageInfo(target=Classes(classes=list("abcd")), shape=[3, 8, 9], mean=[0.5] * 3, std=[0.3] * 3)


def evaluation(folder: Path, info: Any = MIDGETS, **settings: Any) -> tuple[dict[str, Any], nn.Module]:
    """The metrics of an untrained network on SHOWN, and the model."""
    made, model = everything(folder, info, **settings)
    return made["metrics"], model


def everything(
    folder: Path, info: Any = MIDGETS, loss: dict[str, Any] | None = None, **settings: Any
) -> tuple[dict[str, Any], nn.Module]:
    """What evaluating gives, and the model, which this loss has trained."""
    name, arguments = ("mlp", {"hidden": [16]}) if info is MIDGETS else ("text_rnn", {"embedding": 4, "width": 4})
    dataset = TensorsDataset(filepath=str(folder / "test.safetensors"))
    dataset.save(Tensors({"images": SHOWN.numpy(), "labels": SHOWN_AS.numpy()}))
    saved = dataset.load()
    assert saved.path is not None
    assert saved.fingerprint is not None
    file = TensorFile(path=saved.path, fingerprint=saved.fingerprint, length=40)
    splits = {"train": [], "validation": [], "test": [file]}
    plan = LoaderPlan(splits=splits, info=info, data=DataConfig(), batch_size=8, evaluate_batch_size=16, seed=0)
    torch.manual_seed(0)
    model = build_model(name, arguments, info, CLASSIFICATION)
    weights = {key: 3 * value if key.endswith("weight") else value for key, value in model.state_dict().items()}
    training = {"epoch": 1, **({"parameters": {"loss": loss}} if loss else {})}
    checkpoint = Checkpoint(
        network=name, arguments=arguments, problem="classification", info=info, training=training, weights=weights
    )
    history = [{"epoch": 1, "learning_rate": 0.1, "train_loss": 1.0, "train_accuracy": 0.5}]
    config = EvaluateClassifierConfig.model_validate({"device": "cpu", "pictures": 4, **settings})
    return evaluate(checkpoint, plan, history, config), checkpoint.build()


@pytest.mark.parametrize(
    ("loss", "sure"),
    [
        ({"name": "CrossEntropyLoss", "label_smoothing": 0.3}, lambda logits: logits.softmax(1)),
        ({"name": "CrossEntropyLoss", "weight": [1.0, 2.0, 3.0, 4.0]}, lambda logits: logits.softmax(1)),
        ({"name": "BCEWithLogitsLoss"}, torch.sigmoid),
        ({"name": "MSELoss"}, None),
        ({"name": "L1Loss"}, None),
        ({"name": "MultiMarginLoss"}, None),
    ],
)
def test_loss_and_probabilities_are_those_of_the_training(tmp_path: Path, loss: dict[str, Any], sure: Any) -> None:
    made, model = everything(tmp_path, loss=loss)
    metrics, mistakes = made["metrics"], made["mistakes"]
    arguments = {key: value for key, value in loss.items() if key != "name"}
    with torch.no_grad():
        logits = model(SHOWN.permute(0, 3, 1, 2))
    trained_for = classification_loss(loss["name"], arguments)(logits, SHOWN_AS).item()
    assert metrics["loss"] == pytest.approx(trained_for, rel=1e-5)
    titles = " ".join(text.get_text() for axes in made["predictions"].axes for text in axes.texts)
    assert len(mistakes) > 3
    assert ("%" in titles) is (sure is not None)
    if sure is None:
        assert "calibration_error" not in metrics
        assert mistakes[0].keys() == {"test_sample", "true", "predicted"}
        assert made["calibration"] == b""  # there is nothing to be said
        best = logits.max(1).values
    else:
        best = sure(logits).max(1).values
        assert mistakes[0]["confidence"] == pytest.approx(best[mistakes[0]["test_sample"]].item(), abs=1e-4)
        right = (logits.argmax(1) == SHOWN_AS).float()
        bins = (best * 15).floor()
        gaps = sum(abs((right - best)[bins == place].sum().item()) for place in bins.unique())
        assert metrics["calibration_error"] == pytest.approx(gaps / 40, abs=1e-5)
    order = [best[row["test_sample"]].item() for row in mistakes]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("views", ["one", "mirror", "mirror_and_shift"])
def test_a_checkpoint_is_measured_over_its_views_in_its_precision(tmp_path: Path, views: Any, precision: str) -> None:
    metrics, model = evaluation(tmp_path, views=views, precision=precision)
    viewer = model if views == "one" else Views(model, views)
    images = SHOWN.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=precision == "bf16"):
        logits = viewer(images).float()
    assert metrics["loss"] == pytest.approx(F.cross_entropy(logits, SHOWN_AS).item(), rel=1e-4)
    assert metrics["accuracy"] == pytest.approx((logits.argmax(1) == SHOWN_AS).float().mean().item())
    assert metrics["test_samples"] == 40
    with torch.no_grad():
        plain = F.cross_entropy(model(images), SHOWN_AS).item()
    assert (metrics["loss"] == pytest.approx(plain, rel=1e-6)) is ((views, precision) == ("one", "fp32"))


@pytest.mark.parametrize("views", ["mirror", "mirror_and_shift"])
def test_documents_have_no_views(tmp_path: Path, views: str) -> None:
    words = DocumentInfo(
        target=Classes(classes=list("abcd")), tokenizer=Tokenizer(kind="words", vocabulary=["<pad>", "<unk>", "x"])
    )
    with pytest.raises(InputError) as caught:
        evaluation(tmp_path, words, views=views)
    assert caught.value.message == "evaluate.views: is for images, but these data are documents; leave it out"


# ---- wrong answers -------------------------------------------------------------------------------------------------

ANSWERS = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.05, 0.05, 0.9], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]]).log()
TRUTH = torch.tensor([0, 2, 0, 1, 0])  # only the first answer is right


def test_mistakes_come_by_confidence_and_then_in_order() -> None:
    mistakes = worst_mistakes(ANSWERS, TRUTH, ["cat", "dog", "ant"])
    columns = ["test_sample", "true", "predicted", "confidence", "probability_of_true"]
    expected = [
        (2, "cat", "ant", 0.9, 0.05),
        (1, "ant", "dog", 0.8, 0.1),
        (4, "cat", "dog", 0.8, 0.1),
        (3, "dog", "cat", 0.6, 0.3),
    ]
    assert mistakes == [dict(zip(columns, row, strict=True)) for row in expected]
    assert all(list(row) == columns for row in mistakes)


def test_the_most_confident_are_told_apart_by_whether_they_are_right() -> None:
    assert most_confident(ANSWERS, TRUTH, right=False).tolist() == [2, 1, 4, 3]
    assert most_confident(ANSWERS, TRUTH, right=True).tolist() == [0]
    assert most_confident(ANSWERS, ANSWERS.argmax(1), right=True).tolist() == [2, 1, 4, 3, 0]
    assert most_confident(ANSWERS, ANSWERS.argmax(1), right=False).tolist() == []


@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_only_so_many_mistakes_are_listed(count: int) -> None:
    mistakes = worst_mistakes(ANSWERS, TRUTH, ["cat", "dog", "ant"], count)
    assert [row["test_sample"] for row in mistakes] == [2, 1, 4, 3][:count]


def test_who_makes_no_mistakes_gets_an_empty_table() -> None:
    assert worst_mistakes(ANSWERS, ANSWERS.argmax(1), ["cat", "dog", "ant"]) == []


# ---- reconstruction ------------------------------------------------------------------------------------------------


def test_reconstruction_figures_by_hand() -> None:
    images = torch.tensor([[0, 51], [255, 102]], dtype=torch.uint8).reshape(1, 1, 2, 2)  # 0, 0.2, 1 and 0.4
    reconstructions = torch.tensor([[0.25, 0.2], [0.5, 0.9]]).reshape(1, 1, 2, 2)
    metrics = reconstruction_metrics(images, reconstructions, torch.tensor([3.0]))
    bce = [
        -math.log(0.75),
        -(0.2 * math.log(0.2) + 0.8 * math.log(0.8)),
        -math.log(0.5),
        -(0.4 * math.log(0.9) + 0.6 * math.log(0.1)),
    ]
    expected = {"mse": (0.0625 + 0 + 0.25 + 0.25) / 4, "mae": (0.25 + 0 + 0.5 + 0.5) / 4, "bce": sum(bce) / 4}
    assert metrics == pytest.approx({**expected, "divergence": 3.0}, abs=1e-6)


def test_a_perfect_reconstruction_has_no_error_and_divergences_are_averaged() -> None:
    images = torch.tensor([0, 255, 255, 0], dtype=torch.uint8).reshape(2, 2, 1, 1)
    metrics = reconstruction_metrics(images, images / 255, torch.tensor([1.0, 4.0]))
    assert metrics == {"mse": 0.0, "mae": 0.0, "bce": 0.0, "divergence": 2.5}


def test_images_by_how_well_they_come_back() -> None:
    images = torch.full((4, 1, 2, 2), 51, dtype=torch.uint8)  # 0.2
    answers = torch.tensor([0.5, 0.2, 0.1, 1.0]).reshape(4, 1, 1, 1).expand(4, 1, 2, 2)
    assert by_error(images, answers).tolist() == [1, 2, 0, 3]


def correlated_images(count: int) -> Tensor:
    """Images (N, 2, 4, 3) uint8 whose pixels have something in common."""
    pixels = torch.randn(count, 5) @ torch.randn(5, 24) + torch.randn(count, 24) / 2
    return (127 + 25 * pixels).clamp(0, 255).to(torch.uint8).reshape(count, 2, 4, 3)


@pytest.mark.parametrize("components", [1, 4, 23, 24])
def test_principal_components_are_scikit_learns(components: int) -> None:
    torch.manual_seed(0)
    images = correlated_images(160)
    train, test = images[:100], images[100:]
    flat = test.flatten(1).numpy() / 255
    pca = PCA(components, svd_solver="full").fit(train.flatten(1).numpy() / 255)
    expected = np.square(pca.inverse_transform(pca.transform(flat)) - flat).mean()
    assert principal_components_mse(train, test, components) == pytest.approx(expected, rel=1e-6, abs=1e-12)


class Code(nn.Module):
    """An autoencoder whose latents are the first `latent` pixels, and whose decoder gives back the latent."""

    def __init__(self, latent: int, variational: bool) -> None:
        super().__init__()
        self.latent, self.variational = latent, variational
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        latents = images.flatten(1)[:, : self.latent].float() * self.weight
        return images, latents, torch.zeros(len(images))

    def decode(self, latents: Tensor) -> Tensor:
        return latents[:, :, None, None] * self.weight


def draw_codes(latent: int, variational: bool, images: Tensor) -> Tensor:
    """Many latents (N, latent) as they are drawn."""
    model = NormalizedImages(Code(latent, variational), mean=[0.0] * 2, std=[1 / 255] * 2)
    return draw_images(model, images, 20_000)[:, :, 0, 0].double()


@pytest.mark.parametrize("latent", [1, 2, 6])
def test_plain_latents_are_drawn_like_those_of_real_images(latent: int) -> None:
    torch.manual_seed(0)
    images = correlated_images(300)
    drawn = draw_codes(latent, False, images)
    given = images.flatten(1)[:, :latent].double()
    torch.testing.assert_close(drawn.mean(0), given.mean(0), atol=2.0, rtol=0)
    covariance = np.cov(given.T.numpy()).reshape(latent, latent)
    np.testing.assert_allclose(
        np.cov(drawn.T.numpy()).reshape(latent, latent), covariance, atol=0.03 * covariance.max()
    )


def test_variational_latents_are_drawn_from_the_prior() -> None:
    drawn = draw_codes(3, True, correlated_images(10))
    np.testing.assert_allclose(drawn.mean(0), np.zeros(3), atol=0.03)
    np.testing.assert_allclose(drawn.T.cov(), np.eye(3), atol=0.03)


@pytest.mark.parametrize("variational", [False, True])
def test_drawn_images_are_pictures_and_follow_the_seed(variational: bool) -> None:
    torch.manual_seed(0)
    info = ImageInfo(target=Classes(classes=["a"]), shape=[2, 4, 3], mean=[0.5] * 2, std=[0.2] * 2)
    model = build_model(
        "autoencoder", {"hidden": [8], "latent": 4, "variational": variational}, info, problem_of("reconstruction")
    ).eval()
    images = correlated_images(30)
    drawn = draw_images(model, images, 7)
    assert drawn.shape == (7, 2, 4, 3)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert len(drawn.flatten(1).unique(dim=0)) == 7
    torch.rand(3)  # what else draws random numbers does not matter
    assert torch.equal(draw_images(model, images, 7), drawn)
    assert not torch.equal(draw_images(model, images, 7, seed=1), drawn)


# ---- language model ------------------------------------------------------------------------------------------------


class Constant(nn.Module):
    """Foretells each of three tokens with probability 1/2, 1/4 and 1/4, whatever came before."""

    def forward(self, tokens: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        return torch.tensor([0.5, 0.25, 0.25]).log().expand(*tokens.shape, 3), torch.zeros(1)


@pytest.mark.parametrize("chunk", [1, 3, 4, 100])
def test_characters_are_counted_by_hand(chunk: int) -> None:
    tokens = torch.tensor([2, 1, 0, 2, 0], dtype=torch.uint8)  # the first is given: 2 + 1 + 2 + 1 bits for the others
    metrics, characters = language_model_metrics(Constant(), tokens, ["a", "b", "\n", "never"], chunk)
    expected = {"bits_per_character": 1.5, "perplexity": 2**1.5, "loss": 1.5 * math.log(2), "accuracy": 2 / 4}
    assert metrics == pytest.approx({**expected, "test_characters": 4})
    fewer, _ = language_model_metrics(Constant(), tokens, ["a", "b", "\n", "never"], chunk, characters=12)
    assert fewer == pytest.approx({**expected, "bits_per_character": 0.5, "test_characters": 12})  # of parts of words
    columns = ["character", "count", "bits", "share_of_all_bits", "foretold"]
    rows = [("a", 2, 1.0, 0.3333, 1.0), ("b", 1, 2.0, 0.3333, 0.0), ("\n", 1, 2.0, 0.3333, 0.0)]
    assert characters == [dict(zip(columns, row, strict=True)) for row in rows]


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_loss_of_a_text_is_by_the_weights_of_its_characters(chunk: int) -> None:
    tokens = torch.tensor([2, 1, 0, 2, 0])
    loss = "CrossEntropyLoss", {"weight": [1.0, 10.0, 2.0]}
    metrics, _ = language_model_metrics(Constant(), tokens, ["a", "b", "\n", "never"], chunk, loss)
    assert metrics["loss"] == pytest.approx((10 * 2 + 1 * 1 + 2 * 2 + 1 * 1) / 14 * math.log(2))  # bits by weight


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_the_text_is_read_as_one_whatever_the_chunk(cell: str) -> None:
    torch.manual_seed(0)
    info = TextInfo(tokenizer=Tokenizer.of_characters("abcdefg"))
    model = build_model("language_rnn", {"cell": cell, "embedding": 6, "width": 10}, info, problem_of("language_model"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # so that what came long ago counts
    tokens = torch.randint(7, (60,))
    with torch.no_grad():
        logits = model.eval()(tokens[None, :-1])[0][0]
    loss = F.cross_entropy(logits, tokens[1:]).item()
    expected = {
        "bits_per_character": loss / math.log(2),
        "perplexity": math.exp(loss),
        "loss": loss,
        "accuracy": (logits.argmax(1) == tokens[1:]).float().mean().item(),
        "test_characters": 59,
    }
    for chunk in (1, 7, 58, 59, 60, 1000):
        metrics, characters = language_model_metrics(model.train(), tokens, list("abcdefg"), chunk)
        assert metrics == pytest.approx(expected, rel=1e-5)
        assert sum(row["count"] * row["bits"] for row in characters) / 59 == pytest.approx(loss / math.log(2), rel=1e-3)
    fresh = F.cross_entropy(torch.cat([model(tokens[None, i : i + 1])[0][0] for i in range(59)]), tokens[1:]).item()
    assert abs(fresh - loss) > 0.01  # without the state it is another figure


# ---- regression ----------------------------------------------------------------------------------------------------


def test_regression_figures_are_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    target = 150 + 77 * torch.randn(80, generator=generator)
    prediction = target + 40 * torch.randn(80, generator=generator) + 5
    expected = {
        "r2": sklearn.metrics.r2_score(target, prediction),
        "rmse": sklearn.metrics.root_mean_squared_error(target, prediction),
        "mae": sklearn.metrics.mean_absolute_error(target, prediction),
    }
    assert regression_metrics(prediction, target) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("pictures", [39, 40])
def test_each_of_few_samples_is_shown_once(tmp_path: Path, pictures: int) -> None:
    """Where all are shown, the surest answers come first, and no second picture has the same ones."""
    made, model = everything(tmp_path, pictures=pictures)
    with torch.no_grad():
        logits = model(SHOWN.permute(0, 3, 1, 2))
    right = (logits.argmax(1) == SHOWN_AS).tolist()
    colours = [to_hex(text.get_color()) for text in made["predictions"].axes[0].texts]
    assert len(colours) == pictures
    captions = CLASSIFICATION.captions(made)
    if pictures == 40:
        assert colours == [RIGHT] * sum(right) + [WRONG] * (40 - sum(right))
        assert made["best_and_worst"] == b""
        assert str(captions["predictions"]).startswith("Predictions for all test samples")
    else:
        assert made["best_and_worst"].axes
        assert captions["predictions"] == CLASSIFICATION.reports["predictions"]


def test_regression_figures_by_hand() -> None:
    target = torch.tensor([1.0, 2.0, 3.0, 6.0])
    metrics = regression_metrics(target + torch.tensor([0.0, 1.0, -1.0, 2.0]), target)
    assert metrics == pytest.approx({"r2": 1 - 6 / 14, "rmse": math.sqrt(1.5), "mae": 1.0})
    assert regression_metrics(target.mean().expand(4), target)["r2"] == pytest.approx(0.0)


def missed(
    prediction: Tensor, target: Tensor, features: Tensor, info: TableInfo, count: int = 20
) -> list[dict[str, Any]]:
    """The largest residuals with the features of their samples, as a report has them."""
    rows = largest_residuals(prediction, target, count)
    loaders: Any = SimpleNamespace(chosen=lambda split, numbers: (features[numbers], target[numbers]))
    more = info.columns(loaders, [row["test_sample"] for row in rows])
    return [joined(row, columns) for row, columns in zip(rows, more, strict=True)]


def test_the_largest_residuals_come_with_their_features() -> None:
    features, target, info = table(5)
    errors = torch.tensor([0.5, -3.0, 0.0, 2.0, -2.0])
    rows = missed(target - errors, target, features, info, 3)
    assert [(row["test_sample"], row["residual"]) for row in rows] == [
        (index, pytest.approx(errors[index].item(), abs=1e-4)) for index in (1, 3, 4)
    ]
    assert rows[0]["true"] == pytest.approx(target[1].item(), abs=1e-4)
    assert rows[0]["predicted"] == pytest.approx(target[1].item() + 3, abs=1e-4)
    assert [rows[0][name] for name in info.features] == pytest.approx(features[1].tolist(), abs=1e-4)


def test_the_largest_residuals_of_tiny_targets_are_not_zero() -> None:
    features, _, info = table(2)
    rows = missed(torch.tensor([1e-8, 4e-8]), torch.tensor([3e-8, 1e-8]), features * 1e-8, info)
    shown = [(row["test_sample"], row["true"], row["predicted"], row["residual"]) for row in rows]
    assert shown == [(1, 1e-8, 4e-8, pytest.approx(-3e-8)), (0, 3e-8, 1e-8, pytest.approx(2e-8))]
    assert [rows[0][name] for name in info.features] == pytest.approx((features[1] * 1e-8).tolist())


def test_whole_numbers_are_shown_as_such() -> None:
    """An age is 48, and no 48.0, in tables and pictures."""
    info = TableInfo(features=["age", "height"], mean=[0.0, 0.0], std=[1.0, 1.0])
    features, target = torch.tensor([[48.0, 1.5], [-3.0, 0.1]]), torch.tensor([452_600.0, 1e20])
    rows = missed(target, target, features, info)
    shown = ["48,1.5,452600,0", "-3,0.1,1e+20,0"]
    assert [",".join(str(row[name]) for name in ("age", "height", "true", "residual")) for row in rows] == shown
    loaders: Any = SimpleNamespace(chosen=lambda split, numbers: (features[numbers], target[numbers]))
    picture = info.predictions(loaders, [0, 1], [("yes", True), ("no", True)])
    assert [text.get_text() for text in picture.axes[0].texts][1::2] == ["age 48, height 1.5", "age -3, height 0.1"]


def table(rows: int = 60) -> tuple[Tensor, Tensor, TableInfo]:
    """Features of very different units, a target that they explain in part, and their statistics."""
    generator = torch.Generator().manual_seed(1)
    units, middle = torch.tensor([1.0, 100.0, 0.01]), torch.tensor([0.0, 500.0, -3.0])
    features = torch.randn(rows, 3, generator=generator) * units + middle
    noise = torch.randn(rows, generator=generator)
    target = 150 + (features - middle) / units @ torch.tensor([20.0, -30.0, 5.0]) + 10 * noise
    return features, target, described(features, target)


def described(features: Tensor, target: Tensor) -> TableInfo:
    return TableInfo(
        features=[f"feature {number}" for number in range(features.shape[1])],
        mean=features.double().mean(0).tolist(),
        std=features.double().std(0, correction=0).tolist(),
        target=Number(name="y", mean=target.double().mean().item(), std=target.double().std(correction=0).item()),
    )


def closed_form(features: Tensor, target: Tensor, info: TableInfo, l2: float = 0.0) -> LinearSolution:
    return least_squares(features, target, info, target_of(info), l2)


def test_least_squares_are_scikit_learns() -> None:
    features, target, info = table()
    expected = LinearRegression().fit(features.double(), target.double())
    solution = closed_form(features, target, info)
    np.testing.assert_allclose(solution.weights, expected.coef_, rtol=1e-8)
    assert solution.intercept.item() == pytest.approx(expected.intercept_, rel=1e-8)
    np.testing.assert_allclose(solution.predict(features[:7]), expected.predict(features[:7].double()), rtol=1e-8)


@pytest.mark.parametrize("l2", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("shifted", [False, True])
def test_with_l2_they_are_ridge_on_the_standardised_scale(l2: float, shifted: bool) -> None:
    features, target, info = table()
    if shifted:  # the statistics are those of other rows
        features, target = features[10:] + 1, target[10:]
    x = (features.double() - torch.tensor(info.mean)) / torch.tensor(info.std)
    y = (target.double() - target_of(info).mean) / target_of(info).std
    ridge = Ridge(alpha=len(x) * l2 / 2, tol=1e-12).fit(x, y)
    solution = closed_form(features, target, info, l2)
    np.testing.assert_allclose(solution.weights * torch.tensor(info.std) / target_of(info).std, ridge.coef_, rtol=1e-5)
    expected = ridge.predict(x) * target_of(info).std + target_of(info).mean
    np.testing.assert_allclose(solution.predict(features), expected, rtol=1e-5)


def test_the_closed_form_has_the_least_of_what_training_minimises() -> None:
    features, target, info = table()
    l2 = 0.3

    def objective(weights: Tensor, intercept: Tensor) -> float:
        error = (features.double() @ weights + intercept - target.double()) / target_of(info).std
        scaled = weights * torch.tensor(info.std) / target_of(info).std
        return (error.square().mean() + l2 / 2 * scaled.square().sum()).item()

    solution = closed_form(features, target, info, l2)
    least = objective(solution.weights, solution.intercept)
    for number in range(3):
        for step in (-1e-2, 1e-2):
            moved = solution.weights.clone()
            moved[number] += step * target_of(info).std / info.std[number]
            intercept = solution.intercept - (moved - solution.weights) @ torch.tensor(info.mean).double()
            assert objective(moved, intercept) > least
    for step in (-1.0, 1.0):
        assert objective(solution.weights, solution.intercept + step) > least


def test_collinear_and_constant_columns_share_or_count_for_nothing() -> None:
    features, target, _ = table()
    double = torch.cat([features, 2 * features[:, 1:2], torch.full((60, 1), 5.0)], dim=1)
    info = described(double, target)
    info = info.model_copy(update={"std": [*info.std[:4], 1.0]})  # as preprocessing has it of one value
    solution = closed_form(double, target, info)
    plain = closed_form(features, target, described(features, target))
    torch.testing.assert_close(solution.predict(double), plain.predict(features), rtol=1e-5, atol=1e-3)
    scaled = solution.weights * torch.tensor(info.std)
    assert scaled[1].item() == pytest.approx(scaled[3].item(), rel=1e-3)
    assert abs(scaled[4].item()) < 1e-6
    few = closed_form(features[:2], target[:2], described(features, target))  # fewer rows than weights
    torch.testing.assert_close(few.predict(features[:2]), target[:2].double(), rtol=1e-5, atol=1e-3)


def test_coefficients_of_a_linear_model_are_its_weights() -> None:
    torch.manual_seed(0)
    features, target, info = table()
    model = build_model("linear", {}, info, problem_of("regression"))
    solution = closed_form(features, target, info)
    rows = coefficients(model, features, info, solution)
    weights = model.network.network.layer.weight[0].tolist()  # on the scale where features and target have deviation 1
    assert [list(row) for row in rows] == [["feature", "network", "closed_form"]] * 3
    assert [row["feature"] for row in rows] == info.features
    assert [row["network"] for row in rows] == pytest.approx(
        [weight * target_of(info).std for weight in weights], rel=1e-4
    )
    assert [row["closed_form"] for row in rows] == pytest.approx([20, -30, 5], abs=4)
    model.network.network.layer.weight.data[0] = solution.weights.float() * torch.tensor(info.std) / target_of(info).std
    for row in coefficients(model, features, info, solution):
        assert row["network"] == pytest.approx(row["closed_form"], rel=1e-4)
    assert not features.requires_grad


class Curved(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features[:, 0].square() + features[:, 1] * features[:, 2]


def test_coefficients_of_another_model_are_its_mean_slopes() -> None:
    features, target, info = table()
    rows = coefficients(Curved(), features, info, closed_form(features, target, info))
    slopes = [2 * features[:, 0].mean(), features[:, 2].mean(), features[:, 1].mean()]
    expected = [slope.item() * std for slope, std in zip(slopes, info.std, strict=True)]
    assert [row["network"] for row in rows] == pytest.approx(expected, rel=1e-4)


def test_what_is_shown_is_spread_over_the_test_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files in the folders of their classes the first are all of one."""
    shown: list[list[int]] = []
    drawn = ImageInfo.predictions

    def noted(self: ImageInfo, loaders: LoaderPlan, numbers: Any, captions: Any) -> Any:
        shown.append(list(numbers))
        return drawn(self, loaders, numbers, captions)

    monkeypatch.setattr(ImageInfo, "predictions", noted)
    everything(tmp_path)
    assert shown[0] == [0, 13, 26, 39]
