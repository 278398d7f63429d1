import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from torchloom.config import AugmentConfig, DataConfig, DebuggingConfig, EvaluateConfig
from torchloom.data.batches import start_epoch
from torchloom.data.targets import Classes, Number
from torchloom.data.text import Tokenizer
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.modalities import DocumentInfo, ImageInfo, TableInfo, TextInfo
from torchloom.pipelines.training.nodes import build_dataloaders
from torchloom.problems.classification.config import ClassificationTrainConfig
from torchloom.training.loaders import REBUILD, LoaderPlan, LoaderPlanDataset, TensorFile

LENGTHS = {"train": 37, "validation": 12, "test": 25}
CHANGING = AugmentConfig(crop_padding=2, flip=True)


def pictures(split: str) -> Tensor:
    """The split's images (N, H, W, C); the label of image n is n."""
    seed = list(LENGTHS).index(split)
    shape = (LENGTHS[split], 6, 5, 3)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def prepared_file(folder: Path, split: str, images: Tensor) -> TensorFile:
    return written_file(folder, split, {"images": images.numpy(), "labels": np.arange(len(images))}, len(images))


def written_file(folder: Path, name: str, arrays: dict[str, np.ndarray], length: int) -> TensorFile:
    dataset = TensorsDataset(filepath=str(folder / f"{name}.safetensors"))
    dataset.save(Tensors(arrays))
    loaded = dataset.load()
    assert loaded.path is not None
    assert loaded.fingerprint is not None
    return TensorFile(path=loaded.path, fingerprint=loaded.fingerprint, length=length)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, TensorFile]:
    return {split: prepared_file(tmp_path / "project" / "prepared", split, pictures(split)) for split in LENGTHS}


@pytest.fixture
def plan(files: dict[str, TensorFile]) -> LoaderPlan:
    return planned(**{split: [file] for split, file in files.items()})


IMAGES = ImageInfo(
    target=Classes(classes=[str(label) for label in range(40)]), shape=[3, 6, 5], mean=[0.5] * 3, std=[0.25] * 3
)


def planned(augment: AugmentConfig | None = None, seed: int = 0, **splits: list[TensorFile]) -> LoaderPlan:
    return planned_for(IMAGES, DataConfig(augment=augment or AugmentConfig()), seed, **splits)


def planned_for(info: Any, data: DataConfig, seed: int = 0, **splits: list[TensorFile]) -> LoaderPlan:
    return LoaderPlan(
        splits={**{split: [] for split in LENGTHS}, **splits},
        info=info,
        batch_size=8,
        evaluate_batch_size=10,
        data=data,
        seed=seed,
    )


def epoch(loader: Any, number: int = 0) -> tuple[Tensor, list[int]]:
    """All images and labels of an epoch."""
    start_epoch(loader, number)
    batches = list(loader)
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches]).tolist()


def test_a_few_batches_are_all_there_is_for_debugging(plan: LoaderPlan) -> None:
    short = plan.model_copy(update={"batches": 2})
    counts = {split: len(epoch(short.loader(split))[1]) for split in LENGTHS}
    assert counts == {"train": 16, "validation": 12, "test": 20}
    one, other = (sorted(epoch(short.loader("train"), number)[1]) for number in (0, 1))
    assert one == other


def test_a_few_samples_are_trained_and_validated_on_as_they_are(plan: LoaderPlan) -> None:
    update: dict[str, Any] = {"overfit": 6, "data": DataConfig(augment=CHANGING)}
    update["splits"] = {**plan.splits, "validation": plan.splits["train"]}
    few = plan.model_copy(update=update)
    trained, numbers = epoch(few.loader("train"))
    judged, same = epoch(few.loader("validation"))
    assert len(numbers) == 6
    assert sorted(numbers) == sorted(same)
    assert torch.equal(trained[np.argsort(numbers)], judged[np.argsort(same)])  # without augmentation


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


