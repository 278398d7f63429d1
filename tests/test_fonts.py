"""Letters that matplotlib's own font lacks: drawn by another font that is there, or replaced and told once."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from fontTools.ttLib import TTFont
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests import exported
from tests.tables import write
from torchloom.config import PredictConfig
from torchloom.data.readers import propose
from torchloom.data.targets import Classes, Number, Numbers
from torchloom.modalities import TableInfo
from torchloom.pipelines.prediction.nodes import ask, find
from torchloom.pipelines.training.nodes import evaluate
from torchloom.problems import problem_of
from torchloom.reporting.page import Facts
from torchloom.reporting.report import results
from torchloom.system import figures, fonts
from torchloom.system.figures import confusion_matrix
from torchloom.system.fonts import lacking, wanted


@pytest.fixture(autouse=True)
def _as_at_first() -> Iterator[None]:
    with matplotlib.rc_context():
        fonts.drawable.cache_clear()
        fonts._warn.cache_clear()
        yield
    fonts.drawable.cache_clear()
    fonts._warn.cache_clear()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other font than matplotlib's own."""
    own = [font for font in font_manager.fontManager.ttflist if font.name.startswith("DejaVu")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(fonts, "EXTRA", "no_such_package")


def drawn(classes: list[str]) -> list[str]:
    """The names of the classes in a figure that was drawn without a warning."""
    figure = confusion_matrix(torch.eye(len(classes)), classes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


@pytest.mark.usefixtures("bare")
def test_without_a_font_names_are_called_by_their_numbers_and_that_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    classes = ["好评", "é ß Ω", "差 ok", "差"]
    with caplog.at_level(logging.WARNING), fonts.naming([("class", classes)]):
        assert drawn(classes) == ["class 1", "é ß Ω", "class 3", "class 4"]
        assert figures._short("✗ 差 ok 90%") == "✗ class 3 90%"
        assert figures._literal("差, 好评: 很差") == "class 4, class 1: …"  # no name is a part of a word
        assert figures._short("好评" * 40 + " ok") == "(83 letters that no font here has)"
    assert drawn(["水", "ok"]) == ["(1 letter that no font here has)", "ok"]
    (message,) = caplog.messages
    assert message.endswith(
        "Install a font for them, or for Chinese, Japanese and Korean the extra: uv sync --extra cjk, or "
        "where torchloom is installed: pip install 'torchloom[cjk]'"
    )


@pytest.mark.usefixtures("bare")
def test_of_texts_a_few_letters_are_left_out_and_others_are_counted() -> None:
    with fonts.naming([("class", ["好", "b"])]):
        texts = ["good 好好吃 food", "很好吃" * 100, "good"]
        figure = figures.text_predictions(texts, [("好 90%", True)] * 3, ["sample 4", "sample 5", "sample 6"])
    figure.canvas.draw()
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown[::2] == ["class 1 90%"] * 3
    assert shown[1::2] == ["good … food", "sample 5 (300 letters that no font here has)", "good"]


@pytest.mark.usefixtures("bare")
def test_stages_call_names_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = Classes(classes=["b", "水"])
    info = TableInfo(features=["x"], mean=[0.0], std=[1.0], target=classes)
    problem: Any = SimpleNamespace(evaluate=lambda *_: {"said": figures._short("水 90%")})
    nothing: Any = None
    loaders: Any = SimpleNamespace(info=info)
    assert evaluate(nothing, loaders, [], None, problem=problem) == {"said": "class 2 90%"}
    assert figures._short("水 90%") == "… 90%"  # and nowhere else
    price = exported.TABLE.model_copy(update={"target": Number(name="価格", mean=100.0, std=20.0)})
    monkeypatch.setitem(exported.KINDS, "prices", ("regression", "linear", {}, price))
    (tmp_path / "a.csv").write_text("bmi,age\n20,40\n")
    config = PredictConfig(model=str(exported.write("prices", tmp_path)), files=str(tmp_path / "a.csv"), models="")
    sheet = ask(*find(config), config)[2]
    assert sheet.axes[0].get_xlabel() == "number 1"


@pytest.mark.usefixtures("bare")
def test_a_page_says_what_figures_call_names(caplog: pytest.LogCaptureFixture) -> None:
    numbers = Numbers(numbers=[Number(name=name, mean=0.0, std=1.0) for name in ("価格", "b")])
    info = TableInfo(features=["x", "年"], mean=[0.0, 0.0], std=[1.0, 1.0], target=numbers)
    loaders, problem = SimpleNamespace(info=info), problem_of("regression")
    subject: Any = SimpleNamespace(loaders=loaders, problem=problem, made={}, smaller=None)
    (facts,) = results(subject)
    assert isinstance(facts, Facts)
    assert facts.values == {"number 1": "価格", "feature 2": "年"}
    subject.loaders.info = info.model_copy(update={"features": ["x", "é"], "target": None})
    assert list(results(subject)) == []


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("letter", ["好", "ด", ""])
@pytest.mark.parametrize("place", ["class", "text", "column"])
def test_who_begins_is_told_of_the_extra_where_it_is_needed(tmp_path: Path, letter: str, place: str) -> None:
    words = np.random.default_rng(0).permutation(1200).reshape(120, 10)
    texts = [" ".join(f"w{word}" for word in row) + (f" {letter}" if place == "text" else "") for row in words]
    kinds = [f"a{letter}", "b"] if place == "class" else ["a", "b"]
    name = f"size {letter}" if place == "column" else "size"
    rows = [{"said": text, name: at % 7, "kind": kinds[at % 2]} for at, text in enumerate(texts)]
    if place == "column":
        rows = [{name: row[name], "kind": row["kind"]} for row in rows]
    told = [line for line in propose(write(tmp_path / "said.csv", rows), "kind").seen if "font" in line]
    assert [line.partition(":")[0] for line in told] == ([f"no font here has {letter}"] if letter else [])
    assert all("uv sync --extra cjk" in line for line in told)


@pytest.mark.usefixtures("bare")
def test_a_font_that_is_installed_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = TTFont(font_manager.findfont("DejaVu Sans"))
    for table in made["cmap"].tables:
        table.cmap = {ord("好"): "A", ord("评"): "B"}
    for record in made["name"].names:
        if record.nameID in {1, 4, 16}:
            record.string = "Tiny CJK"
    made.save(tmp_path / "tiny.ttf")
    font_manager.fontManager.addfont(str(tmp_path / "tiny.ttf"))
    with fonts.naming([("class", ["好评", "差"])]):
        assert drawn(["好评", "差"]) == ["好评", "class 2"]
    assert len(caplog.messages) == 1


NAMES = ["好评", "差评 $1", "ดีมาก", "جيد", "अच्छा"]
LABELS = torch.arange(10) % 5
SHARES = torch.eye(5)[LABELS]
PICTURES = torch.zeros(5, 1, 4, 4, dtype=torch.uint8)
CURVES = {"epoch": [1], "val_loss": [1.0]}
DRAWN: dict[str, Callable[[], Figure]] = {
    "confusion": lambda: confusion_matrix(torch.eye(5), NAMES),
    "pairs": lambda: confusion_matrix(torch.ones(110, 110), [f"{NAMES[at % 5]} {at}" for at in range(110)]),
    "roc": lambda: figures.roc_curves(SHARES, LABELS, NAMES, NAMES),
    "precision": lambda: figures.precision_recall(SHARES.numpy(), SHARES.numpy(), NAMES, NAMES),
    "latent": lambda: figures.latent_map(torch.randn(10, 3), LABELS, NAMES),
    "texts": lambda: figures.text_predictions([name * 99 for name in NAMES], [(name, True) for name in NAMES]),
    "sheet of texts": lambda: figures.text_sheet([(name, name) for name in NAMES], NAMES),
    "predictions": lambda: figures.prediction_grid(PICTURES, [(name, False) for name in NAMES]),
    "sheet": lambda: figures.contact_sheet(list(PICTURES.numpy()), NAMES, [(name, (1, 0, 0)) for name in NAMES]),
    "masks": lambda: figures.segmentations([(NAMES[0], [PICTURES.numpy()[0]])], ["mask"], [(NAMES[1], (1, 0, 0))]),
    "residuals": lambda: figures.residuals(torch.randn(9, 5), torch.randn(9, 5), *NAMES),
    "coefficients": lambda: figures.coefficient_plot([{"feature": NAMES[0], "network": 1.0, "closed_form": 2.0}]),
    "shares": lambda: figures.class_shares(SHARES.numpy(), NAMES),
    "curves": lambda: figures.learning_curves([{"epoch": 1, "learning_rate": 0.1, "train_loss": 1, "train_好评": 1}]),
    "runs": lambda: figures.runs([{"number": 1, "name": "好评", "value": 0.5, "seconds": 3.0, "curves": CURVES}]),
}


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("kind", DRAWN)
def test_no_figure_has_boxes(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nor a formula between two dollars; one line says what is missing."""
    with fonts.naming([("class", NAMES)]):
        figure = DRAWN[kind]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert any("class 1" in text for text in texts)
    assert not any(lacking(text) or "\ufffd" in text for text in texts)
    assert len(caplog.messages) == 1


def test_wide_letters_take_the_room_of_two() -> None:
    assert figures._short("a" * 41) == "a" * 39 + "…"
    with fonts_that_draw("好…"):
        assert figures._short("好" * 21) == "好" * 19 + " …"
        assert figures._short("好" * 20) == "好" * 20


@contextmanager
def fonts_that_draw(letters: str) -> Iterator[None]:
    known = fonts.drawable()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fonts, "drawable", lambda: known | set(map(ord, letters)))
        yield


def test_letters_that_no_font_could_have_are_not_asked_for() -> None:
    private, unknown = "\ue406\x97", chr(0x1F2FF)  # of which the last one may come one day
    assert set(lacking(f"a{private}b")) == set(private)
    assert wanted(f"a{private}{unknown}b") == ""
