"""A cross-validation, from the folds to the labels that are likely wrong."""

import csv
import json
import logging
import pickle
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from kedro.framework.project import pipelines
from kedro.io import DataCatalog

from tests.exported import SERIES
from tests.reports import check_page
from tests.sounds import save, tone
from tests.tables import people, reviews, waves, write
from tests.training.test_uneven import COUNTS, NAMES, TRAIN, plan
from torchloom.config import (
    DataConfig,
    DebuggingConfig,
    DistributedConfig,
    FoldsConfig,
    LabelledSeriesPreprocessConfig,
    PreprocessConfig,
    SoundFilesPreprocessConfig,
    TableFilesPreprocessConfig,
    TextFilesPreprocessConfig,
)
from torchloom.data.folds import Fold
from torchloom.data.images import LabelledImages, prepare
from torchloom.data.readers import labelled_series, sounds, table, texts
from torchloom.data.row_splits import split_rows
from torchloom.data.splits import grouped_choice
from torchloom.errors import InputError
from torchloom.pipelines.folds import nodes
from torchloom.problems import problem_of
from torchloom.records.provenance import Lineage
from torchloom.tasks import read_tasks
from torchloom.training.loaders import LoaderPlan
from torchloom.training.state import TrainingStates

TASK = Lineage("people_folds", [], {})
ALL = COUNTS["train"] + COUNTS["validation"]


class PowerCut(Exception):  # noqa: N818
    """Nothing is asked any more."""


def validated(
    folder: Path, loaders: LoaderPlan, problem: str = "classification", count: int = 3, **settings: Any
) -> tuple[Any, Any]:
    solved = problem_of(problem)
    return nodes.cross_validate(
        loaders,
        DataConfig(),
        solved.network(name="linear"),
        solved.training(**{**TRAIN, "epochs": 2, **settings}),
        solved.evaluation(pictures=1) if problem == "classification" else solved.evaluation(),
        FoldsConfig(count=count),
        DistributedConfig(),
        DebuggingConfig(),
        TrainingStates(folder / "states"),
        folder / "finished",
        problem=solved,
    )


# ---- which samples -------------------------------------------------------------------------------------------------


def test_each_sample_is_in_one_fold_and_classes_are_shared_out_evenly() -> None:
    labels = (np.arange(300) % 10 == 0).astype(np.int64)
    parts = [Fold(number=n, count=4, validation=0.25, seed=1).numbers(labels, classes=True) for n in range(4)]
    assert sorted(np.concatenate([part["test"] for part in parts]).tolist()) == list(range(300))
    for part in parts:
        assert sorted(np.concatenate([*part.values()]).tolist()) == list(range(300))
        assert labels[part["test"]].sum() in {7, 8}
        assert len(part["validation"]) == pytest.approx(0.25 * 225, abs=1)
        assert labels[part["validation"]].sum() in {5, 6}
    again = Fold(number=2, count=4, validation=0.25, seed=1).numbers(labels, classes=True)
    assert {name: numbers.tolist() for name, numbers in again.items()} == {
        name: numbers.tolist() for name, numbers in parts[2].items()
    }


def test_more_folds_than_samples_of_a_class_are_refused() -> None:
    with pytest.raises(InputError, match=r"^folds\.count 5: there are only 3 samples of a class"):
        Fold(number=0, count=5, validation=0, seed=0).numbers(np.array([0] * 20 + [1] * 3), classes=True)
    with pytest.raises(InputError, match=r"^folds\.count 5: there are only 4 samples;"):
        Fold(number=0, count=5, validation=0, seed=0).numbers(np.linspace(0, 1, 4), classes=False)


def test_a_fold_is_a_plan_like_any_other(tmp_path: Path) -> None:
    loaders = plan(tmp_path)
    everything = torch.cat([loaders.first(split, 200)[0] for split in ("train", "validation")])
    fold = nodes.fold_of(loaders, FoldsConfig(count=3), 1)
    assert [fold.length(split) for split in ("train", "validation", "test")] == [133, 67, 100]
    assert len(fold.learnt()) == 133
    numbers = fold.numbers("test")
    (features, labels), targets = fold.first("test", 100), fold.targets("test")
    assert torch.equal(features, everything[numbers])
    assert torch.equal(labels, targets)
    assert torch.equal(fold.chosen("test", [5, 2])[0], everything[numbers[[5, 2]]])
    seen = torch.cat([batch[0] for batch in fold.loader("train")])
    assert not {tuple(row) for row in seen.tolist()} & {tuple(row) for row in features.tolist()}
    assert LoaderPlan.model_validate_json(fold.model_dump_json()).recipe() == fold.recipe() != loaders.recipe()


