"""Penalties, pairs, learned couplings and hierarchical flows: identities that need no long training."""

import math

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.objectives import (
    GaussianEncoder,
    HierarchicalFlow,
    LearnedCoupling,
    PseudoHuber,
    rectified_diffusion,
    rectified_flow,
    rf_plus_plus,
)
from isocline.objectives.learned_coupling import kl_to_normal
from isocline.processes import RectifiedFlow, VariancePreserving
from tests.plans.helpers import Told, normal


def test_pseudo_huber_is_quadratic_then_linear():
    flow, t = RectifiedFlow(), torch.tensor([0.25, 0.25], dtype=torch.float64)
    small, large = PseudoHuber(1.0)(flow, t, torch.tensor([1e-8, 1e8], dtype=torch.float64)).tolist()
    assert small == pytest.approx(0.5e-8, rel=1e-6)
    assert large == pytest.approx(1e4 - 1, rel=1e-6)
    error = torch.tensor([3.0, 0.2], dtype=torch.float64)
    torch.testing.assert_close(PseudoHuber(0.1, fading=True)(flow, t, error), 0.75 * PseudoHuber(0.1)(flow, t, error))
    with pytest.raises(InvalidInput, match="needs c > 0"):
        PseudoHuber(0.0)


def test_a_model_that_knows_its_pairs_has_no_loss():
    """With the pair's datum as prediction, velocity and noise are those of the pair at every time: the fixed point of reflow."""
    noise, data = normal(8, 3, seed=1), normal(8, 3, seed=2)
    for formulation in (rectified_flow(), rf_plus_plus(3), rectified_diffusion()):
        model = Told(lambda x, t: data, formulation.process, formulation.parameterisation)
        paired = formulation.objective.loss(model, data, Stream(0), 0, noise=noise)
        assert float(paired) < 1e-20
        wrong = formulation.objective.loss(model, data.flip(0), Stream(0), 0, noise=noise)
        assert float(wrong) > 1e-3


def test_pairs_must_match():
    objective = rectified_flow().objective
    model = Told(lambda x, t: x, RectifiedFlow())
    with pytest.raises(InvalidInput, match=r"noise \(4, 2\) does not pair with data \(4, 3\)"):
        objective.loss(model, normal(4, 3), Stream(0), 0, noise=normal(4, 2))


def test_independent_noise_is_what_the_objective_draws():
    formulation = rectified_diffusion(VariancePreserving())
    model = Told(lambda x, t: torch.tanh(x), formulation.process)
    x0 = normal(6, 3)
    drawn = Stream(5).child("noise").normal((6, 3), step=2, dtype=torch.float64)
    given = formulation.objective.loss(model, x0, Stream(5), 2, noise=drawn)
    torch.testing.assert_close(formulation.objective.loss(model, x0, Stream(5), 2), given)


def test_kl_to_the_standard_normal():
    mean, log_std = torch.tensor([0.7], dtype=torch.float64), torch.tensor([-0.4], dtype=torch.float64)
    q = torch.distributions.Normal(mean, log_std.exp())
    exact = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_normal(mean, log_std), exact)
    assert float(kl_to_normal(torch.zeros(1), torch.zeros(1))) == 0.0


def test_a_normal_encoder_is_the_independent_coupling():
    coupling, x0 = LearnedCoupling(beta=3.0), normal(64, 2)

    def velocity(x, t):
        return torch.sin(x) + t[:, None]

    found = coupling.loss(velocity, lambda x: (torch.zeros_like(x), torch.zeros_like(x)), x0, Stream(1), 4)
    model = Told(lambda x, t: x - t[:, None] * velocity(x, t), RectifiedFlow())
    plain = rectified_flow().objective.loss(model, x0, Stream(1), 4)
    torch.testing.assert_close(found, plain)  # the KL term is 0


def test_a_coupling_that_knows_the_datum_is_straight():
    """z = x0 exactly: velocity 0 explains all, and only the KL term is left."""
    coupling, x0 = LearnedCoupling(beta=2.0), normal(16, 2)
    log_std = torch.full_like(x0, -20.0)
    found = coupling.loss(lambda x, t: torch.zeros_like(x), lambda x: (x, log_std), x0, Stream(1), 0)
    torch.testing.assert_close(found, 2.0 * kl_to_normal(x0, log_std).mean(), rtol=1e-6, atol=1e-6)


