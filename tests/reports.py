"""What must be true of every page and of every model card, whatever they are about."""

import base64
import contextlib
import io
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from torchloom.reporting.card import HUB

VOID = {"meta", "img", "br", "link", "input", "hr"}


@dataclass
class Page(HTMLParser):
    """An HTML file as a reader sees it."""

    text: str = ""
    rows: list[list[str]] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)  # by what is said to those who do not see them
    sections: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        assert not [name for name in given if name.startswith("on")], given
        assert tag == "img" or "src" not in given
        if tag == "a":
            self.links.append(str(given["href"]))
        elif tag == "img":
            kind, _, content = str(given["src"]).partition(",")
            assert kind == "data:image/png;base64"
            self.pictures[str(given["alt"])] = base64.b64decode(content)
        elif tag == "section":
            self.sections.append(str(given["id"]))
        elif tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")
        elif tag == "dt":
            self.facts.append(("", ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            assert "url(" not in data
            assert "@import" not in data
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        elif self.open and self.open[-1] in {"dt", "dd"}:
            name, value = self.facts[-1]
            self.facts[-1] = (name + data, value) if self.open[-1] == "dt" else (name, value + data)

    def row(self, cell: str) -> list[str]:
        """The first row of a table that has this cell."""
        return next(row for row in self.rows if cell in row)


def check_page(html: str) -> Page:
    """A page that is whole in itself: well-formed, no script, nothing from elsewhere, pictures that open."""
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == []
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert [link for link in page.links if link.removeprefix("#") not in page.sections] == []
    for caption, content in page.pictures.items():
        assert caption
        with Image.open(io.BytesIO(content)) as picture:
            picture.verify()
    return page


def check_card(path: Path, task: str, figures: dict[str, Any]) -> str:
    """A model card that the Hugging Face hub reads, with these figures; its example runs. Returns what that prints."""
    hub = pytest.importorskip("huggingface_hub", reason="the development group is not installed")
    text = path.read_text(encoding="utf-8")
    card = hub.ModelCard(text)
    assert card.data.library_name == "onnx"
    assert card.data.license is None
    results = {result.metric_name: result for result in card.data.eval_results}
    assert results
    for name, result in results.items():
        assert result.metric_value == pytest.approx(figures[name.removeprefix("test ")], rel=1e-4, abs=1e-5)
        assert card.data.pipeline_tag == (result.task_type if result.task_type in HUB else None)
        assert result.dataset_split == "test"
    assert card.data.model_name == task
    assert card.data.metrics == [result.metric_type for result in results.values()]
    for heading in ("Intended use", "Training data", "Training procedure", "Evaluation", "How to use it", "Limits"):
        assert f"\n## {heading}\n" in card.text
    (example,) = re.findall(r"```python\n(.*?)```", card.text, re.S)
    printed = io.StringIO()
    with contextlib.chdir(path.parent), contextlib.redirect_stdout(printed):
        exec(compile(example, "README.md", "exec"), {})
    assert printed.getvalue().strip()
    return printed.getvalue()
