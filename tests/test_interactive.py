"""What a notebook's kernel needs beyond a process that ends with its run."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from torchloom.errors import InputError
from torchloom.records.runs import read_runs

STOPPED = """
import _thread, threading, time
from pathlib import Path

states = Path("../data/sample/06_models/linear_regression/training_states")

def stop():
    while not list(states.glob("*.safetensors")):
        time.sleep(0.01)
    _thread.interrupt_main()

threading.Thread(target=stop, daemon=True).start()
session.run(pipeline_names=["linear_regression"])
"""
RELOAD = "%reload_kedro --env sample --params linear_regression.train."
PREDICT = """
from pathlib import Path
features = catalog.load("diabetes_info")["features"]
Path("table.csv").write_text(",".join(features) + "\\n" + ",".join("1" for _ in features) + "\\n")
%reload_kedro --env sample --params predict.model=linear_regression,predict.files=table.csv
session.run(pipeline_names=["predict"])
Path("table.csv").unlink()
print("rows:", catalog.load("predict.predictions").num_rows)
"""
CELLS = {
    "load": "%load_ext kedro.ipython",
    "mistake": RELOAD + "epochs=none",
    "reload": RELOAD + "epochs=1000000",
    "stopped": STOPPED,
    "again": RELOAD + "epochs=3,linear_regression.train.resume=never",
    "run": 'session.run(pipeline_names=["linear_regression"]);',
    "predict": PREDICT,
}


@pytest.fixture
def cells(project: Path) -> dict[str, NotebookNode]:
    """The cells, run below the project's root as notebooks are; those that are to fail may."""
    (project / "notebooks").mkdir()
    made = {name: nbformat.v4.new_code_cell(source) for name, source in CELLS.items()}
    for name in ("mistake", "stopped"):
        made[name].metadata["tags"] = ["raises-exception"]
    notebook = nbformat.v4.new_notebook(cells=list(made.values()))
    resources = {"metadata": {"path": str(project / "notebooks")}}
    NotebookClient(notebook, kernel_name="python3", timeout=300, resources=resources).execute()
    return dict(zip(CELLS, notebook.cells, strict=True))


def text(cell: NotebookNode, stream: str) -> str:
    return "".join(output.text for output in cell.outputs if output.get("name") == stream)


def error(cell: NotebookNode) -> NotebookNode:
    (found,) = [output for output in cell.outputs if output.output_type == "error"]
    return found


@pytest.mark.long
def test_runs_in_a_notebook(project: Path, cells: dict[str, NotebookNode]) -> None:
    """Mistakes come without a traceback, a stopped run lets go of its locks, and files go to the project's folders."""
    assert error(cells["mistake"]).ename == "InputError"
    (shown,) = error(cells["mistake"]).traceback
    assert shown.startswith("Error: the parameters hold one mistake:\n  linear_regression.train.epochs: given 'none'")

    assert error(cells["stopped"]).ename == "KeyboardInterrupt"
    assert "training goes on from its last state with:\nthe same cell" in text(cells["stopped"], "stdout")
    assert "waiting" not in text(cells["run"], "stdout")
    ended = [run["ended"] for run in read_runs(project / "data/sample/records/runs")]
    assert ended == ["interrupted", "finished", "finished"]
    assert "rows: 1" in text(cells["predict"], "stdout")

    assert "linear_regression  test r2" in text(cells["run"], "stdout")
    assert "Loading data from" not in str(cells["run"].outputs)
    assert text(cells["run"], "stderr") == ""
    assert list((project / "notebooks").iterdir()) == []


def test_ipython_shows_the_message_alone() -> None:
    assert InputError("data.yml: no such file")._render_traceback_() == ["Error: data.yml: no such file"]
