"""Kedro's settings of this project: https://docs.kedro.org/en/stable/configure/configuration_basics/"""

from torchloom.hooks import ProjectHooks

HOOKS = (ProjectHooks(),)

# Parameters of an environment are merged into those of base key by key, instead of replacing whole blocks.
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {"parameters": "soft"},
}
