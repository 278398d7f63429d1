"""`torchloom …`, with a project's folder around it or without."""

import csv
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT, make_project
from torchloom.__main__ import main
from torchloom.system.locks import command

GUIDE = ROOT / "docs/how-to/installed.md"
PACK, *LINES = [
    line for block in re.findall(r"```bash\n(.*?)```", GUIDE.read_text(), re.DOTALL) for line in block.splitlines()
]
PREPARE = ["--pipelines", "linear_regression", "--to-nodes", "linear_regression.build_dataloaders", "--env", "sample"]

COLUMNS = ["age", "sex", "body mass index", "average blood pressure", "s1 total serum cholesterol"]
COLUMNS += ["s2 low-density lipoproteins", "s3 high-density lipoproteins", "s4 total cholesterol / HDL"]
COLUMNS += ["s5 log of serum triglycerides", "s6 blood sugar"]


def started(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments, standalone_mode=True)
    return int(end.value.code or 0)


@pytest.mark.parametrize("first", [[], ["run"]])
@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_with_a_configuration_is_enough(
    first: list[str], packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "conf", tmp_path / "conf", ignore=shutil.ignore_patterns("local"))
    if packed:
        with tarfile.open("conf.tar.gz", "w:gz") as archive:
            archive.add("conf")
        shutil.rmtree("conf")
    source = ["--conf-source", "conf.tar.gz"] if packed else []
    assert started(*first, *PREPARE, *source) == 0
    assert (tmp_path / "data/sample/05_model_input/linear_regression/dataloaders.json").is_file()


def test_it_has_the_commands_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "conf", tmp_path / "conf", ignore=shutil.ignore_patterns("local"))
    assert started("task", "list", "--env", "sample") == 0
    assert re.search(r"^mnist_mlp +classification +mnist +not trained here$", capsys.readouterr().out, re.MULTILINE)
    assert started("rnu") == 2
    assert "No such command 'rnu'" in capsys.readouterr().err
    main(["--version"])
    assert capsys.readouterr().out.startswith("torchloom 0.")


def test_what_is_said_to_be_typed_again_is_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, typed in {
        "/env/bin/torchloom": "torchloom",
        "/env/lib/torchloom/__main__.py": "python -m torchloom",
        "/env/bin/kedro": "kedro",
    }.items():
        monkeypatch.setattr(sys, "argv", [name, "run"])
        assert command() == f"{typed} run"


@pytest.mark.long
def test_the_guide(tmp_path: Path) -> None:
    """Packed, installed into an environment of its own and run in an empty folder, with the lines of the guide."""
    project, folder = make_project(tmp_path / "project"), tmp_path / "elsewhere"
    shutil.copy(ROOT / "README.md", project)
    assert PACK == "uv run kedro package"
    subprocess.run([sys.executable, "-m", "kedro", "package"], cwd=project, check=True)
    shutil.copytree(project / "dist", folder / "dist")
    shutil.rmtree(project)
    with (folder / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, [0.0] * 10, [0.01] * 10])
    (folder / "photos").mkdir()
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(folder / "photos/dark.png")
    ours = {"PYTHONPATH", "VIRTUAL_ENV", "KEDRO_ENV", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT"}  # or uv would install here
    kept = {key: value for key, value in os.environ.items() if key not in ours}
    variables = {**kept, "KEDRO_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    script = "\n".join(["set -e", *LINES])
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(
        r"^\d\d:\d\d:\d\d  finished in \d+ s$", done.stdout + done.stderr, re.MULTILINE
    )  # as logging.yml has it
    assert re.search(r"^mnist_mlp +classification +mnist +accuracy 0\.[5-9]", done.stdout, re.MULTILINE)
    assert re.search(r"^linear_regression +regression +diabetes +\S+ [\d.]", done.stdout, re.MULTILINE)
    rows = list(csv.DictReader((folder / "data/sample/07_model_output/predict/predictions.csv").open()))
    assert [row["file"] for row in rows] == ["dark.png"]
    assert re.search(r"\b2 predictions, 0 unreadable", done.stdout + done.stderr)  # of the table, before those