def test_folds_of_documents_have_their_own_texts_and_lengths(tmp_path: Path) -> None:
    from tests.test_as_tested import Trained

    files = write(tmp_path / "reviews.csv", reviews(90))
    config = TextFilesPreprocessConfig(files=str(files), target="verdict")
    prepared = texts.preprocess(texts.find(config), config, tmp_path)
    loaders = Trained(tmp_path, prepared, {"name": "text_ngrams"}).plan
    fold = nodes.fold_of(loaders, FoldsConfig(count=3), 0)
    every = loaders.texts("train", range(loaders.length("train")))
    every += loaders.texts("validation", range(loaders.length("validation")))
    assert fold.texts("test", [0, 3]) == [every[number] for number in fold.numbers("test")[[0, 3]]]
    tokens, lengths, labels = fold.first("test", 5)
    tokenizer = fold.info.tokenizer  # type: ignore[union-attr]
    for row, length, text in zip(tokens, lengths, fold.texts("test", range(5)), strict=True):
        assert row[:length].tolist() == list(tokenizer.encode(text))
    loader: Any = fold.loader("train")
    assert sum(len(batch[-1]) for batch in loader) <= fold.length("train")
    assert loader.dataset.lengths[:20].tolist() == fold.first("train", 20)[1].tolist()
    assert len(labels) == 5


def test_numbers_are_scaled_by_what_is_trained_on_alone(tmp_path: Path) -> None:
    folds = [nodes.fold_of(plan(tmp_path, "regression"), FoldsConfig(count=3), number) for number in range(3)]
    for fold in folds:
        features, target = fold.trained()
        info: Any = fold.info
        assert info.mean == pytest.approx(features.double().mean(0).tolist())
        assert info.std == pytest.approx(features.double().std(0, correction=0).tolist())
        measured = float(target.mean()), float(target.std(correction=0))
        assert (info.target.mean, info.target.std) == pytest.approx(measured)
    assert len({fold.info.target.mean for fold in folds}) == 3  # type: ignore[union-attr]


def test_columns_are_measured_as_the_reader_does(tmp_path: Path) -> None:
    """Where a fold trains on what the reader has called the training rows."""
    from tests.test_as_tested import Trained

    files = write(tmp_path / "people.csv", people(200))
    config = TableFilesPreprocessConfig(files=str(files), target="bike")
    prepared = table.preprocess(table.find(config), config, tmp_path)
    loaders = Trained(tmp_path, prepared, {"name": "tabular_mlp"}).plan
    assert loaders.info.measured(loaders) == loaders.info
    other = nodes.fold_of(loaders, FoldsConfig(count=2), 1)
    assert other.info.bins != loaders.info.bins  # type: ignore[union-attr]
    assert other.info.features == loaders.info.features  # type: ignore[union-attr]


# ---- what hangs on the samples that are trained on -----------------------------------------------------------------


def numbered(kind: str) -> list[dict[str, Any]]:
    """Rows with a number of their own, by which they are found again."""
    rows = people(90) if kind == "table" else reviews(90) if kind == "texts" else waves(60)
    serial = np.random.default_rng(1).permutation(len(rows)).tolist()
    return [{"serial": f"{number}", **row} for number, row in zip(serial, rows, strict=True)]


def otherwise(kind: str, row: dict[str, Any]) -> dict[str, Any]:
    """The row with all else in it that is not to be told, and could be found out of training rows."""
    if kind == "table":
        return {
            **row,
            "town": "Atlantis",
            "age": 1000,
            "income": 1e9,
            "since": "1804-01-01",
            "country": f"no {row['serial']}",
        }
    if kind == "texts":
        return {**row, "review": f"atlantis atlantis {row['serial']} never seen anywhere else"}
    return {**row, **{f"t{step}": 100 * step for step in range(20)}}  # longer than all others, too


