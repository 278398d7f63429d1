from torchloom.pipelines.folds.pipeline import create_pipeline

__all__ = ["create_pipeline"]
