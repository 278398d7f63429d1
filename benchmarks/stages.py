"""The stages of a classification, as its tasks have them."""

from functools import partial

from torchloom.pipelines.training import nodes
from torchloom.problems import problem_of

CLASSIFICATION = problem_of("classification")

train = partial(nodes.train, problem=CLASSIFICATION)
evaluate = CLASSIFICATION.evaluate
