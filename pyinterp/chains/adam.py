"""Adam as a function of the gradient alone, for scores whose step depends on more than a loss."""

from __future__ import annotations

import torch
from torch import Tensor


class Adam:
    """Adam (Kingma and Ba, 2015) on one tensor of any shape; entries share no state.

    Args:
        like: The parameter.
        lr: Step size.
        betas: Decay of the mean and of the mean square of the gradient.
    """

    def __init__(self, like: Tensor, lr: float, betas: tuple[float, float]) -> None:
        self.lr, self.betas, self.steps = lr, betas, 0
        self.mean, self.square = torch.zeros_like(like), torch.zeros_like(like)

    def step(self, gradient: Tensor) -> Tensor:
        """The change of the parameter for this gradient: -lr * m / (sqrt(v) + eps), both bias-corrected."""
        self.steps += 1
        first, second = self.betas
        self.mean.mul_(first).add_(gradient, alpha=1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        size = (self.square / (1 - second**self.steps)).sqrt_().add_(1e-12)
        return -self.lr / (1 - first**self.steps) * self.mean / size
