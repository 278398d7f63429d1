"""Images that are generated: a generator and a discriminator in one training, and how far images are from real ones."""

import base64
import csv
import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from fastapi.testclient import TestClient
from kedro.io import DataCatalog
from PIL import Image
from scipy.linalg import sqrtm
from torch import Tensor, nn
from torch.utils.data import DataLoader

from conftest import kedro_run, make_project
from exported import GREY
from reports import check_card, check_page
from torchloom.config import AnswerConfig, ServeConfig
from torchloom.data.batches import Batches, ImageBatches
from torchloom.data.targets import Classes
from torchloom.errors import InputError
from torchloom.export.onnx import export_checkpoint
from torchloom.inference.model import Model
from torchloom.inference.serving import create_app
from torchloom.modalities import DrawInfo, ImageInfo
from torchloom.modalities.draws import drawn
from torchloom.models import build_model
from torchloom.problems import problem_of
from torchloom.problems.generation import adversarial_objective, check_judge, generate, known_classes
from torchloom.problems.generation.config import GenerateImagesConfig, GenerationTrainConfig
from torchloom.problems.generation.contest import FRAMES, contest_of, filming, latents_of
from torchloom.problems.generation.metrics import class_figures, coarse, frechet_distance, looking
from torchloom.reporting.card import plain
from torchloom.system.devices import seed_everything
from torchloom.tasks import read_tasks
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loop import fit
from torchloom.training.state import TrainingStates