def test_the_encoder_learns_through_both_places():
    encoder = GaussianEncoder(torch.nn.Linear(2, 4))
    loss = LearnedCoupling().loss(lambda x, t: x, encoder, torch.randn(8, 2), Stream(0), 0)
    loss.backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in encoder.parameters())


def gaussian_velocity(std):
    """The exact network of a flow of depth 1 from N(0, 1) to N(0, std^2), t from noise to data: E[x - z | x_t]."""

    def network(x, t):
        t = t[:, 0, None]
        return (t * std**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * std**2) * x[:, 0]

    return network


def test_depth_one_is_rectified_flow():
    """One level is Euler's method for the mean velocity, so the standard deviation is the product of its factors."""
    n, std = 40, 0.3
    x = HierarchicalFlow(1).sample(gaussian_velocity(std), (20_000, 1), [n], rng=0)
    factor = 1.0
    for k in range(n):
        t = k / n
        factor *= 1 + (t * std**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * std**2) / n
    assert float(x.std()) == pytest.approx(factor, rel=4 / math.sqrt(2 * 20_000))


def gaussian_hierarchy(std):
    """The exact network of depth 2 for scalar data N(0, std^2): a linear regression of x - z1 - z2 on (x1, x2)."""

    def network(x, t):
        t1, t2 = t[:, 0], t[:, 1]
        # x1 = (1-t1) z1 + t1 x, x2 = (1-t2) z2 + t2 (x - z1); unknown vector (x, z1, z2) with variances (std^2, 1, 1)
        rows = torch.stack(
            [
                torch.stack([t1 * std, 1 - t1, torch.zeros_like(t1)], 1),
                torch.stack([t2 * std, -t2, 1 - t2], 1),
            ],
            dim=1,
        )
        target = torch.tensor([std, -1.0, -1.0], dtype=x.dtype)
        cov = rows @ rows.transpose(1, 2) + 1e-12 * torch.eye(2, dtype=x.dtype)
        gain = torch.linalg.solve(cov, rows @ target)
        return (gain[:, None] @ x).squeeze(1)

    return network


def test_the_exact_network_of_depth_two_samples_the_data():
    x = HierarchicalFlow(2).sample(gaussian_hierarchy(0.5), (4000, 1), [4, 60], rng=1)
    assert float(x.std()) == pytest.approx(0.5, rel=0.08)
    assert float(x.mean()) == pytest.approx(0.0, abs=4 * 0.5 / math.sqrt(4000))


def test_the_loss_of_the_exact_network_is_the_variance_that_is_left():
    """Any other linear network has a larger loss."""
    data = 0.5 * normal(20_000, 1)
    flow = HierarchicalFlow(2)
    exact = float(flow.loss(gaussian_hierarchy(0.5), data, Stream(3), 0))
    for wrong in (0.3, 0.8):
        assert float(flow.loss(gaussian_hierarchy(wrong), data, Stream(3), 0)) > exact


def test_the_calls_are_the_product_of_the_steps():
    calls = 0

    def network(x, t):
        nonlocal calls
        calls += 1
        assert x.shape == (5, 3, 2)
        assert t.shape == (5, 3)
        return torch.zeros(5, 2)

    HierarchicalFlow(3).sample(network, (5, 2), [2, 3, 4], rng=0)
    assert calls == 24
    with pytest.raises(InvalidInput, match=r"depth 3 needs 3 numbers of steps"):
        HierarchicalFlow(3).sample(network, (5, 2), [2, 3], rng=0)


def test_no_fresh_start_is_used_twice():
    starts = []

    def network(x, t):
        if float(t[0, 1]) == 0.0:
            starts.append(float(x[0, 1, 0]))
        return torch.zeros(x.shape[0], x.shape[2], dtype=x.dtype)

    HierarchicalFlow(2).sample(network, (3, 1), [6, 2], rng=0)
    assert len(starts) == 6
    assert len(set(starts)) == 6
