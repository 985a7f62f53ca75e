"""What `solve` takes where nothing is said: a network, an optimiser, points."""

from __future__ import annotations

import math

import torch
from torch import nn

from isocline._core.estimate import Budget
from isocline.equations import Box, Problem
from isocline.networks.features import ScaledFeatures
from isocline.networks.mlp import MLP
from isocline.optimizers.gauss_newton import GaussNewton
from isocline.recipes.solve.exact import inputs_of, meeting, meeting_on_ball
from isocline.recipes.solve.training_points import TrainingPoints, default_training_points
from isocline.training.state import Build

WIDTH, DEPTH = 24, 3
DENSE = 3000  # parameters up to which a Gauss-Newton step is affordable on a processor


def default_network(problem: Problem, width: int = WIDTH, depth: int = DEPTH, seed: int = 0) -> nn.Module:
    """Return a tanh network in float64 that meets the conditions of a box or a ball exactly where it can; see `meeting`."""
    box = isinstance(problem.domain, Box)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inputs = inputs_of(problem) if box else problem.domain.d
        body = MLP(inputs, problem.components, width=width, depth=depth, activation=nn.Tanh).double()
    for layer in body:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight, generator=torch.Generator().manual_seed(seed + layer.in_features))
            nn.init.zeros_(layer.bias)
    if box:
        return meeting(problem, body)
    ball = meeting_on_ball(problem, body)
    if ball is not None:
        return ball
    low, high = problem.domain.bounds
    around = Box(**dict(zip(problem.names, zip(low.tolist(), high.tolist(), strict=True), strict=True)))
    return nn.Sequential(ScaledFeatures(around), body)


def default_width(problem: Problem, budget: Budget) -> int:
    """Return the width of the network that a budget allows: that with `Budget.parameters` numbers at most."""
    if budget.parameters is None:
        return WIDTH
    d, c = problem.domain.d, problem.components
    hidden, rest = DEPTH - 1, d + DEPTH + c
    return max(2, int((-rest + math.sqrt(rest**2 + 4 * hidden * (budget.parameters - c))) / (2 * hidden)))


def default_points(problem: Problem, budget: Budget) -> TrainingPoints:
    """Return scrambled Sobol points, as many as the budget says; 1024 in two dimensions and more."""
    return default_training_points(problem, budget.points or (256 if problem.domain.d == 1 else 1024))


def default_optimizer(network: nn.Module) -> torch.optim.Optimizer:
    """Return Gauss-Newton for a network of a size that it can take, Adam for a larger one."""
    size = sum(p.numel() for p in network.parameters())
    double = all(p.dtype == torch.float64 for p in network.parameters())
    if size <= DENSE and double:
        return GaussNewton(network.parameters())
    return first_order(network)


def first_order(network: nn.Module) -> torch.optim.Optimizer:
    """Return Adam at its usual rate."""
    return torch.optim.Adam(network.parameters(), lr=1e-3)


__all__ = ["Build", "default_network", "default_optimizer", "default_points", "default_width", "first_order"]
