"""Segmentation: what is learnt of each pixel, and what becomes of it."""

import base64
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score
from torch import nn

from torchloom.config import AugmentConfig, DataConfig, DebuggingConfig, ServeConfig
from torchloom.data.batches import Batches, ImageBatches
from torchloom.data.readers import pets
from torchloom.data.readers.pets import PetsConfig, draw_sample, preprocess, read_trimap
from torchloom.data.targets import IGNORED, Classes
from torchloom.datasets.raw import RawFiles
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.export.onnx import export_checkpoint
from torchloom.inference.model import Model
from torchloom.modalities import ImageInfo, read_info
from torchloom.models import build_model, build_network
from torchloom.pipelines.training.nodes import build_dataloaders
from torchloom.problems import problem_of
from torchloom.problems.segmentation.colours import RED, colour_of, key, mistakes, overlaid
from torchloom.problems.segmentation.config import EvaluateSegmenterConfig, SegmentationTrainConfig
from torchloom.problems.segmentation.metrics import answers, boundary, segmentation_metrics
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan
from torchloom.training.loop import improves, measure

SEGMENTATION = problem_of("segmentation")
CLASSES = ["wall", "cat", "dog"]
INFO = ImageInfo(
    target=Classes(array="masks", classes=CLASSES), shape=[3, 8, 10], mean=[0.5] * 3, std=[0.25] * 3, fit="squash"
)


# ---- figures -------------------------------------------------------------------------------------------------------


def test_metrics_are_those_of_scikit_learn_over_all_pixels() -> None:
    generator = np.random.default_rng(0)
    truth, found = (generator.integers(0, 3, 500) for _ in range(2))
    counts = torch.from_numpy(confusion_matrix(truth, found))
    metrics, per_class = segmentation_metrics(counts, torch.ones(2, 3), CLASSES)
    assert metrics["accuracy"] == pytest.approx((truth == found).mean())
    assert metrics["mean_iou"] == pytest.approx(jaccard_score(truth, found, average="macro"))
    assert metrics["mean_dice"] == pytest.approx(f1_score(truth, found, average="macro"))
    assert [row["iou"] for row in per_class.values()] == pytest.approx(jaccard_score(truth, found, average=None))
    assert [row["pixels"] for row in per_class.values()] == np.bincount(truth).tolist()


def test_a_class_that_does_not_come_up_is_in_no_mean() -> None:
    metrics, per_class = segmentation_metrics(
        torch.tensor([[6, 2, 0], [1, 3, 0], [0, 0, 0]]), torch.tensor([[1, 2, 0], [4, 4, 0]]), CLASSES
    )
    assert metrics["mean_iou"] == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert metrics["mean_boundary_iou"] == pytest.approx((1 / 4 + 2 / 4) / 2)
    assert per_class["dog"] == {"iou": 0.0, "dice": 0.0, "boundary_iou": 0.0, "pixels": 0}


