"""A node is stale when its parameters, its code, its packages or its inputs are other ones, and only then."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from kedro.framework.project import pipelines
from kedro.framework.startup import bootstrap_project

from conftest import ROOT, kedro, kedro_run, make_project
from torchloom.records import provenance
from torchloom.records.provenance import LineageDataset, code_of
from torchloom.runner import SkipUnchanged
from torchloom.training.checkpoint import Checkpoint

# ---- code ----------------------------------------------------------------------------------------------------------

PACKAGE = {
    "__init__": "",
    "nodes": """
        import json
        import looms.deep.inner
        import numpy as np
        from looms import pictures, shared
        from looms.shared import helper as renamed
        from .kinds import build
        from .stars import *

        LIMIT = 5

        def train(x):
            "What it does."
            from looms.training import loop
            return loop(x, LIMIT)

        def evaluate(x: "int"):
            return pictures.curve(x), renamed(x)

        def export(name):
            return build(name), np.zeros(3)

        def alone():
            return json.dumps([])

        def infer(x):
            return looms.deep.inner.forward(x)

        def tune(x):
            return widest(x) + SEED
    """,
    "deep/__init__": "",
    "deep/inner": """
        def forward(x):
            return x

        def backward(x):
            return x
    """,
    "stars": """
        import os
        from .further import *

        WIDTHS = {}
        WIDTHS.update(hidden=start())

        for kind in ("a", "b"):
            WIDTHS[kind] = 1
            print(kind)

        while not WIDTHS:
            print("empty")

        match os.name:
            case "nt":
                print("Windows")

        if os.cpu_count() > 64:
            LARGE = True

        try:
            SEED = int("7")
        except ValueError:
            SEED = 0

        os.environ["CUDA_ORDER"] = "bus"

        def start():
            return 16

        def aside(x):
            return x
    """,
    "further": """
        def widest(x):
            return x

        def narrowest(x):
            return x
    """,
    "training": """
        def loop(x, limit):
            return step(x)

        def step(x):
            return x

        def unused(x):
            return x
    """,
    "pictures": """
        import matplotlib

        def curve(x):
            return x

        def other(x):
            return x
    """,
    "shared": """
        from looms.errors import WrongError

        def helper(x):
            raise WrongError
    """,
    "errors": """
        class WrongError(ValueError):
            def __init__(self):
                super().__init__(note())

        def note():
            return "wrong"
    """,
    "kinds/__init__": """
        from importlib import import_module

        def build(name):
            return import_module(f"looms.kinds.{name}").build()
    """,
    "kinds/red": "def build():\n    return 1\n",
    "kinds/blue": "def build():\n    return 2\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of its own, without what it imports."""
    folder = tmp_path / "looms"
    for name, text in PACKAGE.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(line[8:] if line.startswith("        ") else line for line in text.splitlines()))
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    __import__("looms")
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "looms"]:
        del sys.modules[name]
    forget()


def forget() -> None:
    provenance._module.cache_clear()
    provenance._path.cache_clear()


def named(function: str) -> Callable[..., Any]:
    def stand_in() -> None: ...

    stand_in.__module__, stand_in.__qualname__ = "looms.nodes", function
    return stand_in


FUNCTIONS = ("train", "evaluate", "export", "alone", "infer", "tune")


def codes(**options: Any) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    forget()
    return {name: code_of(named(name), **options) for name in FUNCTIONS}


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("nodes", "return loop(x, LIMIT)", "return loop(x, LIMIT + 1)", {"train"}),
        ("nodes", "LIMIT = 5", "LIMIT = 6", {"train"}),
        ("nodes", "What it does.", "What it really does.", set()),
        ("nodes", "LIMIT = 5", "LIMIT  =  5  # the most", set()),
        ("nodes", 'x: "int"', 'x: "float"', {"evaluate"}),
        ("training", "return step(x)", "return step(-x)", {"train"}),
        ("training", "return x", "return -x", {"train"}),
        ("training", "def unused(x):", "def unused(x, y):", set()),
        ("pictures", "def curve(x):", "def curve(x, y=0):", {"evaluate"}),
        ("pictures", "def other(x):", "def other(x, y=0):", set()),
        ("errors", '"wrong"', '"very wrong"', {"evaluate"}),
        ("kinds/red", "return 1", "return 3", {"export"}),
        ("kinds/blue", "return 2", "return 3", set()),
        ("deep/inner", "def forward(x):", "def forward(x, y=0):", {"infer"}),
        ("deep/inner", "def backward(x):", "def backward(x, y=0):", set()),
        ("further", "def widest(x):", "def widest(x, y=0):", {"tune"}),
        ("further", "def narrowest(x):", "def narrowest(x, y=0):", set()),
        ("stars", "WIDTHS.update(hidden=", "WIDTHS.update(depth=", {"tune"}),
        ("stars", "return 16", "return 32", {"tune"}),  # as that statement calls it
        ("stars", 'in ("a", "b")', 'in ("a", "c")', {"tune"}),
        ("stars", "print(kind)", "print([kind])", {"tune"}),
        ("stars", "while not WIDTHS", "while WIDTHS", {"tune"}),
        ("stars", 'print("empty")', 'print("full")', {"tune"}),
        ("stars", 'case "nt"', 'case "posix"', {"tune"}),
        ("stars", 'print("Windows")', 'print("Linux")', {"tune"}),
        ("stars", '] = "bus"', '] = "speed"', {"tune"}),
        ("stars", "def aside(x):", "def aside(x, y=0):", set()),
        ("stars", "LARGE = True", "LARGE = False", set()),
        ("stars", "SEED = 0", "SEED = 1", {"tune"}),
        ("stars", "except ValueError", "except TypeError", {"tune"}),
    ],
)
def test_what_a_node_runs_counts_and_nothing_else(
    package: Path, file: str, old: str, new: str, changed: set[str]
) -> None:
    before = codes(names={"red", "and", "others"})
    path = package / f"{file}.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    after = codes(names={"red", "and", "others"})
    assert {name for name in FUNCTIONS if before[name] != after[name]} == changed


