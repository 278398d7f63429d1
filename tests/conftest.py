"""A project folder of its own for each test that runs Kedro, so that nothing is written into the repository."""

import atexit
import gc
import io
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache, cached_property
from pathlib import Path
from typing import Any, cast, get_type_hints

if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):  # with it, each of the many processes compiles all libraries anew
    sys.dont_write_bytecode = False
if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for each of the processes that share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from dynaconf.loaders import py_loader
from kedro.config import OmegaConfigLoader
from kedro.framework.context import KedroContext
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog
from kedro.validation import type_extractor
from omegaconf import OmegaConf

import torchloom.system.processes  # noqa: F401  # whose libraries are fewer than those below
from processes import CONTEXT, LIBRARIES, KedroProcess
from torchloom.config.loader import ConfigLoader
from torchloom.records import runs
from torchloom.settings import CONFIG_LOADER_ARGS
from torchloom.system.devices import seed_everything
from torchloom.tasks import tasks_of

CONTEXT.set_forkserver_preload(LIBRARIES)
ROOT = Path(__file__).parents[1]
bootstrap_project(ROOT)
TASKS = tasks_of(ConfigLoader(str(ROOT / "conf"), env="base", **CONFIG_LOADER_ARGS))  # those of the project
SEED = int(os.environ.get("TORCHLOOM_SEED", "0"))  # of the networks: nothing here may hang on one draw of weights

sys.modules.setdefault("ibis", None)  # type: ignore[arg-type]  # Kedro looks for it anew at each parameter

# Settings that make each task small enough for seconds and leave it enough to learn from.
TINY: dict[str, dict[str, Any]] = {
    "mnist_mlp": {"model": {"hidden": [64]}, "train": {"epochs": 3, "batch_size": 64}},
    "mnist_lenet": {"train": {"epochs": 2}},
    "mnist_lstm": {"model": {"width": 48}, "train": {"epochs": 3}},
    "mnist_autoencoder": {"model": {"hidden": [64]}, "train": {"epochs": 4}},
    "mnist_gan": {"model": {"width": 4}, "train": {"epochs": 2}, "generate": {"count": 20}},
    "cifar_cnn": {"model": {"form": "lenet"}, "train": {"epochs": 3, "warmup_epochs": 0.5}},
    "cifar_alexnet": {"data": {"subset": 2400}, "model": {"width": 4}, "train": {"epochs": 3}},
    "cifar_vgg": {"data": {"subset": 2400}, "model": {"width": 8}, "train": {"epochs": 3}},
    "cifar_resnet": {
        "data": {"subset": 1800, "augment": {"cutout": 0}},
        "model": {"width": 8},
        "train": {"epochs": 2, "batch_size": 16, "optimizer": {"lr": 0.02}},
    },
    "cifar_densenet": {
        "data": {"subset": 64, "augment": {"crop_padding": 0, "flip": False}},  # to be learnt by heart
        "model": {"growth": 8, "depth": 10},
        "train": {
            **{"epochs": 30, "batch_size": 16, "warmup_epochs": 0.2},
            "optimizer": {"name": "AdamW", "lr": 0.01, "momentum": None, "nesterov": None},
        },
    },
    "cifar_speedrun": {
        "data": {"subset": 1200},
        "model": {"widths": [8, 16, 16]},
        "train": {"epochs": 3, "batch_size": 100, "accumulate": 1},
    },
    "cifar_speedrun96": {"data": {"subset": 1200}, "model": {"widths": [8, 16, 16]}, "train": {"epochs": 4}},
    "linear_regression": {"train": {"epochs": 100}},
    "pets_unet": {"model": {"width": 6, "depth": 2}, "train": {"epochs": 5}, "evaluate": {"pictures": 4}},
    "wonderland_lstm": {"model": {"width": 64}, "train": {"epochs": 3}, "generate": {"length": 100, "samples": 2}},
    "imdb_lstm": {"model": {"embedding": 16, "width": 16}, "train": {"epochs": 3}},
    "cifar_vit": {
        "data": {"subset": 64, "augment": {"crop_padding": 0, "flip": False, "cutout": 0}},  # to be learnt by heart
        "model": {"width": 24, "layers": 1},
        "train": {"epochs": 30, "batch_size": 16, "warmup_epochs": 0.5, "optimizer": {"lr": 0.005}},
    },
    "cbf_transformer": {"data": {"subset": 300}, "train": {"epochs": 5}},
    "imdb_transformer": {"model": {"width": 16}, "train": {"epochs": 3}},
    "dates_rnn": {"data": {"subset": 2000}, "model": {"width": 32}, "train": {"epochs": 4, "batch_size": 16}},
    "dates_transformer": {
        "data": {"subset": 2000},
        "model": {"width": 32, "layers": 1},
        "train": {"epochs": 6, "batch_size": 16, "warmup_epochs": 0.5, "optimizer": {"lr": 0.01}},
    },
    "wonderland_transformer": {
        "model": {"width": 32, "layers": 1},
        "train": {"epochs": 3, "warmup_epochs": 0.3},
        "generate": {"length": 100, "samples": 2},
    },
}
if SEED:
    for settings in TINY.values():
        settings["train"]["seed"] = SEED