def test_answers_are_counted_batch_by_batch() -> None:
    class Copies(nn.Module):
        """Takes the first channel for the class."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return nn.functional.one_hot(images[:, 0].long(), 3).permute(0, 3, 1, 2).float()

    images = torch.randint(0, 3, (5, 3, 4, 4), dtype=torch.uint8)
    masks = images[:, 0].clone()
    masks[3, 0] = (masks[3, 0] + 1) % 3  # a row of four pixels is taken for something else
    batches = torch.utils.data.TensorDataset(images, masks)
    loader = torch.utils.data.DataLoader(batches, sampler=Batches(5, 3), batch_size=None)
    found = answers(Copies(), loader, 3)
    counts, ious = found.pixels, found.ious
    expected = confusion_matrix(masks.flatten(), images[:, 0].flatten(), labels=range(3))
    np.testing.assert_array_equal(counts, expected)
    assert ious[[0, 1, 2, 4]].tolist() == [1, 1, 1, 1]
    truth, answer = masks[3].flatten(), images[3, 0].flatten()
    assert ious[3].item() == pytest.approx(jaccard_score(truth, answer, average="macro"))


def test_the_loss_is_the_mean_over_all_pixels() -> None:
    logits, masks = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5), dtype=torch.uint8)
    weighed = {"name": "CrossEntropyLoss", "weight": [1.0, 2.0, 0.5]}
    block = {"epochs": 1, "optimizer": {"name": "SGD", "lr": 0.1}, "loss": weighed}
    objective = SEGMENTATION.objective(SegmentationTrainConfig.model_validate(block), INFO)
    loss, figures = objective(lambda _: logits, (torch.zeros(2), masks))  # type: ignore[arg-type]
    expected = nn.functional.cross_entropy(logits, masks.long(), torch.tensor([1.0, 2.0, 0.5]))
    torch.testing.assert_close(loss, expected)
    assert figures["accuracy"] == (logits.argmax(1) == masks).float().mean()


def test_a_picture_shows_the_classes_but_for_the_first() -> None:
    images = torch.full((1, 1, 1, 3), 255, dtype=torch.uint8)
    shown = overlaid(images.numpy(), np.array([[[0, 1, IGNORED]]]))
    assert shown.shape == (1, 3, 1, 3)
    assert shown[0, :, 0, 0].tolist() == shown[0, :, 0, 2].tolist() == [1, 1, 1]
    np.testing.assert_allclose(shown[0, :, 0, 1], [1, (1 + 166 / 255) / 2, 0.5], rtol=1e-6)


def test_what_is_wrong_is_red_but_for_what_is_ignored() -> None:
    images = np.full((1, 1, 1, 4), 100, dtype=np.uint8)
    truth, answer = np.array([[[0, 1, IGNORED, 1]]]), np.array([[[0, 0, 1, 1]]])
    shown = mistakes(images, truth, answer)
    assert shown.shape == (1, 3, 1, 4)
    red = [tuple(np.round(shown[0, :, 0, place], 2).tolist()) == RED for place in range(4)]
    assert red == [False, True, False, False]


def test_classes_have_colours_of_their_own_and_a_key() -> None:
    colours = [colour_of(number) for number in range(60)]
    assert len(set(colours)) == 60
    named = key(["wall", "cell", "nucleus"])
    assert [name for name, _ in named] == ["wall (not coloured)", "cell", "nucleus"]
    assert [colour for _, colour in named[1:]] == colours[1:3]
    assert [name for name, _ in key([str(number) for number in range(60)])][-2:] == ["24", "35 more"]


def test_a_model_that_answers_the_commonest_class_is_told_so() -> None:
    metrics, _ = segmentation_metrics(torch.tensor([[0, 20], [0, 80]]), torch.ones(2, 2), ["a", "b"])
    assert metrics["mean_iou_of_the_commonest"] == pytest.approx(0.4)
    assert metrics["mean_iou"] == pytest.approx(0.4)
    assert "always answering the commonest class (0.4000)" in str(SEGMENTATION.doubt(metrics))
    good, _ = segmentation_metrics(torch.tensor([[15, 5], [5, 75]]), torch.ones(2, 2), ["a", "b"])
    assert SEGMENTATION.doubt(good) is None


# ---- the network ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 13, 21)])
def test_a_u_net_gives_maps_as_large_as_the_image(shape: tuple[int, int, int]) -> None:
    network = build_network("unet", {"shape": shape, "maps": 4}, {"width": 2, "depth": 2})
    assert network(torch.rand(3, *shape)).shape == (3, 4, *shape[1:])


def test_a_u_net_sees_what_is_far_and_what_is_near() -> None:
    torch.manual_seed(0)
    network = build_network("unet", {"shape": (1, 32, 32), "maps": 2}, {"width": 16, "depth": 3}).eval()
    image = torch.rand(1, 1, 32, 32, requires_grad=True)
    network(image)[0, :, 16, 16].sum().backward()
    assert image.grad is not None
    reached = image.grad[0, 0].abs() > 0
    assert reached.float().mean() > 0.9  # by way of the smallest picture
    assert image.grad[0, 0, 16, 16].abs() > image.grad.abs().median()


def test_too_many_halvings_are_refused() -> None:
    with pytest.raises(InputError, match=r"model\.name unet: depth 4 halves images of 8x8 to nothing"):
        build_network("unet", {"shape": (3, 8, 8), "maps": 2}, {"depth": 4})


def test_a_network_that_tells_classes_apart_is_none_for_pixels() -> None:
    with pytest.raises(ValueError, match=r"must be a network for this problem.*; there are unet "):
        SEGMENTATION.network(name="resnet")
    with pytest.raises(ValueError, match=r"must be a network for this problem"):
        problem_of("classification").network(name="unet")


# ---- data ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawFiles:
    folder = tmp_path_factory.mktemp("pets")
    draw_sample(folder, train=20, test=6)
    return RawFiles(folder, dict.fromkeys((pets.IMAGES, pets.ANNOTATIONS), ""))


def test_pictures_and_masks_belong_together(raw: RawFiles) -> None:
    train, validation, test, known = preprocess(raw, PetsConfig(size=[36, 48]))
    info = read_info(known)
    assert [len(part.arrays["images"]) for part in (train, validation, test)] == [18, 2, 6]
    assert train.arrays["images"].shape == (18, 36, 48, 3)
    assert train.arrays["masks"].shape == (18, 36, 48)
    assert (info.kind, info.target) == ("images", Classes(array="masks", classes=["background", "pet", "outline"]))
    for image, mask in zip(test.arrays["images"], test.arrays["masks"], strict=True):
        fur, wall = (np.median(image[mask == number], axis=0) for number in (1, 0))
        nearer = np.abs(image - fur).sum(2) < np.abs(image - wall).sum(2)
        assert (nearer == (mask > 0)).mean() > 0.8


def test_a_trimap_of_the_real_data_is_read_as_it_says() -> None:
    values = np.array([[1, 1, 2, 2], [3, 3, 1, 1]], dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    assert read_trimap(file.getvalue(), (2, 4), "x").tolist() == [[1, 1, 0, 0], [2, 2, 1, 1]]
    assert read_trimap(file.getvalue(), (2, 2), "x").tolist() == [[1, 0], [2, 1]]
    file = io.BytesIO()
    Image.fromarray(values - 1).save(file, "PNG")
    with pytest.raises(InputError, match=r"^x: holds values other than 1, 2 and 3"):
        read_trimap(file.getvalue(), (2, 4), "x")
    with pytest.raises(InputError, match=r"^x: is a damaged picture"):
        read_trimap(file.getvalue()[:40], (2, 4), "x")


@pytest.mark.parametrize(
    ("archive", "left_out", "message"),
    [
        (pets.IMAGES, "dog_test_0.jpg", r"images\.tar\.gz: lacks dog_test_0, which is in the list of test pictures"),
        (pets.ANNOTATIONS, "dog_test_0.png", r"annotations\.tar\.gz: lacks dog_test_0"),
        (pets.ANNOTATIONS, "test.txt", r"annotations\.tar\.gz: names no test pictures"),
    ],
)
def test_what_is_missing_is_named(raw: RawFiles, tmp_path: Path, archive: str, left_out: str, message: str) -> None:
    for name in (pets.IMAGES, pets.ANNOTATIONS):
        with tarfile.open(raw.path(name)) as whole, tarfile.open(tmp_path / name, "w:gz") as part:
            for member in whole:
                if name != archive or not member.name.endswith(f"/{left_out}"):
                    part.addfile(member, whole.extractfile(member))
    with pytest.raises(InputError, match=message):
        preprocess(RawFiles(tmp_path, dict.fromkeys((pets.IMAGES, pets.ANNOTATIONS), "")), PetsConfig(size=[8, 8]))


def test_a_damaged_archive_is_named(raw: RawFiles, tmp_path: Path) -> None:
    for name in (pets.IMAGES, pets.ANNOTATIONS):
        (tmp_path / name).write_bytes(raw.path(name).read_bytes()[:2000])
    with pytest.raises(InputError, match=r"annotations\.tar\.gz: damaged, or not such an archive"):
        preprocess(RawFiles(tmp_path, dict.fromkeys((pets.IMAGES, pets.ANNOTATIONS), "")), PetsConfig(size=[8, 8]))


def plan(folder: Path, data: DataConfig, array: str = "masks") -> LoaderPlan:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, (6, 8, 10, 3), dtype=np.uint8)
    targets = generator.integers(0, 3, (6, 8, 10) if array == "masks" else 6)
    dataset = TensorsDataset(filepath=str(folder / "train.safetensors"))
    dataset.save(Tensors({"images": images, array: targets.astype(np.uint8 if array == "masks" else np.int64)}))
    block = {"epochs": 1, "batch_size": 2, "optimizer": {"name": "SGD", "lr": 0.1}}
    settings = SegmentationTrainConfig.model_validate(block)
    info = INFO.model_copy(update={"target": Classes(array=array, classes=CLASSES)}).model_dump(mode="json")
    loaders = build_dataloaders(
        *(dataset.load() for _ in range(3)), info, data, settings, EvaluateSegmenterConfig(), DebuggingConfig()
    )
    SEGMENTATION.check(settings, loaders)
    return loaders


@pytest.mark.parametrize(
    ("problem", "name", "grid"),
    [("segmentation", "unet", "predictions"), ("reconstruction", "autoencoder", "reconstructions")],
)
def test_each_of_few_pictures_is_shown_once(tmp_path: Path, problem: str, name: str, grid: str) -> None:
    loaders, solved = plan(tmp_path, DataConfig()), problem_of(problem)
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"hidden": [8], "latent": 2} if name == "autoencoder" else {"width": 4, "depth": 1}
    weights = dict(build_model(name, arguments, loaders.info, solved).state_dict())
    checkpoint = Checkpoint(
        network=name, arguments=arguments, problem=problem, info=loaders.info, training={"epoch": 1.0}, weights=weights
    )
    history = [{"epoch": 1, "learning_rate": 0.1, "train_loss": 1.0}]
    images = loaders.chosen("test", range(6))[0].permute(0, 2, 3, 1).numpy() / 255
    few, many = (solved.evaluate(checkpoint, loaders, history, solved.evaluation(pictures=count)) for count in (6, 5))
    for made, count in ((few, 6), (many, 5)):
        shown = [np.asarray(each.get_array()) for each in made[grid].axes[0].images]
        originals = [at for at, image in enumerate(images) if any(np.allclose(image, each) for each in shown)]
        assert len(originals) == count
    assert few["best_and_worst"] == b""
    assert str(solved.captions(few)[grid]).startswith("All test images")
    assert many["best_and_worst"].axes
    assert not str(solved.captions(many)[grid]).startswith("All test images")
    if problem == "segmentation":
        titles = [text.get_text() for text in few[grid].axes[0].texts if "mean IoU" in text.get_text()]
        ious = [float(title.rpartition(" ")[2]) for title in titles]
        assert ious == sorted(ious, reverse=True)
        assert sorted(int(title.split()[2].rstrip(",")) for title in titles) == list(range(6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": {"name": "RandAugment"}}, r"augment\.policy: changes pictures and not their masks"),
        ({"per_sample": True, "flip": True}, r"augment\.per_sample: changes pictures and not their masks"),
        ({"mixup": 0.2}, "mix labels of classes, which this task has none of"),
    ],
)
def test_changed_pictures_would_lack_changed_masks(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    plan(tmp_path, DataConfig(augment=AugmentConfig(flip=True, crop_padding=2)))
    with pytest.raises(InputError, match=message):
        plan(tmp_path, DataConfig(augment=AugmentConfig.model_validate(change)))


@pytest.mark.parametrize(
    "change",
    [{"flip": True}, {"flip": "alternating"}, {"crop_padding": 3}, {"crop_padding": 3, "crop_border": "reflect"},
     {"affine": {"degrees": 30, "translate": 0.2, "scale": [0.7, 1.3], "shear": 10}},
     {"flip": True, "crop_padding": 2, "affine": {"degrees": 10}}],
)  # fmt: skip
def test_masks_move_with_their_pictures(change: dict[str, Any]) -> None:
    """The pictures are their masks, each class a grey; so they still agree where nothing else has been done to them."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 3, (40, 4, 5), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    masks = masks.to(torch.uint8)
    images = (50 + 100 * masks)[..., None]
    dataset = ImageBatches(images, masks, AugmentConfig.model_validate(change), seed=1)
    changed, moved = dataset[torch.arange(40)]
    assert moved.dtype == torch.uint8
    assert moved.shape == masks.shape
    assert (moved != masks).flatten(1).any(1).float().mean() > 0.4
    assert set(moved.unique().tolist()) <= {0, 1, 2, IGNORED}
    known = moved != IGNORED
    bordered = "affine" in change or (change.get("crop_padding") and "crop_border" not in change)
    assert bool((~known).any()) == bool(bordered)
    shown = ((changed[:, 0].float() - 50) / 100).round()
    agree = float((shown == moved)[known].float().mean())
    exact = "affine" not in change
    assert agree == 1 if exact else agree > 0.75  # the pictures are bilinear at the edges of the squares
    black = changed[:, 0][~known] == 0
    assert black.all() if exact else not bordered or black.float().mean() > 0.5