def test_the_first_training_images_are_not_augmented(files: dict[str, TensorFile]) -> None:
    plan = planned(AugmentConfig(cutout=20, mixup=1.0), train=[files["train"]])
    images, labels = plan.first("train", 37)
    assert torch.equal(images.permute(0, 2, 3, 1), pictures("train"))
    assert labels.tolist() == list(range(37))
    images, shares = next(iter(plan.loader("train")))
    assert (images == 128).all()  # cut out in the mean colour
    assert shares.shape == (8, 40)
    torch.testing.assert_close(shares.sum(1), torch.ones(8))


@pytest.mark.parametrize("count", [1, 13, 25, 99])  # 10 make a batch, 25 are there
def test_the_first_images_do_not_depend_on_the_batches(plan: LoaderPlan, count: int) -> None:
    images, labels = plan.first("test", count)
    assert labels.tolist() == list(range(min(count, 25)))
    assert torch.equal(images.permute(0, 2, 3, 1), pictures("test")[:count])


def test_drawn_images_are_of_the_whole_split_and_each_time_the_same(plan: LoaderPlan) -> None:
    for draw in (plan.trained, partial(plan.drawn, "train")):
        images, labels = draw(10)
        assert torch.equal(images.permute(0, 2, 3, 1), pictures("train")[labels])
        assert len(set(labels.tolist())) == 10
        assert labels.min() < 10
        assert labels.max() >= 20
        assert torch.equal(draw(10)[1], labels)
        assert sorted(draw(99)[1].tolist()) == list(range(37))
    assert plan.drawn("train", 99)[1].tolist() != list(range(37))  # of which not all may count
    assert torch.equal(plan.samples("train", 10, drawn=True)["images"], plan.drawn("train", 10)[0])
    assert torch.equal(plan.samples("train", 10)["images"], plan.first("train", 10)[0])


def test_a_subset_is_of_the_training_split_alone(files: dict[str, TensorFile]) -> None:
    plan = planned_for(IMAGES, DataConfig(subset=16), **{split: [file] for split, file in files.items()})
    loader = plan.loader("train")
    first, second = epoch(loader, 0)[1], epoch(loader, 1)[1]
    assert len(loader) == 2
    assert len(set(first)) == 16
    assert sorted(first) == sorted(second)
    assert first != second
    assert sorted(first) != list(range(16))
    assert len(epoch(plan.loader("test"))[1]) == 25
    assert len(plan.first("train", 100)[1]) == plan.length("train") == 37
    assert sorted(plan.trained()[1].tolist()) == sorted(first)
    assert set(plan.trained(3)[1].tolist()) < set(first)
    other = plan.model_copy(update={"seed": 1}).loader("train")
    assert sorted(epoch(other)[1]) != sorted(first)


# ---- where images lie ----------------------------------------------------------------------------------------------

EVERYTHING = AugmentConfig.model_validate(
    {"crop_padding": 2, "crop_border": "reflect", "flip": "alternating", "color": {"contrast": 0.5}, "cutmix": 1.0}
)


def batches_of(loader: Any, number: int) -> list[tuple[Tensor, Tensor]]:
    start_epoch(loader, number)
    return list(loader)


@pytest.mark.parametrize("augmentation", [AugmentConfig(), CHANGING, EVERYTHING])
@pytest.mark.parametrize("subset", [None, 20])
def test_streamed_images_are_the_same_to_the_bit(
    files: dict[str, TensorFile], augmentation: AugmentConfig, subset: int | None
) -> None:
    splits = {"train": [files["train"], files["validation"]], "test": [files["test"]]}
    plain, streamed = (
        planned_for(IMAGES, DataConfig(augment=augmentation, subset=subset, on_device=on_device), seed=5, **splits)
        for on_device in (None, False)
    )
    for split in splits:
        loaders = plain.loader(split), streamed.loader(split)
        assert [type(loader).__name__ for loader in loaders] == ["DataLoader", "StreamedBatches"]
        assert len(loaders[0]) == len(loaders[1])
        for number in (0, 1):
            for batch, other in zip(*(batches_of(loader, number) for loader in loaders), strict=True):
                assert torch.equal(batch[0], other[0])
                assert torch.equal(batch[1], other[1])


