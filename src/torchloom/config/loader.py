"""Kedro's loader of configuration, which says where each parameter stands and hands the newest parameters on.

Kedro makes a loader for each session and asks for the pipelines afterwards, without saying for which session. The tasks
are in the parameters, so whoever makes pipelines takes the newest loader.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar

import yaml
from kedro.config import AbstractConfigLoader, MissingConfigException, OmegaConfigLoader
from kedro.framework import project
from kedro.io import DatasetError
from kedro.utils import find_kedro_project
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from torchloom.config.catalog import mistakes_of_entries, why_not_made
from torchloom.config.checks import check_yaml, odd_numbers, unknown
from torchloom.config.entries import has_ours, names_in, written_out
from torchloom.config.files import mistake, mistakes_of_globals, unread, with_homes
from torchloom.config.layers import Files, has_key, without_superseded
from torchloom.errors import InputError

logger = logging.getLogger(__name__)


class ConfigLoader(OmegaConfigLoader):
    newest: ClassVar[ConfigLoader | None] = None

    def __init__(self, *args: Any, **options: Any) -> None:
        self._base: Files = {}  # the parameters of base, and those above them
        self._above: list[Mapping[str, Any]] = []
        self.files: dict[str, list[Path]] = {}  # of each block of parameters, as far as they were read
        self.coming: set[str] = set()  # data sets that the catalog should have beside those in the parameters
        try:
            super().__init__(*args, **options)
        except OmegaConfBaseException as error:  # the one thing that it reads already
            raise InputError(f"globals.yml: {str(error).partition(chr(10))[0]} at {error.full_key}") from error
        self["globals"] = with_homes(self._globals)
        type(self).newest = self
        if project.PACKAGE_NAME:  # the pipelines that Kedro keeps may be those of another environment
            project.pipelines.configure(f"{project.PACKAGE_NAME}.pipeline_registry")

    def __getitem__(self, key: str) -> Any:
        found = super().__getitem__(key)
        if key != "catalog" or key in self.data:
            return found
        if wrong := list(mistakes_of_entries(found, self._names_of_credentials)):
            raise InputError("\n".join(f"{self.place_of_entry(name)}: {why}" for name, why in wrong))
        if not has_ours(found):
            return found
        names = names_in(read_parameters(self))
        return written_out(found, {**names, "{data}": names["{data}"] | self.coming})

    def _names_of_credentials(self) -> list[str]:
        try:
            return list(self["credentials"])
        except MissingConfigException:
            return []

    def place_of_entry(self, name: str) -> str:
        """An entry of the catalog with its file, that of the environment first."""
        folder = Path(self.conf_source) / self._environment
        files = sorted(self._paths(["catalog"]), key=lambda path: not path.is_relative_to(folder))
        there = (f"{path}: {name}" for path in files if name in (OmegaConf.load(path) or ()))
        return next(there, name)

    def _read_dir_configs(self, conf_path: str, patterns: Iterable[str], key: str, *rest: Any) -> dict[Path, Any]:
        found: dict[Path, Any] = super()._read_dir_configs(conf_path, patterns, key, *rest)
        if key == "parameters":
            refuse_odd_numbers({Path(path): Path(path).read_bytes() for path in found if Path(path).is_file()})
            for path, config in found.items():
                for block in config if isinstance(config, dict) or hasattr(config, "keys") else ():
                    self.files.setdefault(str(block), []).append(path)
        return found

    def _read_raw_config(self, key: str) -> Any:
        try:
            base, environment, *rest = super()._read_raw_config(key)
        except (ValueError, YAMLError, OSError, AttributeError, OmegaConfBaseException, RecursionError):
            for path in self._paths([key]):
                if wrong := mistake(path):
                    raise InputError(wrong) from None
            raise
        if key == "parameters":
            base, environment = without_superseded(base, environment, self.runtime_params or {})
            self._above = [*environment.values(), self.runtime_params or {}]
            self._base = base
        return base, environment, *rest

    def inherited(self, key: str) -> Path | None:
        """The file of base in which the parameter of that full key stands, if it is from none above it."""
        if any(has_key(layer, key) for layer in self._above):
            return None
        return next((path for path, config in self._base.items() if has_key(config, key)), None)

    def _paths(self, kinds: Iterable[str]) -> list[Path]:
        """The files of base and the environment that are read for `kinds` of configuration, in order."""
        folders = [Path(self.conf_source) / name for name in dict.fromkeys([self.base_env, self._environment])]
        patterns = [pattern for kind in kinds for pattern in self.config_patterns[kind]]
        found = {
            Path(path)
            for folder in folders
            for each in patterns
            for path in self._fs.glob(f"{folder.as_posix()}/{each}")
        }
        return sorted(path for path in found if path.is_file())

    @property
    def _environment(self) -> str:
        return str(self.env or self.default_run_env)

    def check_files(self) -> None:
        """InputError when `globals.yml` says what nothing reads, or what can be no folder; other files that count for
        nothing are named."""
        if not Path(self.conf_source).is_dir():
            return  # an archive, or at an address
        folders = {name: Path(self.conf_source) / name for name in (self.base_env, self._environment)}
        if wrong := list(mistakes_of_globals(self["globals"], Path(self.conf_source))):
            paths = [folder / "globals.yml" for folder in folders.values()]
            raise InputError(f"{[path for path in paths if path.exists()][-1]}: {'; '.join(wrong)}")
        read = self._paths(self.config_patterns)
        for path in (path for folder in folders.values() for path in unread(folder, read)):
            logger.warning(
                "%s: nothing reads this file. Parameters belong in the folder parameters, entries of the catalog in "
                "files catalog*.yml, where data lie in globals.yml",
                path,
            )


def read_parameters(loader: AbstractConfigLoader) -> dict[str, Any]:
    """Those of the loader's environment, read once; InputError when they cannot be read."""
    try:
        if "parameters" not in loader.data:
            check_yaml(Path(loader.conf_source))
            loader["parameters"] = loader["parameters"]
        parameters: dict[str, Any] = loader["parameters"]
    except (MissingConfigException, ValueError, YAMLError, OmegaConfBaseException, RecursionError) as error:
        name = loader.env or getattr(loader, "default_run_env", None)
        raise InputError(f"the configuration of the environment {name!r} cannot be read: {error}") from error
    return parameters