GENERATION = problem_of("generation")
INFO = ImageInfo(target=Classes(classes=["a", "b", "c"]), shape=[1, 9, 13], mean=[0.13], std=[0.31])
SMALL = {"width": 4, "latent": 5}
IMAGES = torch.randint(0, 256, (24, 9, 13, 1), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(24) % 3
MEANS = {"BCEWithLogitsLoss": nn.BCEWithLogitsLoss(), "MSELoss": nn.MSELoss()}


def contest(**arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_model("dcgan", {**SMALL, **arguments}, INFO, GENERATION)


def batch(count: int = 6) -> tuple[Tensor, Tensor]:
    return IMAGES[:count].permute(0, 3, 1, 2).contiguous(), LABELS[:count]


def checkpoint_of(model: nn.Module, **arguments: Any) -> Checkpoint:
    training = {"epoch": 1, "parameters": {}}
    given = {"network": "dcgan", "arguments": {**SMALL, **arguments}, "problem": "generation", "info": INFO}
    return Checkpoint(**given, training=training, weights=dict(model.state_dict()))


# ---- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["BCEWithLogitsLoss", "MSELoss", "HingeLoss"])
@pytest.mark.parametrize("conditional", [False, True])
def test_each_part_gets_the_gradient_of_its_own_loss_alone(name: str, conditional: bool) -> None:
    """As in two passes backward, of two losses that are written out here."""
    model = contest(conditional=conditional).train()
    images, labels = batch()
    torch.manual_seed(7)
    total, figures = adversarial_objective(name, {}, smoothing=0.1, r1=2.0)(model, (images, labels))
    total.backward()  # type: ignore[no-untyped-call]
    joint = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()

    network: Any = contest_of(model).network
    known = (labels,) if conditional else ()
    torch.manual_seed(7)
    fake = network.generator(torch.randn(6, 5), *known)
    images_on_one = (images / 255 * 2 - 1).requires_grad_()
    real, seen, ones = network.discriminator(images_on_one, *known), network.discriminator(fake.detach(), *known), 1.0
    if name == "HingeLoss":
        mostly = 0.9 * (1 - real).relu() + 0.1 * (1 + real).relu()  # smoothed as shares of both
        of_discriminator = mostly.mean() + (1 + seen).relu().mean()
    else:
        mean = MEANS[name]
        of_discriminator = mean(real, torch.full((6,), 0.9)) + mean(seen, torch.zeros(6))
    (slope,) = torch.autograd.grad(real.sum(), images_on_one, create_graph=True)
    (of_discriminator + 2.0 / 2 * slope.square().sum((1, 2, 3)).mean()).backward()
    expected = {f"discriminator.{each}": one.grad for each, one in network.discriminator.named_parameters()}
    model.zero_grad()
    scores = network.discriminator(fake, *known)
    of_generator = -scores.mean() if name == "HingeLoss" else MEANS[name](scores, torch.full((6,), ones))
    of_generator.backward()
    expected |= {f"generator.{each}": one.grad for each, one in network.generator.named_parameters()}

    assert joint.keys() == {f"network.network.{each}" for each in expected}
    for each, gradient in expected.items():
        torch.testing.assert_close(joint[f"network.network.{each}"], gradient, rtol=1e-3, atol=1e-6)
    assert figures["generator_loss"].item() == pytest.approx(of_generator.item(), rel=1e-4)
    assert figures["discriminator_loss"].item() == pytest.approx(of_discriminator.item(), rel=1e-4)
    assert figures["slope"].item() == pytest.approx(slope.square().sum((1, 2, 3)).mean().item(), rel=1e-3)


@pytest.mark.parametrize("name", ["MSELoss", "HingeLoss"])
def test_a_loss_counts_so_many_times_for_both(name: str) -> None:
    once, twice = (adversarial_objective(name, given) for given in ({}, {"times": 2.0}))
    model = contest().eval()
    figures, doubled = (objective(model, batch())[1] for objective in (once, twice))
    for each, value in figures.items():
        torch.testing.assert_close(doubled[each], 2 * value)


def test_the_discriminator_sees_real_images_as_files_have_them() -> None:
    images, _ = batch()
    *_, real = contest()(images)
    torch.testing.assert_close(real, images / 255 * 2 - 1, rtol=0, atol=1e-5)


def test_validation_draws_the_same_each_time_and_leaves_what_is_drawn_later() -> None:
    model, objective = contest().eval(), adversarial_objective("BCEWithLogitsLoss", {})
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, again = (objective(model, batch())[1]["generator_loss"] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.rand(3), expected)
    assert not torch.equal(objective(model, batch(5))[1]["generator_loss"], first)


class PowerCut(Exception):  # noqa: N818
    """Nothing is asked any more."""


def train(states: TrainingStates | None, cut: int | None = None) -> Any:
    settings = {"epochs": 12, "batch_size": 8, "ema": 0.9, "save_minutes": 1e-6, "precision": "fp32", "device": "cpu"}
    optimizer = {"name": "Adam", "lr": 0.01, "groups": [{"parameters": ["*.discriminator.*"], "lr": 0.001}]}
    config = GenerationTrainConfig.model_validate({**settings, "optimizer": optimizer})
    plain = adversarial_objective("BCEWithLogitsLoss", {})
    steps = iter(range(1000))

    def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        if model.training and next(steps) == cut:
            raise PowerCut
        return plain(model, batch)

    def open_loader(split: str, device: torch.device) -> DataLoader[Any]:
        data = ImageBatches(IMAGES, LABELS)
        batches = Batches(24, 8, 0) if split == "train" else Batches(24, 7)
        return DataLoader(data, sampler=batches, batch_size=None, generator=torch.Generator())

    seed_everything(0)
    model, whole = contest(), GENERATION.whole(config, INFO)
    kept = filming(config.epochs, 3, None, model, None)
    return fit(model, open_loader, config, objective, states, {}, kept, whole=whole)


def test_what_the_same_latents_become_is_kept_also_when_the_training_is_interrupted(tmp_path: Path) -> None:
    whole = train(None)
    states = TrainingStates(tmp_path / "states", "gan")
    with pytest.raises(PowerCut):
        train(states, cut=19)
    with pytest.raises(PowerCut):
        train(states, cut=8)
    resumed = train(states)
    for name, weight in whole.last.items():
        assert torch.equal(weight, resumed.last[name]), name
    assert [row["val_frechet"] for row in whole.history] == [row["val_frechet"] for row in resumed.history]
    # of 12 epochs ten beginnings are kept, the first time before any was learnt
    assert whole.last["network.filmed"].tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    film = whole.last["network.film"].split(10)
    assert len(film) == FRAMES
    assert all(not torch.equal(one, other) for one, other in pairwise(film))
    first = contest()
    with torch.no_grad():
        images = contest_of(first.eval()).generate(latents_of(range(10), 5))
    torch.testing.assert_close(film[0].float(), images.flatten(1) * 255, rtol=0, atol=0.51)


def test_the_history_has_both_losses_and_the_best_epoch_is_the_nearest() -> None:
    outcome = train(None)
    row = outcome.history[0]
    assert {f"{part}_{name}" for part in ("train", "val") for name in ("generator_loss", "discriminator_loss")} <= {
        *row
    }
    assert row["train_loss"] == pytest.approx(row["train_generator_loss"] + row["train_discriminator_loss"])
    distances = [row["val_frechet"] for row in outcome.history]
    assert outcome.best_epoch == 1 + distances.index(min(distances))


@pytest.mark.parametrize(
    ("change", "data", "message"),
    [
        ({"r1": 1.0, "compile": True}, {}, r"^train\.r1: a compiled network has no slopes"),
        ({"whitening": {}}, {}, r"^train\.whitening: "),
        ({}, {"mixup": 0.2}, r"^data\.augment\.mixup: blends images, which would count as real"),
    ],
)
def test_what_does_not_go_together_is_refused(change: dict[str, Any], data: dict[str, Any], message: str) -> None:
    class Plan:
        info = INFO

        class data:  # noqa: N801
            class augment:  # noqa: N801
                mixup = data.get("mixup", 0.0)
                cutmix = 0.0

        def length(self, split: str) -> int:
            return 10

    config = GenerationTrainConfig.model_validate({"epochs": 1, "optimizer": {"name": "Adam"}, **change})
    with pytest.raises(InputError, match=message):
        GENERATION.check(config, Plan())  # type: ignore[arg-type]


def test_without_classes_nothing_can_be_conditional() -> None:
    plain = INFO.model_copy(update={"target": None})
    for network, problem in (("dcgan", "generation"), ("autoencoder", "reconstruction")):
        with pytest.raises(InputError, match=rf"model\.name {network}: conditional: needs data with a class for each"):
            build_model(network, {"conditional": True}, plain, problem_of(problem))
        build_model(network, {}, plain, problem_of(problem))
    with pytest.raises(InputError, match=r"must be 8x8 pixels or more"):
        build_model("dcgan", {}, INFO.model_copy(update={"shape": [1, 7, 20]}), GENERATION)


@pytest.mark.parametrize("shape", [[1, 28, 28], [3, 32, 32], [3, 9, 13], [1, 45, 17]])
@pytest.mark.parametrize("growth", ["transposed", "nearest"])
def test_images_of_any_size_are_drawn(shape: list[int], growth: str) -> None:
    info = INFO.model_copy(update={"shape": shape, "mean": [0.5] * shape[0], "std": [0.2] * shape[0]})
    model = build_model("dcgan", {"width": 2, "growth": growth, "conditional": True}, info, GENERATION)
    real, fake, fooled, generated, images = model(torch.zeros(4, *shape, dtype=torch.uint8), torch.tensor([0, 1, 2, 0]))
    assert real.shape == fake.shape == fooled.shape == (4,)
    assert generated.shape == images.shape == (4, *shape)


# ---- how far images are from others --------------------------------------------------------------------------------


def of_moments(mean: list[float], deviations: list[float]) -> Tensor:
    """Rows (1000, F) of exactly that mean, and of independent columns with exactly these deviations."""
    rows = np.random.default_rng(0).standard_normal((1000, len(mean)))
    rows -= rows.mean(0)
    rows = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T)).T)
    return torch.from_numpy(rows * deviations + mean)