def fold_models(folder: Path, rows: list[dict[str, Any]], kind: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model of each of two folds, and the plan of what is prepared for the task itself."""
    from tests.test_as_tested import Trained

    path, target = write(folder / "own.csv", rows), {"table": "bike", "texts": "verdict"}.get(kind, "kind")
    known, block, network = ANEW[kind]
    columns = {"columns": {"serial": "number", "id": "out"}} if kind == "table" else {}
    columns |= {"columns": [f"t{step}" for step in range(20)]} if kind == "labelled_series" else {}
    config = block(files=str(path), target=target, **columns)
    listing = known.find(config)
    loaders = Trained(folder, known.preprocess(listing, config, folder), {"name": network}).plan
    found: list[Any] = []

    def kept(*given: Any, **named: Any) -> Any:
        found.append(train(*given, **named))
        return found[-1]

    train, solved = nodes.train, problem_of("classification")
    with monkeypatch.context() as patched:
        patched.setattr(nodes, "train", kept)
        patched.setattr(nodes, "_measured", lambda *_: {"metrics": {}, "answers": []})  # which draws pictures
        nodes.cross_validate(
            *(loaders, DataConfig(), solved.network(name=network), solved.training(**{**TRAIN, "epochs": 1})),
            *(solved.evaluation(pictures=1), FoldsConfig(count=2), DistributedConfig(), DebuggingConfig()),
            *(TrainingStates(folder / "states"), folder / "finished", listing, config),
            problem=solved,
            reader=kind,
        )
    return [each.best for each in found], loaders


ANEW: dict[str, tuple[Any, Any, str]] = {
    "table": (table, TableFilesPreprocessConfig, "tabular_mlp"),
    "texts": (texts, TextFilesPreprocessConfig, "text_ngrams"),
    "labelled_series": (labelled_series, LabelledSeriesPreprocessConfig, "series_cnn"),
}


@pytest.mark.parametrize("kind", list(ANEW))
def test_what_is_held_out_changes_nothing_of_a_model(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a vocabulary nor a category, a column, a scale or a length."""
    rows = numbered(kind)
    before, loaders = fold_models(tmp_path / "before", rows, kind, monkeypatch)
    config = ANEW[kind][1](files="own.csv", target={"table": "bike", "texts": "verdict"}.get(kind, "kind"))
    parts = split_rows({"train": rows, "validation": [], "test": []}, config, lambda row: [row[config.target]])
    every = [*parts["train"], *parts["validation"]]
    held = {every[number]["serial"] for number in nodes.fold_of(loaders, FoldsConfig(count=2), 0).numbers("test")}
    assert len(held) == len(every) // 2
    changed = [otherwise(kind, row) if row["serial"] in held else row for row in rows]
    after, _ = fold_models(tmp_path / "after", changed, kind, monkeypatch)
    assert before[0].info == after[0].info
    assert before[1].info != after[1].info
    for name, weight in before[0].weights.items():
        assert torch.equal(weight, after[0].weights[name]), name


def test_the_mean_of_pictures_and_of_sounds_is_that_of_what_is_trained_on(tmp_path: Path) -> None:
    from tests.test_as_tested import Trained

    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(40) % 2
    parts = [LabelledImages(images[:30] // (labels[:30, None, None, None] + 1), labels[:30])]
    parts += [LabelledImages(images[30:], labels[30:])]
    prepared = prepare(*parts, ["light", "dark"], PreprocessConfig())
    loaders = Trained(tmp_path, prepared, {"name": "mlp", "hidden": [4]}).plan
    assert loaders.info.measured(loaders).mean == pytest.approx(loaders.info.mean)  # type: ignore[union-attr]
    fold = nodes.fold_of(loaders, FoldsConfig(count=3), 1)
    pixels = fold.trained()[0].double().numpy() / 255
    info: Any = fold.info
    assert info.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert info.std == pytest.approx(pixels.std((0, 2, 3)).tolist())

    for number in range(24):
        save(
            tmp_path / f"sounds/{'low' if number % 2 else 'high'}/{number}.wav",
            tone(300 + 900 * (number % 2), 0.1, seed=number),
        )
    config = SoundFilesPreprocessConfig(files=str(tmp_path / "sounds"))
    heard = Trained(tmp_path, sounds.preprocess(sounds.find(config), config, tmp_path), {"name": "audio_cnn"}).plan
    known: Any = heard.info
    assert heard.info.measured(heard).mean == pytest.approx(known.mean)  # type: ignore[union-attr]
    assert nodes.fold_of(heard, FoldsConfig(count=3), 1).info.mean != known.mean  # type: ignore[union-attr]


# ---- the trainings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", ["classification", "regression"])
def test_each_sample_is_answered_by_a_model_that_has_not_seen_it(tmp_path: Path, problem: str) -> None:
    loaders = plan(tmp_path, problem)
    metrics, answers = validated(tmp_path, loaders, problem, 2)
    assert [row["sample"] for row in answers] == list(range(ALL))
    assert Counter(row["fold"] for row in answers) == {1: 150, 2: 150}
    truth = torch.cat([loaders.targets(split) for split in ("train", "validation")]).tolist()
    if problem == "classification":
        assert [row["true"] for row in answers] == [NAMES[label] for label in truth]
        for row in metrics:
            own = [each for each in answers if each["fold"] == row["fold"]]
            assert row["accuracy"] == pytest.approx(np.mean([each["true"] == each["predicted"] for each in own]))
            assert all(each["probability_common"] + each["probability_rare"] == pytest.approx(1) for each in own)
    else:
        assert [row["true"] for row in answers] == pytest.approx(truth)
        for row in metrics:
            errors = [abs(each["true"] - each["predicted"]) for each in answers if each["fold"] == row["fold"]]
            assert row["mae"] == pytest.approx(np.mean(errors), rel=1e-5)
    rows = [{name: str(value) for name, value in row.items()} for row in metrics]  # as CSV has them
    means, _, figure, page = nodes.report_folds(loaders, rows, [], TASK, problem=problem_of(problem))
    name = "accuracy" if problem == "classification" else "r2"
    values = [row[name] for row in metrics]
    assert means[f"out_of_fold_{name}"] == pytest.approx(np.mean(values))
    assert means[f"out_of_fold_{name}_deviation"] == pytest.approx(np.std(values, ddof=1))
    assert "out_of_fold_epoch" not in means
    assert f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" in page
    panel = next(axes for axes in figure.axes if axes.get_title().startswith(name))
    assert list(panel.lines[1].get_ydata()) == pytest.approx(values)
    assert list(panel.lines[0].get_ydata()) == pytest.approx([np.mean(values)] * 2)
    band, deviation = panel.patches[0], np.std(values, ddof=1)
    assert (band.get_y(), band.get_height()) == pytest.approx((np.mean(values) - deviation, 2 * deviation))
    assert [label.get_text() for label in panel.get_xticklabels()] == ["1", "2"]
    assert len(check_page(page).pictures) == 1
    assert "<title>people_folds: 2 folds</title>" in page


def test_models_that_come_to_nothing_are_told_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    figures = {"accuracy": "0.9", "balanced_accuracy": "0.5", "accuracy_of_the_commonest": "0.9"}
    rows: Any = [{"fold": str(number), **figures} for number in (1, 2)]
    *_, page = nodes.report_folds(plan(tmp_path), rows, [], TASK, problem=problem_of("classification"))
    assert "It is right no more often (0.9000) than by always answering" in page
    assert "on average over the folds: It is right no more often" in caplog.text


def test_a_run_that_was_stopped_goes_on_with_the_fold_it_was_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaders, train = plan(tmp_path, "regression"), nodes.train
    again = partial(validated, tmp_path, loaders, "regression", 2)
    expected = validated(tmp_path / "whole", loaders, "regression", 2)
    trained: list[int] = []

    def counted(fold: LoaderPlan, *more: Any, **named: Any) -> Any:
        assert fold.fold is not None
        trained.append(fold.fold.number)
        if len(trained) == 2:
            raise PowerCut
        return train(fold, *more, **named)

    monkeypatch.setattr(nodes, "train", counted)
    other = tmp_path / "states/fold-2-other/epoch-00001-step-000000000.safetensors"
    other.parent.mkdir(parents=True)
    other.touch()  # of a training with other parameters
    with pytest.raises(PowerCut):
        again()
    with caplog.at_level(logging.INFO, logger="torchloom"):
        assert again() == expected
    assert trained == [0, 1, 1]
    assert f"fold 1 is done: {tmp_path / 'finished' / 'fold-1.json'}" in caplog.text
    (tmp_path / "finished" / "fold-2.json").write_text("{")
    assert again() == expected
    assert trained[3:] == [1]
    assert again(epochs=1) != expected  # another training: nothing of it is there
    assert trained[4:] == [0, 1]
    assert not list((tmp_path / "states").glob("*"))


# ---- labels --------------------------------------------------------------------------------------------------------


def test_labels_that_were_changed_are_found(tmp_path: Path) -> None:
    pytest.importorskip("cleanlab", reason="needs the extra cleanlab")
    generator = np.random.default_rng(0)
    loaders, wrong = plan(tmp_path), sorted(generator.permutation(ALL)[:9].tolist())
    labels = generator.integers(0, 2, ALL)
    shares = np.clip(0.9 * labels + 0.05 + generator.normal(0, 0.02, ALL), 0.001, 0.999)
    given = np.where(np.isin(np.arange(ALL), wrong), 1 - labels, labels)
    answers = [
        {
            "sample": str(number),
            "true": NAMES[label],
            "probability_common": 1 - share,
            "probability_rare": share,
        }
        for number, (label, share) in enumerate(zip(given.tolist(), shares.tolist(), strict=True))
    ]
    together = [*loaders.splits["train"], *loaders.splits["validation"]]
    whole = loaders.model_copy(update={"splits": {**loaders.splits, "test": together}})
    found = problem_of("classification").label_issues(answers, whole)
    assert {row["sample"] for row in found} <= set(wrong)
    assert len(found) >= 4
    for row in found:
        assert row["probability_of_label"] < 0.05
        assert {row["label"], row["likelier"]} == {"common", "rare"}
        assert row["a"] == pytest.approx(float(whole.chosen("test", [row["sample"]])[0][0, 0]), rel=1e-4)
    order = [row["probability_of_label"] for row in found]
    assert order == sorted(order)


def test_without_the_extra_no_labels_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("torchloom.problems.classification.find_spec", lambda name: None)
    answers = [{"sample": "0", "true": "rare", "probability_common": "0.5", "probability_rare": "0.5"}]
    with caplog.at_level(logging.INFO, logger="torchloom"):
        assert problem_of("classification").label_issues(answers, plan(tmp_path)) == []
    assert "uv sync --extra cleanlab" in caplog.text


# ---- the task ------------------------------------------------------------------------------------------------------


def test_a_task_of_folds_runs_without_the_one_that_it_is_of(
    run: Callable[..., DataCatalog], project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(project / "people.csv", people(120))
    with (project / "conf/base/catalog_sources.yml").open("a") as file:
        file.write(f"\nriders:\n  type: pandas.CSVDataset\n  filepath: {path}\n")
    blocks = {
        "people": {"preprocess": {"reader": "table", "entry": "riders", "target": "bike"}},
        "bikes": {
            **{"task": {"problem": "classification", "data": "people"}, "data": {}, "model": {"name": "tabular_mlp"}},
            **{"train": {**TRAIN, "epochs": 1, "batch_size": 16}, "evaluate": {"pictures": 1}, "export": {}},
        },
        "bikes_folds": {"task": {"method": "folds", "of": "bikes"}, "folds": {"count": 2}},
    }
    (project / "conf/base/parameters/bikes.yml").write_text(yaml.safe_dump(blocks))
    with caplog.at_level(logging.INFO, logger="torchloom"):
        catalog = run("bikes_folds")
    folder = project / "data/sample/08_reporting/bikes_folds"
    metrics = json.loads((folder / "metrics.json").read_text())
    with (folder / "out_of_fold.csv").open(newline="", encoding="utf-8") as file:
        answers = list(csv.DictReader(file))
    assert len(answers) == sum(catalog.load("people_info")["rows"][split] for split in ("train", "validation"))
    right = [np.mean([row["true"] == row["predicted"] for row in answers if row["fold"] == fold]) for fold in "12"]
    deviation = metrics["out_of_fold_accuracy_deviation"]
    assert metrics["out_of_fold_accuracy"] == pytest.approx(np.mean(right))
    assert deviation == pytest.approx(np.std(right, ddof=1))
    assert f"bikes_folds  out-of-fold accuracy {np.mean(right):.4f} ± {deviation:.4f}" in caplog.text
    assert "test accuracy" not in caplog.text
    stage = next(node.func for node in pipelines["bikes_folds"].nodes if node.name == "bikes_folds.cross_validate")
    assert pickle.loads(pickle.dumps(stage)) is stage  # in another process too
    assert pipelines["bikes_folds"].inputs() >= {"riders", "params:people.preprocess"}
    assert not (project / "data/sample/07_model_output/bikes_folds/folds/fold-1-data").exists()
    assert "<title>bikes_folds: 2 folds</title>" in (folder / "report.html").read_text()
    assert (folder / "fold_plot.png").read_bytes().startswith(b"\x89PNG")
    assert not (project / "data/sample/06_models/bikes").exists()


def test_folds_are_of_tasks_that_begin_from_nothing() -> None:
    blocks: dict[str, Any] = {
        "data": {"preprocess": {"reader": "table"}},
        "one": {"task": {"problem": "regression", "data": "data"}},
        "two": {"task": {"problem": "regression", "data": "data", "start": "one"}},
        "folds": {"task": {"method": "folds", "of": "one"}},
    }
    tasks = read_tasks(blocks)
    assert (tasks["folds"].problem, tasks["folds"].data_set) == ("regression", "data")
    with pytest.raises(InputError, match=r"folds\.task\.of: folds trains a task anew .* which two does not"):
        read_tasks({**blocks, "folds": {"task": {"method": "folds", "of": "two"}}})
    with pytest.raises(InputError, match=r"more\.task\.of: folds leaves no checkpoint"):
        read_tasks({**blocks, "more": {"task": {"method": "quantization", "of": "folds"}}})


# ---- rows that are there twice -------------------------------------------------------------------------------------


def test_rows_of_the_test_that_training_has_too_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = people(60)
    write(tmp_path / "people/train.csv", rows[:40])
    write(tmp_path / "people/test.csv", [*rows[40:50], {**rows[3], "bike": "no"}, *rows[50:], rows[7]])
    config = TableFilesPreprocessConfig(
        files=str(tmp_path / "people"), target="bike", validation_fraction=0.0, columns={"id": "out"}
    )
    table.preprocess(table.find(config), config, tmp_path)
    assert "test: 2 of 22 rows are among the training rows too" in caplog.text
    assert (
        "of the test rows, in the order of the files and counted from 1, the numbers 11, 22; the first is age"
        in caplog.text
    )


def test_texts_that_are_there_twice_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = reviews(40)
    write(tmp_path / "reviews/train.csv", [{"id": number, **row} for number, row in enumerate(rows)])
    others = [{"id": 100 + number, **row} for number, row in enumerate([*reviews(10, seed=1), rows[5]])]
    write(tmp_path / "reviews/test.csv", others)
    config = TextFilesPreprocessConfig(files=str(tmp_path / "reviews"), target="verdict", text="review")
    texts.preprocess(texts.find(config), config, tmp_path)
    assert "test: 1 of 11 rows are among the training rows too" in caplog.text


# ---- rows that belong together -------------------------------------------------------------------------------------


def diaries(count: int = 40) -> list[dict[str, Any]]:
    """Of each person three rows, and a word that gives the person away."""
    return [
        {"person": f"p{number // 3}", **row, "text": f"{row['town']} word{number // 3} and more words of {number}"}
        for number, row in enumerate(people(3 * count))
    ]


def people_in(groups: list[Any]) -> set[int]:
    return set(np.concatenate(groups).tolist())


@pytest.mark.parametrize("kind", ["table", "texts"])
def test_rows_of_one_group_stay_together_in_splits_and_folds(tmp_path: Path, kind: str) -> None:
    from tests.test_as_tested import Trained

    path = write(tmp_path / "diaries.csv", diaries())
    settings: dict[str, Any] = {"files": str(path), "split_by": {"group": "person"}}
    if kind == "table":
        config: Any = TableFilesPreprocessConfig(**settings, target="bike", columns={"text": "out"})
        prepared = table.preprocess(table.find(config), config, tmp_path)
        assert "person" not in prepared[-1]["features"]
    else:
        config = TextFilesPreprocessConfig(**settings, target="bike", text="text")
        prepared = texts.preprocess(texts.find(config), config, tmp_path)
    groups = [np.asarray(part.arrays["groups"]) for part in prepared[:3]]
    assert [len(part) for part in groups] == pytest.approx([86, 10, 24], abs=4)
    assert sum(len(set(part.tolist())) for part in groups) == len(people_in(groups)) == 40
    loaders = Trained(tmp_path, prepared, {"name": "tabular_mlp" if kind == "table" else "text_ngrams"}).plan
    together = np.concatenate(groups[:2])
    tested = []
    for number in range(3):
        fold = nodes.fold_of(loaders, FoldsConfig(count=3), number)
        parts = [set(together[fold.numbers(split).numpy()].tolist()) for split in ("train", "validation", "test")]
        assert not parts[0] & parts[1]
        assert not (parts[0] | parts[1]) & parts[2]
        assert parts[1]
        tested += fold.numbers("test").tolist()
    assert sorted(tested) == list(range(len(together)))


def test_groups_that_cannot_be_kept_together_are_told(tmp_path: Path) -> None:
    rows = diaries(6)
    write(tmp_path / "own/train.csv", rows[:10])  # of the fourth person one row, the others are to test
    write(tmp_path / "own/test.csv", rows[10:])
    settings: dict[str, Any] = {"files": str(tmp_path / "own"), "target": "bike", "validation_fraction": 0.0}
    config = TableFilesPreprocessConfig(**settings, split_by={"group": "person"})
    with pytest.raises(InputError, match=r"^preprocess\.split_by\.group person: 'p3' has train rows and test rows"):
        table.preprocess(table.find(config), config, tmp_path)
    config = TableFilesPreprocessConfig(**settings, split_by={"group": "nobody"})
    with pytest.raises(InputError, match=r"^preprocess\.split_by: there is no column 'nobody'; there are 'person'"):
        table.preprocess(table.find(config), config, tmp_path)
    with pytest.raises(InputError, match=r"^preprocess\.split_by\.group: there is one group only"):
        grouped_choice(np.arange(6) % 2, np.zeros(6), 0.1, seed=0)
    assert sorted(np.flatnonzero(grouped_choice(np.arange(6) % 2, np.arange(6) // 2, 0.1, seed=0)) % 2) == [0, 1]
    with pytest.raises(InputError, match=r"^folds\.count 5: there are only 4 groups"):
        Fold(number=0, count=5, validation=0, seed=0).numbers(np.arange(20) % 2, True, np.arange(20) // 5)


def test_folds_in_time_are_tested_on_what_follows() -> None:
    generator = np.random.default_rng(0)
    order = generator.permutation(np.repeat(np.arange(50), 2))
    parts = [Fold(number=n, count=4, validation=0.2, seed=1).numbers(order % 2, True, order=order) for n in range(4)]
    for part in parts:
        train, validation, test = (order[part[split]] for split in ("train", "validation", "test"))
        assert train.max() < validation.min() <= validation.max() < test.min()
        assert len(validation) == pytest.approx(0.2 * (len(train) + len(validation)), abs=2)
        assert len(test) == pytest.approx(20, abs=2)
    assert [order[part["test"]].max() for part in parts[:-1]] < [order[part["test"]].min() for part in parts[1:]]
    assert order[parts[-1]["test"]].max() == 49
    tight = Fold(number=0, count=1, validation=0.1, seed=1).numbers(
        np.zeros(8), False, order=np.array([0, 1, 1, 1, 1, 2, 2, 2])
    )
    assert {split: numbers.tolist() for split, numbers in tight.items()} == {
        "train": [0],
        "validation": [1, 2, 3, 4],
        "test": [5, 6, 7],
    }
    with pytest.raises(InputError, match=r"^folds\.count 5: there are only 3 times in split_by\.time"):
        Fold(number=0, count=5, validation=0, seed=0).numbers(np.arange(30), False, order=np.arange(30) // 10)


def test_rows_that_are_split_by_time_have_folds_in_time(tmp_path: Path) -> None:
    from tests.test_as_tested import Trained

    rows = [{**row, "day": f"2024-{1 + place % 12:02}-{1 + place % 28:02}"} for place, row in enumerate(people(120))]
    settings: dict[str, Any] = {"files": str(write(tmp_path / "people.csv", rows)), "target": "bike"}
    config = TableFilesPreprocessConfig(**settings, split_by={"time": "day"})
    prepared = table.preprocess(table.find(config), config, tmp_path)
    order = np.concatenate([np.asarray(part.arrays["order"]) for part in prepared[:2]])
    assert order.max() < np.asarray(prepared[2].arrays["order"]).min()
    loaders = Trained(tmp_path, prepared, {"name": "tabular_mlp"}).plan
    for number in range(3):
        fold = nodes.fold_of(loaders, FoldsConfig(count=3), number)
        train, validation, test = (order[fold.numbers(split).numpy()] for split in ("train", "validation", "test"))
        assert train.max() < validation.min() <= validation.max() < test.min()


def test_a_forecast_has_no_folds() -> None:
    plan = LoaderPlan.model_construct(info=SERIES, fold=Fold(number=0, count=2, validation=0, seed=0))
    with pytest.raises(InputError, match="folds: are drawn by chance"):
        plan.numbers("test")
