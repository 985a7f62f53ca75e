"""Time grids: functions ``(process, n, ...) -> times`` (n+1,), float64, strictly decreasing.

Each grid says where it ends: ``end="t_min"`` stops at the process's smallest time, ``end="zero"`` puts the last node at time 0
(no noise) and the one before it at ``t_min``.
"""

from isocline.plans.grids.exponential import exponential
from isocline.plans.grids.karras import karras
from isocline.plans.grids.log_snr import log_snr
from isocline.plans.grids.log_snr_blocks import log_snr_blocks
from isocline.plans.grids.quadratic import quadratic
from isocline.plans.grids.uniform import uniform

__all__ = ["exponential", "karras", "log_snr", "log_snr_blocks", "quadratic", "uniform"]
