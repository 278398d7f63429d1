"""torchloom: small-data deep learning with PyTorch as Kedro pipelines."""

import os

__version__ = "0.1.0"

# These libraries report to their makers unless they find this when they are imported. Child processes inherit it, and
# what the user has set stays.
for _name, _value in {
    "ORT_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}.items():
    os.environ.setdefault(_name, _value)
