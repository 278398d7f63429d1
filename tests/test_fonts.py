"""Letters that matplotlib's own font lacks: drawn by another font that is there, or replaced and told once."""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
import torch
from fontTools.ttLib import TTFont
from matplotlib import font_manager

from torchloom.system import fonts
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
