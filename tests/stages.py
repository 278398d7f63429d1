"""The stages of some problems, as their tasks have them."""

from functools import partial

from torchloom.pipelines.training import nodes
from torchloom.problems import problem_of

CLASSIFICATION = problem_of("classification")

train = partial(nodes.train, problem=CLASSIFICATION)
evaluate = CLASSIFICATION.evaluate
train_regressor = partial(nodes.train, problem=problem_of("regression"))
