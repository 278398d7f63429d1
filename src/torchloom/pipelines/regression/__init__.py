from torchloom.pipelines.regression.pipeline import create_pipeline

__all__ = ["create_pipeline"]