def refuse_odd_numbers(texts: Mapping[Path, bytes]) -> None:
    """InputError when one of these files has what YAML reads as another number than who writes it."""
    if wrong := [f"{path}: {line}" for path, text in texts.items() for line in odd_numbers(text)]:
        raise InputError("\n".join(wrong))


def check_entries(loader: AbstractConfigLoader, catalog: Any, names: Iterable[str]) -> None:
    """InputError when one of these entries of the catalog cannot be made of what its file says."""
    for name in names:
        try:
            catalog.get(name)
        except InputError:
            raise
        except DatasetError as error:
            entry = loader["catalog"].get(name, {})
            place = loader.place_of_entry(name) if isinstance(loader, ConfigLoader) else name
            raise InputError(f"{place}: {why_not_made(error, entry.get('type'))}") from error


def credentials_of(loader: AbstractConfigLoader, name: str | None, key: str) -> dict[str, Any]:
    """The entry `name` of the credentials; InputError, which names the parameter `key`, when there is no such entry."""
    if not name:
        return {}
    try:
        known = loader["credentials"]
    except MissingConfigException:
        known = {}
    except (ValueError, YAMLError, OmegaConfBaseException, RecursionError) as error:  # which may quote what it read
        raise InputError(f"{key} {name}: credentials.yml cannot be read ({type(error).__name__})") from None
    if not isinstance(known.get(name), dict):
        raise InputError(f"{key}: given {name!r}; {unknown(name, known, 'entry of conf/local/credentials.yml')}")
    return dict(known[name])


def newest_loader() -> ConfigLoader:
    """That of the newest session; where there was none yet, one for the environment that KEDRO_ENV names."""
    if ConfigLoader.newest is None:
        folder = find_kedro_project(Path.cwd()) or Path.cwd()
        source = str(folder / project.settings.CONF_SOURCE)
        ConfigLoader(source, env=os.environ.get("KEDRO_ENV"), **project.settings.CONFIG_LOADER_ARGS)
    assert ConfigLoader.newest is not None
    return ConfigLoader.newest


# ---- writing -------------------------------------------------------------------------------------------------------


def check_name(name: str, loader: ConfigLoader) -> None:
    """InputError when Kedro would not read parameters/<name>.yml as parameters alone."""
    for kind, patterns in loader.config_patterns.items():
        if kind != "parameters" and any(fnmatch(f"parameters/{name}.yml".lower(), each) for each in patterns):
            raise InputError(f"{name}: Kedro reads files of such names as its {kind}. Choose another name")


def as_yaml(blocks: dict[str, Any]) -> str:
    """A file of parameters that is read as what `blocks` are; InputError where there is none, as with ${…} in them."""
    written: str = yaml.safe_dump(blocks, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    try:
        read = OmegaConf.to_container(OmegaConf.load(io.StringIO(written)), resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(
            f"{error.full_key}: has ${{…}}, in place of which a file of parameters gets something else. Rename it"
        ) from error
    if odd := _odd(blocks, read):
        raise InputError(f"{odd[0]!r} would be read as something else from a file of parameters. Rename it")
    return written


def _odd(value: Any, read: Any) -> list[Any]:
    """What is read as something else."""
    if isinstance(value, dict) and isinstance(read, dict):
        inner = [odd for key in value.keys() & read.keys() for odd in _odd(value[key], read[key])]
        return [key for key in value if key not in read] + inner
    return [] if value == read else [value]