def pytest_configure(config: pytest.Config) -> None:
    """Tests are about CPUs and see no GPU, but for those that a GPU should pass as well, in a run with `-m gpu`.

    On a GPU some of the others would fail: equal bits, threads and the memory of a process are matters of CPUs.
    """
    if not re.search(r"(?<!not )\bgpu\b", config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # read when CUDA starts: here and in all processes of the tests
        for device in (torch.cuda, torch.xpu, torch.mtia):  # each would keep the stack, as text, for when it starts
            device.manual_seed_all = lambda seed: None
    elif not torch.accelerator.is_available():
        raise pytest.UsageError("-m gpu is for a machine with a GPU; without it those tests run on the CPU, as all do")


def pytest_collection_finish() -> None:
    """What is imported stays: to look through all of it again and again is a tenth of the tests' time."""
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # libraries complain of what is left when Python ends
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """What a test draws does not depend on the tests before it in its process."""
    seed_everything(SEED)
    yield
    ConfigLoader.newest = None  # nor does which tasks there are


@pytest.fixture(scope="session")
def exporter() -> None:
    """For tests that export without Kedro."""
    keep_the_exporters_table()


@cache
def keep_the_exporters_table() -> None:
    """torch.onnx reads what it knows of each operator anew for every export: half of the time that small ones take."""
    from torch._export import utils
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    ONNXRegistry.from_torchlib = staticmethod(cache(ONNXRegistry.from_torchlib))  # type: ignore[assignment]
    utils._materialize_cpp_cia_ops = cache(utils._materialize_cpp_cia_ops)  # type: ignore[assignment]


@cache
def keep_what_does_not_change() -> None:
    """Each of many small runs reads the same YAML and inspects the same functions."""
    OmegaConfigLoader.__getitem__ = _kept(OmegaConfigLoader.__getitem__)  # type: ignore[method-assign]
    py_loader.import_from_filename = lambda *_, **__: None  # it looks at the whole stack for a file of settings
    load = OmegaConf.load
    parsed = cache(lambda text: load(io.StringIO(text)))
    OmegaConf.load = staticmethod(  # type: ignore[method-assign]
        lambda file: deepcopy(parsed(file.getvalue())) if isinstance(file, io.StringIO) else load(file)
    )
    type_extractor.get_type_hints = cache(get_type_hints)
    runs.versions = cache(runs.versions)


def _kept(read: Callable[[OmegaConfigLoader, str], dict[str, Any]]) -> Callable[[OmegaConfigLoader, str], Any]:
    """A configuration is put together once for the same files, environment and parameters of a run."""
    answers: dict[Any, bytes] = {}

    def get(loader: OmegaConfigLoader, key: str) -> Any:
        if key in loader.data or key == "credentials":  # set before; read from environment variables, too
            return read(loader, key)
        folders = [Path(loader.conf_source, env) for env in (loader.base_env, loader.env or loader.default_run_env)]
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        texts = frozenset((str(path.relative_to(loader.conf_source)), path.read_bytes()) for path in files)
        whole = "" if folders[0].is_dir() else loader.conf_source  # an archive
        settings = (
            type(loader).__name__,
            whole,
            loader.env,
            loader.base_env,
            loader.default_run_env,
            loader.runtime_params,
            loader.merge_strategy,
        )
        asked = (key, repr(settings), texts)
        if asked not in answers:
            answers[asked] = pickle.dumps(read(loader, key))
        return pickle.loads(answers[asked])

    return get


COMPILER = next((name for name in (os.environ.get("CXX"), "g++", "clang++") if name and shutil.which(name)), None)


@pytest.fixture
def inductor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """For tests that compile networks: on CPUs in less time, as a C++ compiler reads headers for seconds in each file.

    One file is made of a graph, instead of one of each loop, and nothing is optimised, though with the same vectors.
    """
    import torch._inductor.config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch._inductor.config, "fallback_random", True)  # draws what eager draws
    if not torch.accelerator.is_available():
        if COMPILER is None:
            pytest.skip("needs a C++ compiler")
        monkeypatch.setenv("TORCHINDUCTOR_DEBUG_COMPILE", "1")
        for name, value in {"compile_threads": 1, "cpp_wrapper": True, "cpp_cache_precompile_headers": False}.items():
            monkeypatch.setattr(torch._inductor.config, name, value)
    yield
    torch.compiler.reset()


