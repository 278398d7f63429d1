"""The notebooks: how they lie in the repository, and that they do what they say from a clean state."""

import ast
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from nbformat import NotebookNode

from conftest import ROOT
from processes import answer, free_port

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STRIP = "jupyter nbconvert --inplace --clear-output --ClearMetadataPreprocessor.enabled=True notebooks/*.ipynb"
MADE = {"__pycache__", ".ipynb_checkpoints", ".viz"}  # by Python, Jupyter and kedro-viz; git ignores them

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def contents(project: Path) -> dict[Path, bytes]:
    """Every file outside the sample environment's data."""
    files = (path for path in project.rglob("*") if path.is_file() and not MADE & set(path.parts))
    return {path: path.read_bytes() for path in files if not path.is_relative_to(project / "data/sample")}


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) == 4


@each_notebook
def test_outputs_are_stripped(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    clean = all(not cell.outputs and cell.execution_count is None for cell in cells)
    clean &= notebook.metadata == {"language_info": {"name": "python"}} and not any(cell.metadata for cell in cells)
    assert clean, f"{path.name} has outputs, counts or metadata of a machine. Strip it: uv run {STRIP}"


@each_notebook
def test_code_parses(path: Path) -> None:
    for cell in code_cells(nbformat.read(path, as_version=4)):
        ast.parse(TransformerManager().transform_cell(cell.source))


@pytest.mark.long
def test_the_command_that_strips(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    notebook.metadata["kernelspec"] = {"name": "kedro_torchloom", "display_name": "Kedro (torchloom)"}
    notebook.metadata["language_info"]["version"] = "3.11.0"
    for count, cell in enumerate(code_cells(notebook), 1):
        cell.metadata["collapsed"], cell.execution_count = True, count
        cell.outputs = [nbformat.v4.new_output("stream", text="seen")]
    used = tmp_path / "notebooks" / NOTEBOOKS[0].name
    nbformat.write(notebook, used)
    arguments = [str(used) if "*" in argument else argument for argument in shlex.split(STRIP)]
    subprocess.run([sys.executable, "-m", *arguments], cwd=tmp_path, check=True, capture_output=True)
    assert used.read_bytes() == NOTEBOOKS[0].read_bytes()


@pytest.mark.long
@each_notebook
def test_runs_from_a_clean_state(project: Path, path: Path) -> None:
    """What it claims it asserts itself; it shows pictures; it leaves all but the sample data as it was."""
    (project / "notebooks").mkdir()
    shutil.copy(path, project / "notebooks")
    before = contents(project)
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(project / "notebooks")}}
    NotebookClient(notebook, kernel_name="python3", timeout=300, resources=resources).execute()
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert sum(cell.source.count("assert ") for cell in code_cells(notebook)) >= 3
    assert contents(project) == before
    assert path.stem.startswith("04") or (project / "data/sample/records").is_dir()


@pytest.mark.skipif(find_spec("jupyterlab") is None, reason="needs the extra notebooks")
def test_jupyter_lab_opens(project: Path, tmp_path: Path) -> None:
    """`kedro jupyter lab`, with a kernel that knows the project."""
    port = free_port()
    command = [sys.executable, "-m", "kedro", "jupyter", "lab", "--env", "sample", "--port", str(port), "--no-browser"]
    command += ["--allow-root", "--ServerApp.token="]
    address = f"http://127.0.0.1:{port}/api/kernelspecs"
    kernels = answer(command, project, address, JUPYTER_DATA_DIR=str(tmp_path / "jupyter"), HOME=str(tmp_path))
    assert "Kedro (torchloom)" in kernels
