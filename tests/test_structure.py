"""Who may know what: kinds of data and of problems are asked for in their own modules, and nowhere else."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT
from torchloom.modalities import MODALITIES, Info
from torchloom.problems import problem_names, problem_of

SOURCES = ROOT / "src/torchloom"
KNOWN = {"modalities", "problems"}  # the folders that answer for a kind
OUTSIDE = sorted(path for path in SOURCES.rglob("*.py") if path.relative_to(SOURCES).parts[0] not in KNOWN)


def kinds() -> set[str]:
    """The names of all kinds of data and of problems, and of the classes that stand for them."""
    problems = [problem_of(name) for name in problem_names()]
    infos = {info.__name__ for info in [Info, *MODALITIES.values()]} | MODALITIES.keys()
    return infos | {problem.name for problem in problems} | {type(problem).__name__ for problem in problems}


def questions(tree: ast.AST, names: set[str]) -> Iterator[ast.AST]:
    """Where code asks which kind it has: a comparison with `kind`, isinstance, or a dictionary by kinds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            said = {part.value for side in sides for part in ast.walk(side) if isinstance(part, ast.Constant)}
            if any(getattr(side, "attr", "") == "kind" for side in sides) and said & names:
                yield node
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"isinstance", "issubclass"}:
            if {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)} & names:
                yield node
        elif isinstance(node, ast.Dict):
            keys = {key.value if isinstance(key, ast.Constant) else getattr(key, "id", "") for key in node.keys}
            if len(keys & names) > 1:
                yield node


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(SOURCES)))
def test_no_other_module_asks_which_kind_it_has(path: Path) -> None:
    found = [ast.unparse(node) for node in questions(ast.parse(path.read_text(encoding="utf-8")), kinds())]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        'info.kind == "images"',
        'model.kind in {"images", "documents"}',
        "isinstance(info, ImageInfo)",
        "isinstance(checkpoint.info, ImageInfo | DocumentInfo)",
        "issubclass(type(problem), Classification)",
        '{"images": 1, "text": 2}',
        "{ImageInfo: 1, TableInfo: 2}",
    ],
)
def test_it_would_be_noticed(code: str) -> None:
    assert list(questions(ast.parse(code), kinds()))
