r"""A gated recurrent unit that is told what is missing and how long it waited: the baseline.

At each time it reads, for every channel, the last observed value (0 before the first) and whether the channel is observed now, and
the gap since the time before. Unit: Cho et al., arXiv 1406.1078.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline.timeseries.models.readout import Readout


class GRU(nn.Module):
    """A GRU over irregular series with gaps; returns one vector for each series.

    Args:
        channels: channels of the series, C.
        outputs: size of the result, for example the number of classes.
        hidden: size of the state.
        dropout: probability of the readout's dropout.

    Examples:
        >>> GRU(channels=2, outputs=3)(torch.linspace(0, 1, 5), torch.zeros(4, 5, 2)).shape
        torch.Size([4, 3])
    """

    def __init__(self, channels: int, outputs: int, *, hidden: int = 16, dropout: float = 0.1) -> None:
        super().__init__()
        require(min(channels, outputs, hidden) >= 1, "a GRU needs channels, outputs and hidden of at least 1")
        self.gru = nn.GRU(2 * channels + 1, hidden, batch_first=True)
        self.readout = Readout(hidden, outputs, dropout)

    def forward(self, times: Tensor, values: Tensor) -> Tensor:
        """Return the outputs (B, outputs) of values (B, T, C) at times (T,) or (B, T), NaN after a series' end."""
        times = times.to(values.dtype).expand(values.shape[:2])
        seen = ~values.isnan()
        gaps = times.diff(dim=1, prepend=times[:, :1]).nan_to_num(0.0)[..., None]
        states, _ = self.gru(torch.cat([held(values), seen.to(values.dtype), gaps], dim=-1))
        last = times.isfinite().sum(1) - 1
        return self.readout(states[torch.arange(len(states)), last])


def held(values: Tensor) -> Tensor:
    """Return `values` (B, T, C) with the last observed value in place of NaN, and 0 before a channel's first.

    Examples:
        >>> nan = torch.nan
        >>> held(torch.tensor([nan, 1.0, nan, 3.0])[None, :, None]).flatten()
        tensor([0., 1., 1., 3.])
    """
    place = torch.arange(values.shape[1], device=values.device)[None, :, None]
    latest = torch.where(values.isnan(), 0, place).cummax(dim=1).values
    return values.gather(1, latest).nan_to_num(0.0)
