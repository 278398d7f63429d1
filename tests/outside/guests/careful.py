"""A problem of one's own that differs from one of torchloom's in what is minimised."""

from torchloom.problems.base import Objective
from torchloom.problems.classification import Classification


class Careful(Classification):
    """Of which each mistake counts twice."""

    def objective(self, config, info) -> Objective:  # type: ignore[no-untyped-def]
        plain = super().objective(config, info)

        def objective(model, batch):  # type: ignore[no-untyped-def]
            mean, figures = plain(model, batch)
            return 2 * mean, figures

        return objective