def test_the_distance_of_normal_distributions_is_that_of_the_closed_form() -> None:
    some, others = of_moments([0.0, 1.0, 2.0], [1.0, 2.0, 0.0]), of_moments([1.0, 1.0, 0.0], [3.0, 0.5, 1.0])
    assert frechet_distance(some, others) == pytest.approx((1 + 4) + (4 + 2.25 + 1), rel=1e-9)
    assert frechet_distance(others, some) == pytest.approx(frechet_distance(some, others), rel=1e-9)
    assert frechet_distance(some, some) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("rows", [500, 5])
def test_the_distance_is_that_of_the_root_of_a_matrix(rows: int) -> None:
    """Also of fewer rows than features."""
    source = np.random.default_rng(1)
    some = source.standard_normal((rows, 8)) @ source.standard_normal((8, 8))
    others = source.standard_normal((300, 8)) + 0.3
    one, other = np.cov(some.T), np.cov(others.T)
    expected = ((some.mean(0) - others.mean(0)) ** 2).sum() + np.trace(one + other - 2 * sqrtm(one @ other).real)
    assert frechet_distance(*map(torch.from_numpy, (some, others))) == pytest.approx(expected, rel=1e-4)


def test_a_collapsed_generator_shows_in_the_classes() -> None:
    even = nn.functional.one_hot(torch.arange(40) % 4, 4).float()
    seen = {"class_entropy": 1.0, "classes_seen": 4, "judge_accuracy": 1.0}
    assert class_figures(even, torch.arange(40) % 4) == pytest.approx(seen)
    half = nn.functional.one_hot(torch.arange(40) % 2, 4).float()
    assert class_figures(half, None) == pytest.approx({"class_entropy": 0.5, "classes_seen": 2})
    one = nn.functional.one_hot(torch.zeros(40, dtype=torch.int64), 4).float()
    assert class_figures(one, None) == pytest.approx({"class_entropy": 0.0, "classes_seen": 1})
    assert str(class_figures(one, None)["class_entropy"]) == "0.0"  # not -0.0
    figures = {"frechet": 1.0, "frechet_noise": 5.0}
    assert GENERATION.doubt({**figures, "class_entropy": 0.9}) is None
    assert "few of the classes" in str(GENERATION.doubt({**figures, "class_entropy": 0.2}))
    assert "learnt nothing" in str(GENERATION.doubt({"frechet": 6.0, "frechet_noise": 5.0}))
    assert GENERATION.scale({**figures, "frechet_real": 0.5}).endswith("0.5 and noise to 5, by their pixels in coarse.")