@pytest.mark.parametrize("on_device", [None, True, False])
def test_images_of_one_file_stay_mapped(plan: LoaderPlan, on_device: bool | None) -> None:
    mapped = plan.model_copy(update={"data": DataConfig(on_device=on_device)})
    loader: Any = mapped.loader("train")
    file = plan.splits["train"][0].path
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("needs Linux")
    address = loader.dataset.images.data_ptr()
    regions = [line.split() for line in maps.read_text().splitlines() if line.endswith(file.name)]
    spans = [[int(end, 16) for end in region[0].split("-")] for region in regions]
    assert any(start <= address < end for start, end in spans)
    assert len(list(loader)) == 4


@pytest.mark.parametrize(
    ("on_device", "kind", "free", "expected"),
    [
        (None, "cpu", 2 * 37 * 98.0 + 1, True),
        (None, "cpu", 2 * 37 * 98.0, False),
        (False, "cpu", 1e12, False),
        (None, "cuda", 1e12, True),
        (None, "cuda", 2 * 37 * 98.0 + 1, True),
        (None, "cuda", 2 * 37 * 98.0, False),  # 90 bytes of pixels and 8 of the label
        (None, "cuda", 0.0, False),
        (True, "cuda", 0.0, True),
        (False, "cuda", 1e12, False),
    ],
)
def test_images_lie_on_the_device_if_they_fit_into_half_of_what_is_free(
    monkeypatch: pytest.MonkeyPatch, plan: LoaderPlan, on_device: bool | None, kind: str, free: float, expected: bool
) -> None:
    monkeypatch.setattr("torchloom.system.devices.free_memory", lambda device: free)
    chosen = plan.model_copy(update={"data": DataConfig(on_device=on_device)})
    assert chosen._belongs_on(torch.device(kind), chosen._arrays("train")) is expected


@pytest.mark.parametrize(("size", "expected"), [(None, [500, 500, 20]), (600, [600, 420])])
def test_evaluation_batches_suit_the_device_unless_told_otherwise(
    tmp_path: Path, size: int | None, expected: list[int]
) -> None:
    file = prepared_file(tmp_path, "test", torch.zeros((1020, 6, 5, 3), dtype=torch.uint8))
    plan = planned(test=[file], validation=[file]).model_copy(update={"evaluate_batch_size": size})
    for split in ("validation", "test"):
        assert [len(labels) for _, labels in plan.loader(split)] == expected


# ---- documents, a text and a table ---------------------------------------------------------------------------------

WORDS = Tokenizer(kind="words", vocabulary=["<pad>", "<unk>", *"abcdefgh"])
DOCUMENTS = DocumentInfo(target=Classes(classes=["bad", "good"]), tokenizer=WORDS)
TEXT = TextInfo(tokenizer=Tokenizer.of_characters("abcdefgh"))
TABLE = TableInfo(features=["x", "y"], mean=[0.0] * 2, std=[1.0] * 2, target=Number(name="z", mean=0.0, std=1.0))


def documents_file(folder: Path, name: str, texts: list[str]) -> TensorFile:
    """Documents with the labels 0, 1, 2, …"""
    encoded = [WORDS.encode(text) for text in texts]
    written = [np.frombuffer(text.encode(), np.uint8) for text in texts]
    arrays = {
        "tokens": np.concatenate(encoded).astype(np.int32),
        "starts": np.cumsum([0, *map(len, encoded)]),
        "labels": np.arange(len(texts)),
        "text": np.concatenate(written),
        "text_starts": np.cumsum([0, *map(len, written)]),
    }
    return written_file(folder, name, arrays, len(texts))


REVIEWS = ["A! é b", "c", "\U0001f600 d, e f\r\n", "g h a b c"]  # 4, 1, 4 and 5 words, with marks
ENCODED = [WORDS.encode(text).tolist() for text in REVIEWS]


