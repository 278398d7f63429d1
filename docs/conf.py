"""Sphinx's settings: uv run sphinx-build -W docs docs/_build. The reference of the parameters is written before it."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

project = "torchloom"
extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "torchloom"
html_show_copyright = False
html_show_sphinx = False


def _write_reference(app: Sphinx) -> None:
    from parameters import parameter_pages  # beside this file

    folder = Path(app.srcdir) / "reference"
    pages = parameter_pages(Path(app.srcdir).parent)
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", _write_reference)