def test_what_is_ignored_is_neither_learnt_nor_judged() -> None:
    logits, masks = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5), dtype=torch.uint8)
    hidden = masks.clone()
    hidden[0, :2] = IGNORED
    known = hidden != IGNORED
    focal = {"name": "FocalLoss", "gamma": 0.0}
    for loss in ({"name": "CrossEntropyLoss", "weight": [1.0, 2.0, 0.5]}, {"name": "CrossEntropyLoss"}, focal):
        block = {"epochs": 1, "optimizer": {"name": "SGD", "lr": 0.1}, "loss": loss}
        objective = SEGMENTATION.objective(SegmentationTrainConfig.model_validate(block), INFO)
        mean, figures = objective(lambda _: logits, (torch.zeros(2), hidden))  # type: ignore[arg-type]
        rest = logits.permute(0, 2, 3, 1)[known], masks[known].long()
        weight = torch.tensor(loss["weight"]) if "weight" in loss else None
        torch.testing.assert_close(mean, nn.functional.cross_entropy(*rest, weight))
        assert figures["accuracy"] == pytest.approx((rest[0].argmax(1) == rest[1]).float().mean())
        assert figures["loss_weight"] == pytest.approx(weight[rest[1]].sum() if weight is not None else known.sum())
        nothing, _ = objective(lambda _: logits, (torch.zeros(2), torch.full_like(masks, IGNORED)))  # type: ignore[arg-type]
        assert nothing == 0