def test_documents_come_with_their_lengths(tmp_path: Path) -> None:
    plan = planned_for(DOCUMENTS, DataConfig(), test=[documents_file(tmp_path, "test", REVIEWS)])
    ((tokens, lengths, labels),) = plan.loader("test")
    assert lengths.tolist() == [len(words) for words in ENCODED] == [4, 1, 4, 5]
    assert tokens.tolist() == [words + [0] * (5 - len(words)) for words in ENCODED]
    assert labels.tolist() == [0, 1, 2, 3]
    assert tokens.dtype == lengths.dtype == labels.dtype == torch.int64


def test_of_long_documents_the_last_words_are_kept(tmp_path: Path) -> None:
    file = documents_file(tmp_path, "test", REVIEWS)
    plan = planned_for(DOCUMENTS, DataConfig(max_tokens=2), train=[file], test=[file])
    for tokens, lengths, labels in (next(iter(plan.loader("test"))), plan.first("train", 4), plan.first("test", 4)):
        assert labels.tolist() == [0, 1, 2, 3]
        assert lengths.tolist() == [2, 1, 2, 2]
        assert tokens.tolist() == [words[-2:] if len(words) > 1 else [*words, 0] for words in ENCODED]
    tokens, _, labels = plan.first("test", 2)
    assert labels.tolist() == [0, 1]
    assert plan.texts("test", [3]) == REVIEWS[3:]  # the whole document


def test_documents_can_be_read_as_they_were_written(tmp_path: Path) -> None:
    files = [documents_file(tmp_path, "a", REVIEWS[:1]), documents_file(tmp_path, "b", REVIEWS[1:])]
    plan = planned_for(DOCUMENTS, DataConfig(include_validation=True), train=files, test=files[:1])
    assert plan.texts("train", range(4)) == REVIEWS
    assert plan.texts("train", [2, 0, 2]) == [REVIEWS[2], REVIEWS[0], REVIEWS[2]]
    assert plan.texts("test", [0]) == REVIEWS[:1]
    assert plan.texts("test", []) == []
    assert plan.length("train") == 4
    tokens, lengths, _ = plan.first("train", 4)
    assert [row[:length] for row, length in zip(tokens.tolist(), lengths, strict=True)] == ENCODED


def test_training_documents_of_like_length_come_together(tmp_path: Path) -> None:
    texts = ["a " * (1 + 7 * number % 40) for number in range(40)]  # of 1 to 40 words
    plan = planned_for(DOCUMENTS, DataConfig(), train=[documents_file(tmp_path, "train", texts)])
    loader = plan.loader("train")
    batches = list(loader)
    assert [tokens.shape[0] for tokens, _, _ in batches] == [8] * 5
    assert all(lengths.max() - lengths.min() == 7 for _, lengths, _ in batches)
    assert all(tokens.shape[1] == lengths.max() for tokens, lengths, _ in batches)
    assert sorted(torch.cat([labels for _, _, labels in batches]).tolist()) == list(range(40))
    start_epoch(loader, 1)
    assert [labels.tolist() for *_, labels in loader] != [labels.tolist() for *_, labels in batches]
    some = planned_for(DOCUMENTS, DataConfig(subset=16), train=plan.splits["train"]).loader("train")
    assert len(set(torch.cat([labels for *_, labels in some]).tolist())) == 16


@pytest.fixture
def text_plan(tmp_path: Path) -> LoaderPlan:
    """A text of 100 characters in each split, numbered through."""
    file = written_file(tmp_path, "text", {"tokens": np.arange(100, dtype=np.uint8)}, 100)
    return planned_for(TEXT, DataConfig(window=7), train=[file], test=[file])


def test_a_text_can_be_had_as_a_whole(text_plan: LoaderPlan) -> None:
    for split in ("train", "test"):
        assert text_plan.tokens(split).tolist() == list(range(100))
        assert text_plan.length(split) == 100
    twice = text_plan.model_copy(update={"splits": {"train": text_plan.splits["train"] * 2}})
    assert twice.tokens("train").tolist() == [*range(100), *range(100)]


