"""Who may know what: a folder knows those below it, and kinds are asked for in their own modules alone."""

import ast
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
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


# ---- who imports whom ----------------------------------------------------------------------------------------------

FLOORS = [  # each knows those before it; modules that lie flat in the package are floors of their own
    *("errors", "system", "config", "datasets", "data", "modalities", "models", "problems", "training"),
    *("export", "inference", "compression", "federated", "records", "reporting", "pipelines"),
    *(
        "tasks",
        "runner",
        "run_options",
        "sweeps",
        "tuning",
        "hooks",
        "cli",
        "pipeline_registry",
        "settings",
        "__main__",
    ),
]


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that one of it imports, also within functions, but not for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    never = {
        part
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for statement in node.body
        for part in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in never:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("torchloom"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torchloom"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                place = SOURCES.joinpath(*whole.split(".")[1:])
                yield whole if place.is_dir() or place.with_suffix(".py").is_file() else str(node.module)


def floor(module: str) -> int | None:
    """Its place among the floors; None of the package itself."""
    parts = module.split(".")
    return FLOORS.index(parts[1]) if len(parts) > 1 else None


def test_the_floors_are_the_folders_and_modules_that_there_are() -> None:
    there = {path.stem for path in SOURCES.glob("*.py")} | {path.parent.name for path in SOURCES.glob("*/*.py")}
    assert there - {"__init__", SOURCES.name} == set(FLOORS)


@pytest.mark.parametrize("path", sorted(SOURCES.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCES)))
def test_no_import_goes_up_a_floor(path: Path) -> None:
    module = ".".join(("torchloom", *path.relative_to(SOURCES).with_suffix("").parts)).removesuffix(".__init__")
    own = floor(module)
    found = list(imported(path))
    assert all(find_spec(name.partition(".")[0]) for name in found)
    if own is not None:
        assert [name for name in found if (floor(name) or 0) > own] == []


def test_an_import_that_goes_up_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("def f():\n    from torchloom.training import loop\n")
    assert [floor(name) for name in imported(tmp_path / "module.py")] == [FLOORS.index("training")]


def test_nothing_lies_at_the_top_that_does_not_belong_there() -> None:
    """What a build or a trial has left may be committed with the rest in one sweep."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no clone")
    folders = {name.partition("/")[0] for name in listed.stdout.splitlines() if "/" in name}
    assert folders == {".ci", ".vscode", "benchmarks", "conf", "data", "docs", "notebooks", "src", "tests"}