def test_without_a_name_all_modules_of_the_package_count(package: Path) -> None:
    assert set(codes()["export"][0]) == {"looms.nodes", "looms.kinds", "looms.kinds.red", "looms.kinds.blue"}


def test_the_packages_are_those_that_are_used(package: Path) -> None:
    packages = {name: set(code[1]) for name, code in codes().items()}
    assert packages == {
        "train": {"python"},
        "evaluate": {"python"},
        "export": {"python", "numpy"},
        "alone": {"python"},
        "infer": {"python"},
        "tune": {"python"},
    }


# ---- a run that skips ----------------------------------------------------------------------------------------------

STAGES = [
    "diabetes.download",
    "diabetes.preprocess",
    "linear_regression.build_dataloaders",
    "linear_regression.train",
    "linear_regression.evaluate",
    "linear_regression.export_onnx",
    "linear_regression.export_formats",
    "linear_regression.report",
]


TASK = "linear_regression"
EXPORTS = {"export_onnx", "export_formats"}
AFTER_TRAINING = {"train", "evaluate", *EXPORTS, "report"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which linear_regression has run."""
    folder = make_project(tmp_path_factory.mktemp("skipping") / "project")
    kedro_run(folder, TASK)
    return folder


def rerun_in_a_new_process(project: Path) -> set[str]:
    """The stages that were not skipped."""
    arguments = ("--env", "sample", "--pipelines", TASK, "--runner", "torchloom.runner.SkipUnchanged")
    result = kedro(project, "run", *arguments)
    assert result.returncode == 0, result.stderr
    return stages_in(result.stdout + result.stderr)


def stages_in(log: str) -> set[str]:
    skipped = {stage.partition(".")[2] for stage in re.findall(r"Skipping node: (\S+): nothing has changed", log)}
    ran = set(re.findall(r"Running node: (\w+):", log))
    assert sorted([*skipped, *ran]) == sorted(stage.partition(".")[2] for stage in STAGES)
    return ran


@pytest.fixture
def rerun(project: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., set[str]]:
    """As above, in this process."""

    def again(**settings: Any) -> set[str]:
        caplog.clear()
        with caplog.at_level("INFO"):
            kedro_run(project, TASK, params={TASK: settings}, runner=SkipUnchanged())
        return stages_in(caplog.text)

    return again


def edit(project: Path, file: str, old: str, new: str) -> None:
    path = project / "src/torchloom" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def own_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which linear_regression has run from its own copy of the code."""
    folder = make_project(tmp_path_factory.mktemp("code") / "project")
    assert rerun_in_a_new_process(folder) == {stage.partition(".")[2] for stage in STAGES}
    return folder


@pytest.mark.long
@pytest.mark.xdist_group("skipping")
def test_code_that_is_changed_runs_again(own_code: Path) -> None:
    edit(own_code, "system/figures.py", "def residuals(", "# how far off\ndef residuals(")
    edit(own_code, "models/mlp.py", "def build(", "UNUSED = 1\n\n\ndef build(")
    edit(own_code, "system/figures.py", "def coefficient_plot(", "def unused() -> None: ...\n\n\ndef coefficient_plot(")
    assert rerun_in_a_new_process(own_code) == set()
    edit(own_code, "reporting/templates/page.html", "</style>", "p { margin: 0 }\n</style>")
    assert rerun_in_a_new_process(own_code) == {"report"}
    edit(own_code, "data/readers/diabetes.py", 'TARGET = "disease progression"', 'TARGET = "disease " + "progression"')
    # the download may draw samples by that module; what both write is the same, so nothing after them has to run
    assert rerun_in_a_new_process(own_code) == {"download", "preprocess"}
    edit(own_code, "models/linear.py", "nn.Linear(", "nn.modules.Linear(")
    assert rerun_in_a_new_process(own_code) == AFTER_TRAINING


@pytest.mark.long
@pytest.mark.xdist_group("skipping")
def test_another_version_of_a_package_runs_again(own_code: Path) -> None:
    version = own_code / "src" / "onnxruntime-0.1.dist-info"  # found before the one that is installed
    version.mkdir()
    (version / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime\nVersion: 0.1\n")
    try:
        assert rerun_in_a_new_process(own_code) == {*EXPORTS, "report"}
    finally:
        (version / "METADATA").unlink()
        version.rmdir()


@pytest.mark.long
@pytest.mark.xdist_group("skipping")
def test_other_files_run_again(project: Path, rerun: Callable[..., set[str]]) -> None:
    data = project / "data/sample"
    (data / f"08_reporting/{TASK}/metrics.json").unlink()
    assert rerun() == {"evaluate"}
    flip_a_bit(data / "03_primary/diabetes/test.safetensors")
    assert rerun() == {"preprocess"}
    flip_a_bit(data / f"06_models/{TASK}/checkpoint.safetensors")
    assert rerun() == {"train", "evaluate", "report"}  # the same weights again, but the history has new times
    flip_a_bit(data / "01_raw/diabetes/diabetes_target.csv")
    assert rerun() == {"download"}
    (data / f"records/nodes/{TASK}.build_dataloaders.json").write_text("{")
    assert rerun() == {"build_dataloaders"}


@pytest.mark.xdist_group("skipping")
def test_a_run_says_when_it_builds_upon_something_stale(
    project: Path, rerun: Callable[..., set[str]], caplog: pytest.LogCaptureFixture
) -> None:
    rerun()
    caplog.clear()
    warning = "this run builds upon files that are not what the project would make now"
    kedro_run(project, TASK, tags=["evaluate", "export_onnx"])
    assert warning not in caplog.text
    kedro_run(project, TASK, tags=["evaluate"], params={TASK: {"train": {"epochs": 9}}})
    assert warning in caplog.text
    assert re.search(rf"  {TASK}\.train: {TASK}\.train\.epochs: \d+, now 9", caplog.text)
    assert f"--from-nodes {TASK}.train" in caplog.text  # what the loaders hold is as it was


@pytest.mark.xdist_group("skipping")
def test_a_record_says_what_made_the_outputs(project: Path) -> None:
    record = json.loads((project / f"data/sample/records/nodes/{TASK}.train.json").read_text())
    assert record["node"] == f"{TASK}.train"
    assert record["parameters"][f"params:{TASK}.train"]["optimizer"]["name"]
    assert "torchloom.training.loop" in record["code"]
    assert record["packages"]["torch"]
    assert record["inputs"][f"{TASK}.dataloaders"].startswith("sha256:")
    assert set(record["outputs"]) == {
        f"{TASK}.{name}" for name in ("checkpoint", "last_checkpoint", "history", "profile")
    }
    assert 0 < record["seconds"] < 600
    assert datetime.fromisoformat(record["end"]) < datetime.now().astimezone()


@pytest.mark.xdist_group("skipping")
def test_a_lineage_leads_back_to_the_data_whatever_the_times(project: Path, rerun: Callable[..., set[str]]) -> None:
    rerun()
    places = {name: {"filepath": str(project / "data/sample/records")} for name in ("data", "results")}
    dataset = LineageDataset(task=TASK, **places)
    lineage, before = dataset.load(), dataset.fingerprint()
    order = [record["node"] for record in lineage.nodes]
    assert sorted(order) == sorted(STAGES[:-1])  # all but the report, which reads it
    assert order.index("diabetes.preprocess") < order.index(f"{TASK}.train") < order.index(f"{TASK}.evaluate")
    assert {record["run"] for record in lineage.nodes} == lineage.runs.keys()
    assert lineage.runs[lineage.nodes[-1]["run"]]["environment"] == "sample"

    path = project / f"data/sample/records/nodes/{TASK}.train.json"
    text = path.read_text()
    path.write_text(json.dumps({**json.loads(text), "seconds": 9e9, "end": "2001-01-01T00:00:00+00:00", "run": "x"}))
    assert dataset.fingerprint() == before
    path.write_text(json.dumps({**json.loads(text), "parameters": {}}))
    assert dataset.fingerprint() != before
    path.write_text(text)


@pytest.mark.xdist_group("skipping")
def test_other_parameters_run_again(rerun: Callable[..., set[str]], caplog: pytest.LogCaptureFixture) -> None:
    rerun()
    assert rerun() == set()
    assert rerun(export={"batch_sizes": [2]}) == {*EXPORTS, "report"}
    assert f"{TASK}.export.batch_sizes: [1, 3, 64], now [2]" in caplog.text
    assert rerun(export={"batch_sizes": [2]}, train={"resume": "never", "keep_states": 7}) == set()
    assert rerun(export={"batch_sizes": [2]}, train={"epochs": 9}) == AFTER_TRAINING
    assert rerun(export={"batch_sizes": [2]}, train={"batch_size": 200}) == {"build_dataloaders", *AFTER_TRAINING}


# ---- members, and what is asked of a problem ----

SHAPES = """
from functools import partial

SIDES = 4
FACTOR = 2


class Shape:
    corners = 3
    half = corners / 2
    told = "never read"

    def area(self, scale=FACTOR):
        return scale * self.inner()

    def inner(self):
        return self.width

    @property
    def width(self):
        return 5

    def drawn(self):
        return "nobody asks"

    def __len__(self):
        return 7


class Square(Shape):
    def inner(self):
        return super().inner() + 11


def measure(shape: Shape, step=SIDES):
    squares = [Square(), Shape]
    if not shape:
        raise ValueError(f"no shape of {13} sides")
    return shape.area() + shape.half + getattr(shape, "corners") + len(squares) + step


bound = partial(measure, Square())
"""


@pytest.mark.parametrize(
    ("before", "after", "counts"),
    [
        ("return scale * self.inner()", "return scale + self.inner()", True),
        ("return self.width", "return 2 * self.width", True),
        ("return 5", "return 6", True),
        ("super().inner() + 11", "super().inner() + 12", True),
        ("return 7", "return 8", True),  # which len asks for, and no name
        ("corners = 3", "corners = 4", True),
        ("half = corners / 2", "half = corners / 3", True),
        ("FACTOR = 2", "FACTOR = 3", True),  # in a default
        ("SIDES = 4", "SIDES = 5", True),
        ("{13} sides", "{13} edges", False),  # a message
        ('"nobody asks"', '"nobody asks at all"', False),
        ('"never read"', '"never"', False),
    ],
)
@pytest.mark.parametrize("start", ["measure", "bound"])
def test_of_classes_the_members_that_are_named_count(
    package: Path, start: str, before: str, after: str, counts: bool
) -> None:
    def code() -> tuple[dict[str, str], dict[str, str]]:
        forget()
        module = __import__("looms.shapes", fromlist=["shapes"])
        return code_of(getattr(module, start))

    (package / "shapes.py").write_text(SHAPES)
    first = code()
    assert before in SHAPES
    (package / "shapes.py").write_text(SHAPES.replace(before, after))
    assert (code() != first) is counts


@pytest.mark.long
@pytest.mark.parametrize(
    ("task", "stage", "file", "before", "after"),
    [
        (
            "pets_unet",
            "export_onnx",
            "problems/segmentation/__init__.py",
            "len(_classes(info))}",
            "1 * len(_classes(info))}",
        ),
        ("linear_regression", "export_onnx", "problems/regression/scaling.py", "* self.std +", "* 1 * self.std +"),
        ("wonderland_lstm", "export_onnx", "problems/language_model/__init__.py", "tensor_split(2", "tensor_split(3"),
        ("wonderland_lstm", "generate", "models/language_rnn.py", "self.dropout(", "1 * self.dropout("),
        ("mnist_mlp", "report", "reporting/templates/images.md", "Images go in", "All images go in"),
        ("mnist_mlp", "report", "reporting/page.py", "base64.b64encode(", "1 * base64.b64encode("),
    ],
)
def test_what_a_stage_asks_of_its_problem_counts(
    monkeypatch: pytest.MonkeyPatch, task: str, stage: str, file: str, before: str, after: str
) -> None:
    bootstrap_project(ROOT)
    (node,) = [node for node in pipelines[task].nodes if node.name == f"{task}.{stage}"]
    loaded = [Checkpoint] if any(name.endswith("checkpoint") for name in node.inputs) else []
    network = {"pets_unet": "unet", "linear_regression": "linear", "mnist_mlp": "mlp"}.get(task, "language_rnn")
    problem = {"pets_unet": "segmentation", "linear_regression": "regression", "mnist_mlp": "classification"}
    names = {task, network, problem.get(task, "language_model")}

    def code() -> Any:
        forget()
        return code_of(node.func, *loaded, names=names)

    first = code()
    real = Path.read_text
    source = ROOT / "src/torchloom" / file
    assert before in source.read_text()

    def edited(path: Path, *arguments: Any, **options: Any) -> str:
        text = real(path, *arguments, **options)
        return text.replace(before, after) if path.resolve() == source.resolve() else text

    monkeypatch.setattr(Path, "read_text", edited)
    changed = code() != first
    monkeypatch.undo()
    forget()
    assert changed
