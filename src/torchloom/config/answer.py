"""The blocks `predict` and `serve`, and how a text is continued."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from torchloom.config.base import Block, Count, Fit, NotNegative, Place, Seed, ValueRange, Views


class ContinueConfig(Block):
    """How a text is continued by a language model."""

    length: Count = Field(200, description="characters to write after the prompt")
    temperature: NotNegative = Field(0.7, description="divides the logits; 0 takes the likeliest character each time")
    top_k: Count | None = Field(None, description="draw from so many likeliest characters only")
    seed: Seed = Field(0, description="draws the characters")


class AnswerConfig(Block):
    """How an exported model is asked, by `predict` and by `serve`."""

    models: str = Field(description="the folder that has the models of the tasks")
    top: Count = Field(3, description="likeliest classes in an answer")
    fit: Fit | None = Field(None, description="as preprocess.fit; none: as the model was trained")
    value_range: ValueRange | None = Field(
        None, description="as preprocess.value_range; none: as the model was trained"
    )
    views: Views | None = Field(None, description="as evaluate.views; none: as the model was evaluated")
    invert: bool = Field(False, description="swap light and dark: MNIST's digits are white on black")
    generate: ContinueConfig = Field(
        default_factory=ContinueConfig, description="of language models: how each text is continued"
    )
    beam: Count | None = Field(None, description="as evaluate.beam; none: as the model was evaluated")
    threads: Count | None = Field(None, description="CPU threads of ONNX Runtime; none takes all cores")


class PredictConfig(AnswerConfig):
    """The block `predict`: a trained model, and a user's own files or what an entry of the catalog holds."""

    model: str = Field(description="a task that was exported; or a .onnx file, or a checkpoint (.safetensors)")
    files: Place | None = Field(
        None,
        description="pictures, texts or CSV files: a folder, looked through with all below it, or one file, by a path "
        "or an address such as s3://bucket/folder/; of one text file each line is a text of its own",
    )
    entry: str | None = Field(
        None,
        min_length=1,
        description="instead of files an entry of the catalog that is a table, as preprocess.entry; its rows are "
        "answered as those of a file are",
    )
    credentials: str | None = Field(None, min_length=1, description="of files at an address, as preprocess.credentials")
    folder: str | None = Field(
        None,
        min_length=1,
        description="where the paths in a table of pictures or sounds begin; none: in the folder of the table or, of "
        "what is not there, where they did in training",
    )
    holdout: bool = Field(
        False,
        description="of series that are forecast: as many of the last rows as are forecast are held back, and what is "
        "forecast of them from the rows before is judged",
    )
    batch_size: Count = Field(128, description="samples at once")
    pictures: Count = Field(45, description="on the contact sheet")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.files is not None and self.entry is not None:
            raise ValueError("must say what is to be answered by either files or entry, and leave the other out")
        return self


class ServeConfig(AnswerConfig):
    """The block `serve`: what `kedro serve` takes in one request."""

    megabytes: Count = Field(10, description="greatest size of a request's body, in 10^6 bytes")
    most: Count = Field(100, description="texts, prompts or rows in one request")
