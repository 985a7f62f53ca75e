"""Every process of the library, once or more; a new process adds a line here and gets all shared tests."""

from isocline.processes import (
    EDM,
    CosineVariancePreserving,
    PoissonFlow,
    RectifiedFlow,
    SubVariancePreserving,
    Tabulated,
    VarianceExploding,
    VariancePreserving,
    ornstein_uhlenbeck,
)
from isocline.processes.gaussian import GaussianProcess

PROCESSES: list[GaussianProcess] = [
    EDM(),
    VariancePreserving(),
    VariancePreserving(beta_min=1.0, beta_max=1.0, t_max=5.0),
    CosineVariancePreserving(),
    SubVariancePreserving(),
    VarianceExploding(),
    PoissonFlow(D=3),
    RectifiedFlow(),
    ornstein_uhlenbeck(),
    Tabulated.linear_betas(),
    Tabulated.scaled_linear_betas(50, 0.01, 0.3),
]


def label(process: GaussianProcess) -> str:
    """Return a short test id."""
    return process.describe()
