"""torchloom: small-data deep learning with PyTorch as Kedro pipelines."""

__version__ = "0.1.0"
