"""Kedro's settings of this project: https://docs.kedro.org/en/stable/configure/configuration_basics/"""

from torchloom.config.loader import ConfigLoader
from torchloom.hooks import ProjectHooks

HOOKS = (ProjectHooks(),)
# MLflow is shown what the block `tracking` asks for, and nothing else; see torchloom/records/tracking.py.
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-mlflow", "kedro_mlflow")

CONFIG_LOADER_CLASS = ConfigLoader  # the tasks are in the parameters
# Parameters of an environment are merged into those of base key by key, instead of replacing whole blocks.
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {"parameters": "soft"},
    "config_patterns": {"mlflow": ["mlflow*"]},
}