def classifier(**changes: Any) -> Checkpoint:
    info = INFO.model_copy(update=changes)
    arguments = {"hidden": [6]}
    weights = dict(build_model("mlp", arguments, info, problem_of("classification")).state_dict())
    parts = {"network": "mlp", "arguments": arguments, "problem": "classification", "info": info}
    return Checkpoint(**parts, training={}, weights=weights)


def test_a_judge_is_asked_for_what_its_last_layer_sees() -> None:
    judge = classifier()
    features, logits = looking(judge)(batch()[0])
    model: Any = judge.build()
    assert features.shape == (6, 6)
    last = next(layer for layer in reversed(list(model.modules())) if isinstance(layer, nn.Linear))
    torch.testing.assert_close(last(features), logits)
    torch.testing.assert_close(model(batch()[0]), logits)
    pooled, none = coarse(batch()[0])
    assert (pooled.shape, none.shape) == ((6, 8 * 8), (6, 0))
    assert pooled.mean().item() == pytest.approx(IMAGES[:6].float().mean().item() / 255, abs=0.01)


def test_a_judge_of_other_images_is_refused() -> None:
    check_judge(classifier(), INFO)
    with pytest.raises(InputError, match=r"^task\.judge: the network mlp was trained on other data"):
        check_judge(classifier(shape=[1, 10, 13]), INFO)
    blocks = {
        "mnist": {"preprocess": {}},
        "coder": {"task": {"problem": "reconstruction", "data": "mnist"}},
        "gan": {"task": {"problem": "generation", "data": "mnist", "judge": "coder"}},
    }
    with pytest.raises(InputError, match=r"gan\.task\.judge: generation asks a classification, but coder is for the"):
        read_tasks(blocks)
    folded = {**blocks, "gan": {"task": {"problem": "generation", "data": "mnist"}}}
    with pytest.raises(InputError, match=r"trains a task anew that solves a problem from nothing, which gan does not"):
        read_tasks({**folded, "folds": {"task": {"method": "folds", "of": "gan"}}})


# ---- what it is asked for ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked() -> Model:
    return Model(export_checkpoint(checkpoint_of(contest(conditional=True), conditional=True)), threads=1)


def test_the_exported_model_is_the_generator(asked: Model) -> None:
    latents, labels = latents_of(range(3), 5), torch.tensor([2, 0, 1])
    assert asked.info == DrawInfo(latent=5, classes=["a", "b", "c"])
    with torch.no_grad():
        expected = contest_of(contest(conditional=True).eval()).generate(latents, labels)
    images = asked.run("images", latents=latents.numpy(), labels=labels.numpy())
    assert 0 <= images.min() < images.max() <= 1
    np.testing.assert_allclose(images, expected.numpy(), atol=1e-5)
    other = asked.run("images", latents=latents.numpy(), labels=labels.numpy()[::-1].copy())
    assert np.abs(other - images).max(axis=(1, 2, 3))[[0, 2]].min() > 1e-4


