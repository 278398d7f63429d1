"""Letters that matplotlib's own font lacks: drawn by another font that is there, or replaced and told once."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import pytest
import torch
from fontTools.ttLib import TTFont
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from torchloom.system import figures, fonts
from torchloom.system.figures import confusion_matrix


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
def test_without_a_font_letters_are_replaced_and_that_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert drawn(["好评", "差 ok"]) == ["\ufffd\ufffd", "\ufffd ok"]
        assert drawn(["é ß Ω", "水"]) == ["é ß Ω", "\ufffd"]
    (message,) = caplog.messages
    assert message.endswith(
        "Install a font for them, or for Chinese, Japanese and Korean the extra: uv sync --extra cjk, or "
        "where torchloom is installed: pip install 'torchloom[cjk]'"
    )


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
    assert drawn(["好评", "差"]) == ["好评", "\ufffd"]
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
    "curves": lambda: figures.learning_curves([{"epoch": 1, "learning_rate": 0.1, "train_loss": 1, "train_好": 1}]),
    "runs": lambda: figures.runs([{"number": 1, "name": "好", "value": 0.5, "seconds": 3.0, "curves": CURVES}]),
}


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("kind", DRAWN)
def test_no_figure_has_boxes(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nor a formula between two dollars; one line says what is missing."""
    figure = DRAWN[kind]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    assert any(fonts.MISSING in text.get_text() for text in figure.findobj(Text))
    assert len(caplog.messages) == 1


def test_wide_letters_take_the_room_of_two() -> None:
    assert figures._short("a" * 41) == "a" * 39 + "…"
    with fonts_that_draw("好"):
        assert figures._short("好" * 21) == "好" * 19 + " …"
        assert figures._short("好" * 20) == "好" * 20


@contextmanager
def fonts_that_draw(letters: str) -> Iterator[None]:
    known = fonts.drawable()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fonts, "drawable", lambda: known | set(map(ord, letters)))
        yield
