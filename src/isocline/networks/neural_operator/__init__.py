"""Neural operators on scattered points: kernel integrals by quadrature over neighbours, and of low rank."""

from isocline.networks.neural_operator.gno import GNO
from isocline.networks.neural_operator.kernel_integral import kernel_integral
from isocline.networks.neural_operator.low_rank import LowRankOperator
from isocline.networks.neural_operator.neighbours import within_radius

__all__ = ["GNO", "LowRankOperator", "kernel_integral", "within_radius"]
