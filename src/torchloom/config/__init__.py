"""Every parameter that a task's YAML file may hold, with its type, range, unit and default.

Kedro builds these models from conf/<env>/parameters and from `--params` before any node runs, because the node
functions are annotated with them; `checks.py` does it a little earlier, for all tasks at once, to answer
mistakes in one readable message. What is named after a class of PyTorch is checked against the PyTorch installed.
"""

from torchloom.config.answer import AnswerConfig, ContinueConfig, PredictConfig, ServeConfig
from torchloom.config.base import Block, Count, Fit, Fraction, Named, NotNegative, Positive, Seed, ValueRange, Views
from torchloom.config.compression import CompareConfig, DistillConfig, PruneConfig, QuantizeConfig
from torchloom.config.data import AffineConfig, AugmentConfig, ColorConfig, DataConfig, PolicyConfig, SoundAugmentConfig
from torchloom.config.debugging import DebuggingConfig, OverfitConfig, ProfileConfig
from torchloom.config.distributed import DistributedConfig
from torchloom.config.evaluate import EvaluateConfig, EvaluateExamplesConfig, MetricConfig, left_out
from torchloom.config.export import ExportConfig
from torchloom.config.federation import FederatedConfig, PartitionConfig
from torchloom.config.folds import FoldsConfig
from torchloom.config.model import ModelConfig
from torchloom.config.preprocess import (
    AnewConfig,
    ArraysPreprocessConfig,
    BookPreprocessConfig,
    DocumentPreprocessConfig,
    FolderPreprocessConfig,
    LabelledSeriesPreprocessConfig,
    PictureConfig,
    PicturesPreprocessConfig,
    PreprocessConfig,
    RowsPreprocessConfig,
    SeriesPreprocessConfig,
    SoundFilesPreprocessConfig,
    SplitByConfig,
    SplitFolders,
    TableFilesPreprocessConfig,
    TablePlace,
    TablePreprocessConfig,
    TextFilesPreprocessConfig,
    TextPreprocessConfig,
    parts_of,
)
from torchloom.config.sweep import DimensionConfig, PrunerConfig, SamplerConfig, SweepConfig
from torchloom.config.tracking import TrackingConfig
from torchloom.config.train import (
    CallbackConfig,
    ClassLoss,
    FreezeConfig,
    LookaheadConfig,
    LossConfig,
    OptimizerConfig,
    SamConfig,
    SchedulerConfig,
    SwaConfig,
    TrainConfig,
    ValueLoss,
    WhiteningConfig,
    direction,
)

__all__ = [
    "AffineConfig",
    "AnewConfig",
    "AnswerConfig",
    "ArraysPreprocessConfig",
    "AugmentConfig",
    "Block",
    "BookPreprocessConfig",
    "CallbackConfig",
    "ClassLoss",
    "ColorConfig",
    "CompareConfig",
    "ContinueConfig",
    "Count",
    "DataConfig",
    "DebuggingConfig",
    "DimensionConfig",
    "DistillConfig",
    "DistributedConfig",
    "DocumentPreprocessConfig",
    "EvaluateConfig",
    "EvaluateExamplesConfig",
    "ExportConfig",
    "FederatedConfig",
    "Fit",
    "FolderPreprocessConfig",
    "FoldsConfig",
    "Fraction",
    "FreezeConfig",
    "LabelledSeriesPreprocessConfig",
    "LookaheadConfig",
    "LossConfig",
    "MetricConfig",
    "ModelConfig",
    "Named",
    "NotNegative",
    "OptimizerConfig",
    "OverfitConfig",
    "PartitionConfig",
    "PictureConfig",
    "PicturesPreprocessConfig",
    "PolicyConfig",
    "Positive",
    "PredictConfig",
    "PreprocessConfig",
    "ProfileConfig",
    "PruneConfig",
    "PrunerConfig",
    "QuantizeConfig",
    "RowsPreprocessConfig",
    "SamConfig",
    "SamplerConfig",
    "SchedulerConfig",
    "Seed",
    "SeriesPreprocessConfig",
    "ServeConfig",
    "SoundAugmentConfig",
    "SoundFilesPreprocessConfig",
    "SplitByConfig",
    "SplitFolders",
    "SwaConfig",
    "SweepConfig",
    "TableFilesPreprocessConfig",
    "TablePlace",
    "TablePreprocessConfig",
    "TextFilesPreprocessConfig",
    "TextPreprocessConfig",
    "TrackingConfig",
    "TrainConfig",
    "ValueLoss",
    "ValueRange",
    "Views",
    "WhiteningConfig",
    "direction",
    "left_out",
    "parts_of",
]