def test_the_mean_iou_of_an_epoch_is_that_of_evaluation() -> None:
    """Counted batch by batch, of all pixels that are not ignored."""
    torch.manual_seed(0)
    logits, masks = torch.randn(10, 3, 8, 10), torch.randint(3, (10, 8, 10), dtype=torch.uint8)
    masks[0, 0], masks[9] = IGNORED, IGNORED
    model = nn.Identity()
    block = {"epochs": 1, "optimizer": {"name": "SGD", "lr": 0.1}, "monitor": "mean_iou"}
    config = SegmentationTrainConfig.model_validate(block)
    batches: Any = list(zip(logits.split(4), masks.split(4), strict=True))
    found = measure(
        *(model, batches, torch.device("cpu"), torch.float32, SEGMENTATION.objective(config, INFO), 1),
        whole=SEGMENTATION.whole(config, INFO),
    )
    known = masks != IGNORED
    truth, answer = masks[known].numpy(), logits.argmax(1)[known].numpy()
    assert found["mean_iou"] == pytest.approx(jaccard_score(truth, answer, average="macro"))
    assert list(found) == ["loss", "accuracy", "mean_iou"]
    assert improves({"val_mean_iou": 0.5}, {"val_mean_iou": 0.4}, config.monitor, config.rising)
    kept, _ = SEGMENTATION.kept(logits, masks)
    assert kept.shape == (1, 3, 3)  # whatever there are of pixels
    assert SEGMENTATION.validation(config, INFO)(torch.zeros(1, 3, 3), masks) == {"mean_iou": 0.0}  # type: ignore[misc]


