"""Kedro's loader of configuration, which says where each parameter stands and hands the newest parameters on.

Kedro makes a loader for each session and asks for the pipelines afterwards, without saying for which session. The tasks
are in the parameters, so whoever makes pipelines takes the newest loader.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar

import yaml
from kedro.config import AbstractConfigLoader, MissingConfigException, OmegaConfigLoader
from kedro.framework import project
from kedro.utils import find_kedro_project
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from torchloom.config.checks import check_yaml, unknown
from torchloom.errors import InputError


class ConfigLoader(OmegaConfigLoader):
    newest: ClassVar[ConfigLoader | None] = None

    def __init__(self, *args: Any, **options: Any) -> None:
        self.files: dict[str, list[Path]] = {}  # of each block of parameters, as far as they were read
        super().__init__(*args, **options)
        type(self).newest = self
        if project.PACKAGE_NAME:  # the pipelines that Kedro keeps may be those of another environment
            project.pipelines.configure(f"{project.PACKAGE_NAME}.pipeline_registry")

    def _read_dir_configs(self, conf_path: str, patterns: Iterable[str], key: str, *rest: Any) -> dict[Path, Any]:
        found: dict[Path, Any] = super()._read_dir_configs(conf_path, patterns, key, *rest)
        if key == "parameters":
            for path, config in found.items():
                for block in config if isinstance(config, dict) or hasattr(config, "keys") else ():
                    self.files.setdefault(str(block), []).append(path)
        return found


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
