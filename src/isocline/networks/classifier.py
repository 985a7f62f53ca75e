r"""A small convolutional classifier of 28 x 28 grey images; its last hidden layer serves distances as features.

``logits = W phi(x) + b`` with ``phi(x)`` in ``R^64``: a distance between sets of images compares the distributions of
``phi``, which the classes of clothing shaped, instead of pixels. Like the U-Net it folds 2 x 2 pixels into channels
first, so that most multiplications happen on 14 x 14 and 7 x 7 grids. There is no batch normalisation: the output for
one image never depends on its neighbours in the batch, and averaged weights need no second pass over the data.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from isocline._core.errors import require

FEATURES = 64
GROUPS = 8


class Classifier(nn.Module):
    """Maps grey images (B, 1, 28, 28) in [-1, 1] to logits (B, classes); about 67 000 parameters.

    Args:
        classes: number of classes.

    Raises:
        InvalidInput: the images have another shape.

    Examples:
        >>> sum(p.numel() for p in Classifier().parameters())
        66762
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(4, 32, 3, padding=1), nn.GroupNorm(GROUPS, 32)
        self.conv2, self.norm2 = nn.Conv2d(32, 32, 3, padding=1), nn.GroupNorm(GROUPS, 32)
        self.conv3, self.norm3 = nn.Conv2d(32, 64, 3, padding=1), nn.GroupNorm(GROUPS, 64)
        self.hidden = nn.Linear(64 * 3 * 3, FEATURES)
        self.last = nn.Linear(FEATURES, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, classes)."""
        return self.last(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Return the activations (B, 64) of the last hidden layer."""
        require(x.shape[1:] == (1, 28, 28), f"the classifier takes images (B, 1, 28, 28), got shape {tuple(x.shape)}")
        h = F.silu(self.norm1(self.conv1(F.pixel_unshuffle(x, 2))))
        h = F.max_pool2d(F.silu(self.norm2(self.conv2(h))), 2)
        h = F.max_pool2d(F.silu(self.norm3(self.conv3(h))), 3, stride=2)
        return F.silu(self.hidden(h.flatten(1)))