def test_what_is_ignored_is_in_no_count() -> None:
    class Says(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return nn.functional.one_hot(images[:, 0].long(), 2).permute(0, 3, 1, 2).float()

    images = torch.zeros((1, 1, 4, 4), dtype=torch.uint8)
    images[0, 0, :2] = 1
    masks = images[:, 0].clone()
    masks[0, 0] = IGNORED
    masks[0, 1, 0] = 0
    batches = torch.utils.data.TensorDataset(images, masks)
    found = answers(Says(), torch.utils.data.DataLoader(batches, sampler=Batches(1, 1), batch_size=None), 2)
    assert found.pixels.tolist() == [[8, 1], [0, 3]]
    assert found.ious.tolist() == pytest.approx([(8 / 9 + 3 / 4) / 2])


def test_a_boundary_is_what_lies_near_the_edge_of_a_class() -> None:
    """On 100 x 100 pixels 2 % of the diagonal are 3 pixels, beyond which a square has an inside."""
    masks = torch.zeros((1, 2, 100, 100), dtype=torch.bool)
    masks[0, 0, 20:60, 30:50] = True
    masks[0, 1, :30, :30] = True
    found = boundary(masks)
    assert found[0, 0].sum() == 40 * 20 - 34 * 14
    assert not found[0, 0, 23:57, 33:47].any()
    assert found[0, 1].sum() == 900 - 24 * 24  # at the edges of the picture, too
    assert boundary(torch.ones((1, 1, 4, 4), dtype=torch.bool)).sum() == 16 - 4


def test_labels_are_no_masks_and_masks_no_labels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs data with classes \(masks\) to learn, .* have classes \(labels\)"):
        plan(tmp_path, DataConfig(), "labels")
    with pytest.raises(InputError, match=r"needs data with classes \(labels\) to learn, .* classes \(masks\)"):
        problem_of("classification").check_data(INFO)


# ---- an exported model ---------------------------------------------------------------------------------------------


def test_an_answer_is_the_share_of_each_class_and_the_mask() -> None:
    torch.manual_seed(0)
    arguments = {"width": 2, "depth": 1}
    weights = dict(build_model("unet", arguments, INFO, SEGMENTATION).state_dict())
    trained = Checkpoint(
        network="unet", arguments=arguments, problem="segmentation", info=INFO, training={}, weights=weights
    )
    model = Model(export_checkpoint(trained))
    images = [np.random.default_rng(number).integers(0, 255, (3, 8, 10), dtype=np.uint8) for number in range(2)]
    columns, answer = SEGMENTATION.answering(model, ServeConfig(models=""))
    assert columns.names == ["share_wall", "share_cat", "share_dog", "mask_png"]
    rows = answer(images)
    for number, image in enumerate(images):
        mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(rows["mask_png"][number]))))
        maps = model.run("maps", images=image[None])[0]
        np.testing.assert_array_equal(mask, maps.argmax(0))
        shares = [rows[f"share_{name}"][number] for name in CLASSES]
        assert shares == pytest.approx(np.bincount(mask.ravel(), minlength=3) / mask.size)
    with pytest.raises(InputError, match=r"^views mirror: a mask is made of one view of a picture; leave them out$"):
        SEGMENTATION.answering(model, ServeConfig(models="", views="mirror"))
    caption = SEGMENTATION.caption(model, {"share_wall": 0.5, "share_cat": 0.1, "share_dog": 0.4})
    assert caption == "wall 50%, dog 40%, cat 10%"
