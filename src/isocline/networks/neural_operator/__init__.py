"""Neural operators on scattered points: kernel integrals by quadrature, message passing, branch and trunk."""

from isocline.networks.neural_operator.deeponet import CloudBranch, DeepONet, SensorBranch
from isocline.networks.neural_operator.gno import GNO
from isocline.networks.neural_operator.kernel_integral import kernel_integral
from isocline.networks.neural_operator.low_rank import LowRankOperator
from isocline.networks.neural_operator.message_passing import MessagePassingSolver
from isocline.networks.neural_operator.mgno import MGNO, Level, nested_levels, spaced_levels
from isocline.networks.neural_operator.neighbours import within_radius
from isocline.networks.neural_operator.voronoi import voronoi_weights

__all__ = [
    "GNO",
    "MGNO",
    "CloudBranch",
    "DeepONet",
    "Level",
    "LowRankOperator",
    "MessagePassingSolver",
    "SensorBranch",
    "kernel_integral",
    "nested_levels",
    "spaced_levels",
    "voronoi_weights",
    "within_radius",
]
