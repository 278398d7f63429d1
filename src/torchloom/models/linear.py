"""Linear regression as a network of one layer; with train.l2 it is ridge, with train.l1 the lasso.

Gauss, "Theoria motus corporum coelestium", 1809; Hoerl & Kennard, "Ridge regression", Technometrics 12, 1970;
Tibshirani, "Regression shrinkage and selection via the lasso", JRSS B 58, 1996.
"""

from torch import Tensor, nn

from torchloom.models._layers import Initialization, initialize


def build(features: int, outputs: int, *, bias: bool = True, initialization: Initialization = "default") -> nn.Module:
    """Features (B, `features`) -> predictions (B, `outputs`)."""
    return initialize(Linear(features, outputs, bias), initialization)


class Linear(nn.Module):
    def __init__(self, features: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(features, outputs, bias)

    def forward(self, x: Tensor) -> Tensor:
        prediction: Tensor = self.layer(x)  # (B, outputs)
        return prediction
