"""The scaling of predictions, as a part of the model."""

import torch
from torch import Tensor, nn

from torchloom.modalities.modules import Scaling


class InUnits(Scaling):
    """Answers (B, 1), or of several networks (B, members, 1), where the target has mean 0 and deviation 1 ->
    predictions (B,) or (B, members) in the target's unit."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, *inputs: Tensor) -> Tensor:
        prediction: Tensor = self.network(*inputs).float() * self.std + self.mean  # 16 bits are not enough for units
        return prediction.squeeze(-1)
