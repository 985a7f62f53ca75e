r"""Dynamic thresholding of data predictions (Saharia et al., Imagen, arXiv 2205.11487, section 2.3).

Strong guidance pushes data predictions ``D`` out of the range of the data, and the next state is then one the network never saw.
For each sample, with ``q`` the quantile ``p`` of ``|D|`` over all its entries, raised to the range ``f`` of the data,

    q = max(quantile_p(|D|), f) ,      D <- f / q clip(D, -q, q) .

Where ``|D|`` stays in the range nothing changes; else the prediction is clipped and scaled back into it. A cap on ``q`` bounds
how far the prediction is scaled; a cap equal to ``f`` is plain clipping. DPM-Solver++ (arXiv 2211.01095) uses it on pixels.
Latents have no known range.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.files import finite
from isocline._core.registry import Method

IMAGEN = Method(
    "dynamic-thresholding",
    "Dynamic thresholding",
    "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding",
    "Chitwan Saharia, William Chan, Saurabh Saxena, Lala Li, Jay Whang, Emily Denton, Seyed Kamyar Seyed Ghasemipour, "
    "Burcu Karagol Ayan, S. Sara Mahdavi, Rapha Gontijo Lopes, Tim Salimans, Jonathan Ho, David J. Fleet, Mohammad Norouzi",
    2022,
    "2205.11487",
    room="plans",
    when="Strong guidance on data with a known range, such as pixels; not on latents.",
)


@IMAGEN.variant()
@dataclass(frozen=True)
class Threshold:
    """Dynamic thresholding: what a plan does to each data prediction before a row uses it.

    Args:
        quantile: the share ``p`` of a sample's entries that is not clipped, in (0, 1].
        floor: range ``f`` of the data: they lie in ``[-f, f]``.
        cap: largest ``q``, at least `floor`; None for no cap.

    Examples:
        >>> Threshold(quantile=1.0)(torch.tensor([[0.5, -2.0, 1.0], [0.5, 0.2, -1.0]]))
        tensor([[ 0.2500, -1.0000,  0.5000],
                [ 0.5000,  0.2000, -1.0000]])
        >>> Threshold(cap=1.0)(torch.tensor([[0.5, -2.0, 1.0]]))
        tensor([[ 0.5000, -1.0000,  1.0000]])
    """

    quantile: float = 0.995
    floor: float = 1.0
    cap: float | None = None

    def __post_init__(self) -> None:
        for name in ("quantile", "floor", *([] if self.cap is None else ["cap"])):
            value = getattr(self, name)
            require(finite(value), f"a threshold's {name} must be a finite number, got {value!r}")
        require(0 < self.quantile <= 1, f"a threshold's quantile must lie in (0, 1], got {self.quantile}")
        require(self.floor > 0, f"a threshold's floor must be positive, got {self.floor}")
        require(
            self.cap is None or self.cap >= self.floor,
            f"a threshold's cap must be at least its floor {self.floor}, got {self.cap}",
        )

    def __call__(self, data: Tensor) -> Tensor:
        """Return the data predictions `data` (B, *) thresholded sample by sample; differentiable."""
        flat = data.flatten(1) if data.ndim > 1 else data.unsqueeze(1)
        if flat.dtype not in (torch.float32, torch.float64):
            flat = flat.float()  # quantiles are defined for these two only
        q = torch.quantile(flat.abs(), self.quantile, dim=1, keepdim=True).clamp(min=self.floor, max=self.cap)
        return (torch.clamp(flat, -q, q) * (self.floor / q)).to(data.dtype).reshape(data.shape)

    def describe(self) -> str:
        """Return one line: the quantile, the floor and the cap.

        >>> Threshold().describe()
        'threshold at quantile 0.995, floor 1'
        """
        cap = "" if self.cap is None else f", cap {self.cap:g}"
        return f"threshold at quantile {self.quantile:g}, floor {self.floor:g}{cap}"
