import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from torchloom.config import AugmentConfig
from torchloom.data.batches import start_epoch
from torchloom.data.loaders import REBUILD, ImageInfo, LoaderPlan, LoaderPlanDataset, TensorFile
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError

LENGTHS = {"train": 37, "validation": 12, "test": 25}
CHANGING = AugmentConfig(crop_padding=2, flip=True)


def pictures(split: str) -> Tensor:
    """The split's images (N, H, W, C); the label of image n is n."""
    seed = list(LENGTHS).index(split)
    shape = (LENGTHS[split], 6, 5, 3)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def prepared_file(folder: Path, split: str, images: Tensor) -> TensorFile:
    dataset = TensorsDataset(filepath=str(folder / f"{split}.safetensors"))
    dataset.save(Tensors({"images": images.numpy(), "labels": np.arange(len(images))}))
    loaded = dataset.load()
    return TensorFile(path=loaded.path, fingerprint=loaded.fingerprint, length=len(images))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, TensorFile]:
    return {split: prepared_file(tmp_path / "project" / "prepared", split, pictures(split)) for split in LENGTHS}


@pytest.fixture
def plan(files: dict[str, TensorFile]) -> LoaderPlan:
    return planned(**{split: [file] for split, file in files.items()})


def planned(augment: AugmentConfig | None = None, seed: int = 0, **splits: list[TensorFile]) -> LoaderPlan:
    return LoaderPlan(
        splits={**{split: [] for split in LENGTHS}, **splits},
        info=ImageInfo(classes=["a", "b"], shape=[3, 6, 5], mean=[0.5] * 3, std=[0.25] * 3),
        batch_size=8,
        evaluate_batch_size=10,
        augment=augment or AugmentConfig(),
        seed=seed,
    )


def epoch(loader: Any, number: int = 0) -> tuple[Tensor, list[int]]:
    """All images and labels of an epoch."""
    start_epoch(loader, number)
    batches = list(loader)
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches]).tolist()


@pytest.mark.parametrize(("split", "sizes"), [("validation", [10, 2]), ("test", [10, 10, 5])])
def test_evaluation_splits_come_whole_and_in_order(plan: LoaderPlan, split: str, sizes: list[int]) -> None:
    loader = plan.loader(split)
    batches = list(loader)
    assert len(loader) == len(sizes)
    assert [images.shape for images, _ in batches] == [(size, 3, 6, 5) for size in sizes]
    for images, labels in batches:
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert images.is_contiguous(memory_format=torch.channels_last)
    images, labels = epoch(loader)
    assert torch.equal(images.permute(0, 2, 3, 1), pictures(split))
    assert labels == list(range(LENGTHS[split]))
    assert plan.length(split) == LENGTHS[split]


def test_training_batches_are_full_shuffled_and_equal_their_source(plan: LoaderPlan) -> None:
    loader = plan.loader("train")
    assert len(loader) == 4
    assert [len(labels) for _, labels in loader] == [8] * 4  # 5 of 37 are left out
    images, labels = epoch(loader)
    assert len(set(labels)) == 32
    assert labels != sorted(labels)
    assert torch.equal(images.permute(0, 2, 3, 1), pictures("train")[labels])