def test_windows_of_a_text_are_shifted_for_training_alone(text_plan: LoaderPlan) -> None:
    batches = list(text_plan.loader("test"))
    assert [inputs.shape for inputs, _ in batches] == [(10, 7), (4, 7)]
    assert torch.cat([inputs for inputs, _ in batches]).flatten().tolist() == list(range(98))
    loader = text_plan.loader("train")
    assert len(loader) == 1  # 8 of the 13 windows
    starts = set()
    for number in range(5):
        start_epoch(loader, number)
        for inputs, targets in loader:
            assert inputs.shape == (8, 7)
            assert torch.equal(targets, inputs + 1)
            starts |= {int(start) % 7 for start in inputs[:, 0]}
    assert len(starts) > 1
    for split in ("train", "test"):
        inputs, targets = text_plan.first(split, 3)
        assert inputs.tolist() == [list(range(start, start + 7)) for start in (0, 7, 14)]
        assert torch.equal(targets, inputs + 1)
        assert len(text_plan.first(split, 99)[0]) == 14


def test_rows_of_a_table(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=(19, 3)).astype(np.float32)
    rows = {"features": numbers[:, :2], "target": numbers[:, 2]}
    file = written_file(tmp_path, "rows", rows, 19)
    plan = planned_for(TABLE, DataConfig(), train=[file], test=[file])
    features, target = (torch.cat(parts) for parts in zip(*plan.loader("test"), strict=True))
    assert features.dtype == target.dtype == torch.float32
    assert torch.equal(features, torch.from_numpy(numbers[:, :2]))
    assert torch.equal(target, torch.from_numpy(numbers[:, 2]))
    batches = list(plan.loader("train"))
    assert [len(batch) for _, batch in batches] == [8, 8]
    for some, values in batches:
        for row, value in zip(some, values, strict=True):
            assert torch.equal(row, features[(target == value).nonzero().item()])
    first = plan.first("train", 5)
    assert torch.equal(first[0], features[:5])
    assert torch.equal(first[1], target[:5])


# ---- planning ------------------------------------------------------------------------------------------------------


def plan_text(folder: Path, data: DataConfig) -> LoaderPlan:
    """Plan loaders of a text of 100 characters in each split."""
    training = ClassificationTrainConfig.model_validate({"epochs": 1, "batch_size": 4, "optimizer": {"name": "SGD"}})
    written_file(folder, "text", {"tokens": np.arange(100, dtype=np.uint8)}, 100)
    tensors = TensorsDataset(filepath=str(folder / "text.safetensors")).load()
    return build_dataloaders(
        tensors, tensors, tensors, TEXT.model_dump(), data, training, EvaluateConfig(batch_size=5), DebuggingConfig()
    )


def test_a_plan_is_made_of_prepared_tensors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        plan = plan_text(tmp_path, DataConfig(window=9))
    assert "train: 2 batches of (4, 9); 2 samples more, which differ in each epoch, make no whole one" in caplog.text
    assert "validation: 3 batches of (5, 9)\n" in caplog.text
    with caplog.at_level("INFO"):
        plan_text(tmp_path, DataConfig(window=49))
    assert "train: 1 batch of (1, 49)\n" in caplog.text  # smaller than asked for: nothing is left over
    assert [len(plan.loader(split)) for split in LENGTHS] == [2, 3, 3]  # 10 of 4 and 11 of 5 windows
    assert [plan.length(split) for split in LENGTHS] == [100] * 3
    all_in = plan_text(tmp_path, DataConfig(window=9, include_validation=True))
    assert [all_in.length(split) for split in LENGTHS] == [200, 0, 100]
    assert [len(all_in.loader(split)) for split in LENGTHS] == [5, 0, 3]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"augment": {"flip": True}}, r"data\.augment: is for images, but these data are text; leave it out"),
        ({"max_tokens": 5}, r"data\.max_tokens: is for documents, but these data are text; leave it out"),
    ],
)
def test_keys_for_data_of_another_kind_are_refused(tmp_path: Path, data: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_text(tmp_path, DataConfig.model_validate(data))


# ---- prepared files that do not fit --------------------------------------------------------------------------------


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
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}: missing\. Run the preprocess stage again"):
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