def opened(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def test_a_seed_is_the_same_image_wherever_it_is_drawn(asked: Model) -> None:
    files = generate(
        checkpoint_of(contest(conditional=True), conditional=True), GenerateImagesConfig(count=4, seed=3, classes=["c"])
    )
    assert files["file"].to_pylist() == [f"{seed:06}-c.png" for seed in range(3, 7)]
    client = TestClient(create_app(asked, "gan", ServeConfig(models="models")), base_url="http://127.0.0.1")
    rows = [{"seed": 3 + number, "class": "c"} for number in range(4)]
    rows.append({"latent": drawn(3, 5).tolist(), "class": "c"})
    answers = client.post("/predict", json={"rows": rows}).json()
    pictures = [opened(answer["image_png"]) for answer in answers]
    for picture, content in zip(pictures, files["content"].to_pylist(), strict=False):
        assert np.abs(picture.astype(int) - opened(content)).max() <= 1
    assert np.array_equal(pictures[0], pictures[4])
    assert client.get("/").json()["row"]["class"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"class": "a"}, r"lacks 'seed'"),
        ({"seed": 1}, r"lacks 'class'"),
        ({"seed": "one", "class": "a"}, r"^seed: 'one' is not a number"),
        ({"seed": -1, "class": "a"}, r"^seed: -1 is no whole number from 0"),
        ({"seed": 1.5, "class": "a"}, r"^seed: 1\.5 is no whole number"),
        ({"seed": 1, "class": "d"}, r"^class: 'd' is none of 'a', 'b'"),
        ({"latent": [1.0], "class": "a"}, r"^latent: must be a list of 5 numbers"),
        ({"latent": [1, 2, 3, 4, "x"], "class": "a"}, r"^latent: 'x' is not a number"),
    ],
)
def test_what_cannot_be_drawn_is_answered(asked: Model, row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        asked.info.reader(AnswerConfig(models="models"))(row)


def test_a_class_is_no_matter_to_an_unconditional_network() -> None:
    read = DrawInfo(latent=5).reader(AnswerConfig(models="models"))
    with pytest.raises(InputError, match=r"^class: this generator knows of no classes"):
        read({"seed": 1, "class": "a"})
    assert np.array_equal(read({"seed": 1, "class": ""})[0], read({"seed": 1})[0])


def test_classes_are_asked_of_a_conditional_network_alone() -> None:
    plain = checkpoint_of(contest())
    with pytest.raises(InputError, match=r"^generate\.classes: this network is not conditional"):
        generate(plain, GenerateImagesConfig(classes=["a"]))
    with pytest.raises(InputError, match=r"^generate\.classes: 'd' is none of 'a', 'b', 'c'"):
        generate(checkpoint_of(contest(conditional=True), conditional=True), GenerateImagesConfig(classes=["d"]))
    assert len(generate(plain, GenerateImagesConfig(count=2))) == 2


# ---- the task ------------------------------------------------------------------------------------------------------


TINY = {
    "mnist_lenet": {"train": {"epochs": 2}},
    "mnist_gan": {"model": {"width": 4, "conditional": True}, "train": {"epochs": 2}, "generate": {"count": 20}},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("generated") / "project")
    kedro_run(folder, "mnist_lenet", params=TINY, to_nodes=["mnist_lenet.train"])
    return folder


@pytest.fixture(scope="module")
def catalog(project: Path) -> DataCatalog:
    return kedro_run(project, "mnist_gan", params=TINY)


def test_the_task_does_its_whole_job(project: Path, catalog: DataCatalog) -> None:
    metrics, plan = catalog.load("mnist_gan.metrics"), catalog.load("mnist_gan.dataloaders")
    assert metrics["frechet_real"] < metrics["frechet"] < 2 * metrics["frechet_noise"]
    assert metrics["features"] == 84
    assert 0 <= metrics["judge_accuracy"] <= 1
    history = catalog.load("mnist_gan.history")
    assert [*history[0]].index("train_generator_loss") > 0
    page = check_page(catalog.load("mnist_gan.report"))
    said = GENERATION.scale(metrics, ["mnist_lenet"])
    assert f"to {metrics['frechet_real']:.4g} and noise to {metrics['frechet_noise']:.4g}, by what mnist_lenet" in said
    assert said in page.text
    pictures = project / "data/sample/08_reporting/mnist_gan"
    assert sorted(page.pictures.values()) == sorted(path.read_bytes() for path in pictures.glob("*.png"))
    assert {path.name for path in pictures.glob("*.png")} == {
        "generated.png",
        "learning_curves.png",
        "samples_by_epoch.png",
    }
    card = project / "data/sample/06_models/mnist_gan/README.md"
    check_card(card, "mnist_gan", metrics)
    assert plain(said) in card.read_text()
    session = onnxruntime.InferenceSession(catalog.load("mnist_gan.onnx"))
    assert [entry.name for entry in session.get_inputs()] == ["latents", "labels"]
    assert [entry.type for entry in session.get_inputs()] == ["tensor(float)", "tensor(int64)"]
    assert known_classes(plan.info) == list("0123456789")


def test_predict_draws_what_the_stage_generate_has_drawn(project: Path, catalog: DataCatalog, tmp_path: Path) -> None:
    written = sorted((project / "data/sample/08_reporting/mnist_gan/generated_images").iterdir())
    assert [path.name for path in written] == [f"{seed:06}-{seed % 10}.png" for seed in range(20)]
    rows = tmp_path / "asked.csv"
    with rows.open("w", newline="") as file:
        csv.writer(file).writerows([["seed", "class"], *([seed, seed % 10] for seed in range(20))])
    asked = {"model": "mnist_gan", "files": str(rows), "models": str(project / "data/sample/06_models")}
    answers = kedro_run(project, "predict", params={"predict": asked})
    assert len(answers.load("predict.predictions")) == 20
    drawn = project / "data/sample/07_model_output/predict/pictures"
    for line, path in enumerate(written, start=2):
        one, other = (np.asarray(Image.open(each)).astype(int) for each in (path, drawn / f"asked.csv_{line}.png"))
        assert np.abs(one - other).max() <= 1


# ---- autoencoders that are told the class --------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["dense", "convolutional"])
@pytest.mark.parametrize("variational", [False, True])
def test_an_autoencoder_that_is_told_the_class_hears_it(form: str, variational: bool) -> None:
    arguments = {"form": form, "hidden": [8, 4], "latent": 3, "conditional": True, "variational": variational}
    model: Any = build_model("autoencoder", arguments, INFO, problem_of("reconstruction")).eval()
    images, labels = batch()
    reconstruction, latent, divergence = model(images, labels)
    assert (reconstruction.shape, latent.shape, divergence.shape) == ((6, 1, 9, 13), (6, 3), (6,))
    assert not torch.equal(model(images, (labels + 1) % 3)[1], latent)  # the encoder
    assert not torch.equal(model.network.decode(latent, (labels + 1) % 3), reconstruction)  # the decoder
    torch.testing.assert_close(model.network.decode(latent, labels), reconstruction)
    shares = nn.functional.one_hot(labels, 3).float()
    torch.testing.assert_close(model(images, shares)[0], reconstruction)  # as mixed images have them


def test_an_exported_autoencoder_asks_for_the_class() -> None:
    arguments = {"hidden": [8], "latent": 3, "conditional": True}
    network = build_model("autoencoder", arguments, GREY, problem_of("reconstruction"))
    given = {"network": "autoencoder", "arguments": arguments, "problem": "reconstruction", "info": GREY}
    model = Model(export_checkpoint(Checkpoint(**given, training={}, weights=dict(network.state_dict()))), threads=1)
    assert [(entry.name, entry.type) for entry in model.session.get_inputs()][1] == ("labels", "tensor(int64)")
    images, labels = torch.randint(0, 256, (4, *GREY.shape), dtype=torch.uint8), torch.tensor([0, 2, 1, 1])
    with torch.no_grad():
        expected = network.eval()(images, labels)[0]
    answer = model.run("reconstruction", images=images.numpy(), labels=labels.numpy())
    np.testing.assert_allclose(answer, expected.numpy(), atol=1e-5)
    with pytest.raises(InputError, match="this autoencoder is conditional: it must be told the class of each image"):
        model.answering(AnswerConfig(models="models"))


@pytest.mark.long
def test_a_conditional_autoencoder_as_a_task(project: Path) -> None:
    model = {"hidden": [32], "latent": 4, "conditional": True, "variational": True}
    settings = {"model": model, "train": {"epochs": 6, "loss": {"name": "BCELoss"}, "divergence": 0.1}}
    catalog = kedro_run(project, "mnist_autoencoder", params={"mnist_autoencoder": settings})
    assert catalog.load("mnist_autoencoder.metrics")["mse"] < 0.09
    assert catalog.load("mnist_autoencoder.export_report")["greatest_difference"] < 1e-3
    height = Image.open(io.BytesIO(catalog.load("mnist_autoencoder.generated"))).height
    assert height == 10 * 150  # a row for each class