def test_training_order_follows_seed_and_epoch(files: dict[str, TensorFile]) -> None:
    orders = [
        epoch(planned(seed=seed, train=[files["train"]]).loader("train"), number)[1]
        for seed, number in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    assert len({str(order) for order in orders}) == 4
    loader = planned(seed=1, train=[files["train"]]).loader("train")
    assert [epoch(loader, number)[1] for number in (1, 0)] == [orders[3], orders[2]]


def test_augmentation_is_for_training_and_repeats_with_its_epoch(files: dict[str, TensorFile]) -> None:
    plan = planned(CHANGING, **{split: [file] for split, file in files.items()})
    loader = plan.loader("train")
    first, labels = epoch(loader)
    assert torch.equal(epoch(loader)[0], first)
    assert not torch.equal(first.permute(0, 2, 3, 1), pictures("train")[labels])

    def same_images(loader: Any, number: int) -> Tensor:
        start_epoch(loader, number)
        return loader.dataset[torch.arange(37)][0]

    other_seed = plan.model_copy(update={"seed": 1}).loader("train")
    assert not torch.equal(same_images(loader, 0), same_images(loader, 1))
    assert not torch.equal(same_images(loader, 0), same_images(other_seed, 0))
    assert torch.equal(epoch(plan.loader("test"))[0].permute(0, 2, 3, 1), pictures("test"))


def test_data_smaller_than_a_batch_make_one_batch(files: dict[str, TensorFile]) -> None:
    small = planned(train=[files["test"]]).model_copy(update={"batch_size": 100})
    (batch,) = small.loader("train")
    assert sorted(batch[1].tolist()) == list(range(25))


def test_several_files_are_strung_together(files: dict[str, TensorFile]) -> None:
    plan = planned(test=[files["validation"], files["test"]])
    images, labels = epoch(plan.loader("test"))
    assert plan.length("test") == 37
    assert torch.equal(images.permute(0, 2, 3, 1), torch.cat([pictures("validation"), pictures("test")]))
    assert labels == [*range(12), *range(25)]


def test_an_empty_split_has_no_batches(tmp_path: Path) -> None:
    empty = prepared_file(tmp_path, "validation", torch.empty((0, 6, 5, 3), dtype=torch.uint8))
    for split in ([], [empty]):
        plan = planned(validation=split)
        loader = plan.loader("validation")
        assert (plan.length("validation"), len(loader), list(loader)) == (0, 0, [])


# ---- prepared files that do not fit --------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 13, 25, 99])  # 10 make a batch, 25 are there
def test_the_first_images_do_not_depend_on_the_batches(plan: LoaderPlan, count: int) -> None:
    images, labels = plan.first("test", count)
    assert labels.tolist() == list(range(min(count, 25)))
    assert torch.equal(images.permute(0, 2, 3, 1), pictures("test")[:count])


def test_a_changed_file_is_refused(plan: LoaderPlan) -> None:
    path = plan.splits["test"][0].path
    prepared_file(path.parent, "test", pictures("test") ^ 1)
    with pytest.raises(InputError) as caught:
        plan.loader("test")
    assert caught.value.message == f"{path}: has changed since the loaders were planned. {REBUILD}"
    assert len(plan.loader("validation")) == 2  # the others still fit


def test_a_file_prepared_again_alike_is_accepted(plan: LoaderPlan) -> None:
    prepared_file(plan.splits["test"][0].path.parent, "test", pictures("test"))
    assert len(plan.loader("test")) == 3


def test_a_missing_or_damaged_file_is_refused(plan: LoaderPlan) -> None:
    path = plan.splits["test"][0].path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}: damaged "):
        plan.loader("test")
    path.unlink()
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}: missing\. Run the preprocess stage first"):
        plan.loader("test")


# ---- the plan as a file --------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path, plan: LoaderPlan) -> Path:
    path = tmp_path / "project" / "plans" / "task" / "loaders.json"
    LoaderPlanDataset(filepath=str(path)).save(plan)
    return path


def load(path: Path) -> LoaderPlan:
    return LoaderPlanDataset(filepath=str(path)).load()


def test_a_plan_survives_its_file(saved: Path, plan: LoaderPlan) -> None:
    assert load(saved) == plan
    assert [file.name for file in saved.parent.iterdir()] == ["loaders.json"]
    assert json.loads(saved.read_text())["splits"]["test"][0]["path"] == "../../prepared/test.safetensors"


def test_a_plan_survives_moving_the_project(tmp_path: Path, saved: Path) -> None:
    (tmp_path / "project").rename(tmp_path / "moved")
    moved = load(tmp_path / "moved" / "plans" / "task" / "loaders.json")
    assert moved.splits["test"][0].path == tmp_path / "moved" / "prepared" / "test.safetensors"
    assert torch.equal(epoch(moved.loader("test"))[0].permute(0, 2, 3, 1), pictures("test"))


def test_a_plan_may_be_saved_through_a_link(tmp_path: Path, plan: LoaderPlan) -> None:
    link = tmp_path / "deeper" / "link"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "project")
    dataset = LoaderPlanDataset(filepath=str(link / "loaders.json"))
    dataset.save(plan)
    assert dataset.load() == plan


def test_a_plan_does_not_depend_on_the_working_folder(
    tmp_path: Path, files: dict[str, TensorFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = {
        split: file.model_copy(update={"path": file.path.relative_to(tmp_path)}) for split, file in files.items()
    }
    dataset = LoaderPlanDataset(filepath="project/loaders.json")
    dataset.save(planned(test=[relative["test"]]))
    loaded = dataset.load()
    monkeypatch.chdir("/")
    assert loaded.splits["test"] == [files["test"]]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[:-20],
        lambda text: "[]",
        lambda text: text.replace('"seed": 0', '"seed": -1'),
        lambda text: text.replace('"seed": 0', '"seed": 0, "unknown": 1'),
        lambda text: text.replace('"batch_size": 8', '"batch_size": "many"'),
        lambda text: text.replace("fingerprint", "checksum"),
        lambda text: text.replace('"validation"', '"other"'),
        lambda text: text.replace('"mean"', '"average"'),
        lambda text: "\0" + text,
    ],
)
def test_a_damaged_plan_is_refused(saved: Path, change: Any) -> None:
    before = saved.read_text()
    saved.write_text(change(before))
    assert saved.read_text() != before
    with pytest.raises(InputError) as caught:
        load(saved)
    assert caught.value.message == f"{saved}: is damaged or from another version. {REBUILD}"


def test_a_missing_plan_names_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path / "loaders.json")
    assert caught.value.message == f"{tmp_path / 'loaders.json'}: cannot be read (No such file or directory). {REBUILD}"