@pytest.fixture(scope="session")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all processes of the tests: torch locks what it writes there."""
    folder = for_all_processes(tmp_path_factory) / "headers"
    folder.mkdir(exist_ok=True)
    return folder


def for_all_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run of the tests that all its processes share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture
def precompiled(inductor: None, monkeypatch: pytest.MonkeyPatch, headers: Path) -> None:
    """`inductor`, with headers compiled once for all tests, which pays from the third graph on."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(headers))
    monkeypatch.setattr(torch._inductor.config, "cpp_cache_precompile_headers", True)


def make_project(folder: Path) -> Path:
    """A copy of the project: its configuration and its code, without data and without a user's own settings."""
    folder.mkdir()
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copy(ROOT / ".telemetry", folder)
    shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    (folder / "conf" / "local").mkdir()
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return folder


class OneContextSession(KedroSession):
    """The context of a run serves afterwards too: it takes a third of a second to read and check all of conf."""

    context: KedroContext | None = None

    def load_context(self) -> KedroContext:
        self.context = self.context or super().load_context()
        return self.context


class CatalogWhenAsked:
    """The catalog of what a run has left, made for those who look into it."""

    def __init__(self, context: KedroContext) -> None:
        self._context = context

    @cached_property
    def _catalog(self) -> DataCatalog:
        return self._context.catalog

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)


def kedro_run(project: Path, pipeline: str, env: str = "sample", **options: Any) -> DataCatalog:
    """Run a pipeline of `project` in this process and return the catalog of what it left.

    `params` are what `--params` would give; all further options are those of KedroSession.run.
    """
    keep_the_exporters_table()
    keep_what_does_not_change()
    bootstrap_project(project)
    with OneContextSession.create(project, env=env, runtime_params=options.pop("params", None)) as session:
        session.run(pipeline_names=[pipeline], **options)
        return cast(DataCatalog, CatalogWhenAsked(session.load_context()))


def kedro(project: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """`kedro …` as a user types it, in a new process, with these environment variables."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        code = KedroProcess(project, *arguments, output=output, errors=errors, environment=variables).wait(300)
        return subprocess.CompletedProcess(arguments, code, output.read_text(), errors.read_text())


def imported_by(code: str) -> set[str]:
    """The modules that a new Python has after it."""
    command = [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project")


@pytest.fixture
def run(project: Path) -> Callable[..., DataCatalog]:
    """`kedro_run` in a project of this test's own."""
    return lambda pipeline, **options: kedro_run(project, pipeline, **options)
