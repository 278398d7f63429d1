import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from torchloom.datasets.reports import FigureDataset, JSONDataset
from torchloom.errors import InputError

PNG = b"\x89PNG\r\n\x1a\n"


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    report = {"accuracy": 0.5, "classes": ["a", "ü"], "epoch": 3}
    dataset = JSONDataset(filepath=str(tmp_path / "new" / "report.json"))
    dataset.save(report)
    assert dataset.load() == report
    assert json.loads(dataset.preview()) == report


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_figure_that_is_no_number_leaves_the_old_report(tmp_path: Path, value: float) -> None:
    path = tmp_path / "report.json"
    dataset = JSONDataset(filepath=str(path))
    dataset.save({"loss": 1.0})
    with pytest.raises(InputError, match=r"report\.json: holds a figure that is not a finite number"):
        dataset.save({"loss": value})
    assert dataset.load() == {"loss": 1.0}
    assert list(tmp_path.iterdir()) == [path]


def test_a_figure_is_a_png_and_is_previewed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "curves.png"
    dataset = FigureDataset(filepath=str(path))
    assert not dataset.exists()
    dataset.save(Figure())
    assert path.read_bytes().startswith(PNG)
    assert dataset.exists()
    assert len(dataset.preview()) > 100


def test_a_drawing_that_fails_leaves_the_old_picture(tmp_path: Path) -> None:
    class Broken(Figure):
        def savefig(self, target: Any, **options: Any) -> None:
            Path(target).write_bytes(PNG)
            raise RuntimeError("no more ink")

    path = tmp_path / "curves.png"
    dataset = FigureDataset(filepath=str(path))
    dataset.save(Figure())
    before = path.read_bytes()
    with pytest.raises(Exception, match="no more ink"):
        dataset.save(Broken())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
