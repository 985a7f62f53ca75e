"""The exact denoiser of PFGM++: the posterior of its noise law, and sampling with the plans of diffusion."""

from collections.abc import Callable

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.plans import grids, solvers
from isocline.processes import EDM, ExactDenoiser, FinitePoints, GaussianProcess, PoissonFlow, PoissonPoints
from tests.contracts.denoisers import cloud
from tests.processes import test_exact as owed

WEIGHTS = torch.arange(1, 8, dtype=torch.float64) / 28


def points(D: float = 3, *event: int) -> PoissonPoints:
    return PoissonPoints(PoissonFlow(D=D), cloud(7, *(event or (2, 3))), WEIGHTS)


def law(process: GaussianProcess) -> ExactDenoiser:
    """Return the same law whatever the process: it has its own."""
    return points()


@pytest.mark.parametrize(
    "test",
    [
        owed.test_product_is_that_of_autograd,
        owed.test_second_derivatives_agree_with_differences,
        owed.test_prediction_is_the_regression_of_the_data,
        owed.test_samples_do_not_depend_on_the_split,
        owed.test_states_keep_their_dtype,
        owed.test_wrong_states_and_conditions_are_refused,
    ],
)
def test_it_owes_what_exact_denoisers_owe(test: Callable[[Callable[[GaussianProcess], ExactDenoiser]], None]) -> None:
    """All but the two that hold for Gaussian noise only: the score, and independence of the process."""
    test(law)


@pytest.mark.parametrize("D", [1, 64])
def test_against_a_loop(D: float) -> None:
    model, sigma = points(D), 0.8
    x = cloud(4, 2, 3, name="x")
    t = torch.tensor(sigma, dtype=torch.float64)
    found, density = model.predict(x, t), model.log_density(x, t)
    for i in range(4):
        odds = [
            float(w) * float(((x[i].flatten() - p) ** 2).sum() + sigma**2 * D) ** (-(6 + D) / 2)
            for w, p in zip(WEIGHTS, model.points, strict=True)
        ]
        expected = sum(o * p for o, p in zip(odds, model.points, strict=True)) / sum(odds)
        torch.testing.assert_close(found.x0[i].flatten(), expected, rtol=1e-11, atol=1e-13)
        gaps = (x[i].flatten() - model.points) / sigma
        noise = [float(PoissonFlow(D=D).noise_log_density(gap[None])) for gap in gaps]
        joint = torch.log(WEIGHTS) + torch.tensor(noise, dtype=torch.float64) - 6 * t.log()
        torch.testing.assert_close(density[i], torch.logsumexp(joint, 0), rtol=1e-12, atol=0)


def test_the_flow_carries_the_density() -> None:
    """``d p / d sigma + div(p dx/dsigma) = 0`` at each place: the continuity equation, by automatic differentiation."""
    model, x = points(2.5, 2), cloud(6, 2, name="x").requires_grad_()
    sigma = torch.full((6,), 0.7, dtype=torch.float64, requires_grad=True)
    density = model.log_density(x, sigma).exp()
    slope = (x - model(x, sigma)) / sigma[:, None]
    flux = density[:, None] * slope
    (rate,) = torch.autograd.grad(density.sum(), sigma, retain_graph=True)
    divergence = sum(torch.autograd.grad(flux[:, k].sum(), x, retain_graph=True)[0][:, k] for k in range(2))
    assert float(rate.abs().max()) > 1e-2
    torch.testing.assert_close(rate + divergence, torch.zeros_like(rate), rtol=0, atol=1e-14)


def test_many_dimensions_are_gaussian_noise() -> None:
    x, t = cloud(5, 2, 3, name="x"), torch.tensor([0.3, 0.5, 1.0, 4.0, 80.0], dtype=torch.float64)
    found, limit = points(1e8), FinitePoints(EDM(), cloud(7, 2, 3), WEIGHTS)
    torch.testing.assert_close(found.predict(x, t).x0, limit.predict(x, t).x0, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.log_density(x, t), limit.log_density(x, t), rtol=0, atol=1e-4)
    v = cloud(5, 2, 3, name="v")
    torch.testing.assert_close(found.vjp(x, t, v)[1], limit.vjp(x, t, v)[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("D", [1, 4, 64, 4096])
def test_samples_have_the_frequencies_of_the_weights(D: float) -> None:
    """4000 samples a seed: the standard error of a frequency is at most 0.007 for one seed, 0.003 for five."""
    model, n, seeds = points(D, 2), 4000, range(5)
    plan = solvers.heun(model.process, grids.karras(model.process, 16, end="zero"))
    x = torch.cat([plan.run(model, plan.start((n, 2), seed, dtype=torch.float64)).x for seed in seeds])
    which = torch.cdist(x, model.points).argmin(1)
    frequency = torch.bincount(which, minlength=7) / len(x)
    assert float((frequency - WEIGHTS).abs().max()) < 0.02


@pytest.mark.parametrize("solver", [solvers.heun, solvers.dpm_solver_pp_2m])
def test_a_million_dimensions_give_the_plans_of_diffusion(solver: Callable[..., object]) -> None:
    """From the same starts, every state of the run down to a noise level where the points still overlap."""
    process, edm = PoissonFlow(D=1e6, t_min=0.1), EDM(t_min=0.1)
    start = edm.terminal((2000, 2), 0, dtype=torch.float64)
    ours, theirs = (
        solver(kind, grids.karras(kind, 24)).run(model, start, record=True).trajectory  # type: ignore[attr-defined]
        for kind, model in (
            (process, PoissonPoints(process, cloud(7, 2), WEIGHTS)),
            (edm, FinitePoints(edm, cloud(7, 2), WEIGHTS)),
        )
    )
    assert 0 < float((ours - theirs).abs().max()) < 1e-3


def test_far_starts_of_the_heaviest_tail_give_finite_samples() -> None:
    model = points(1, 2)
    plan = solvers.heun(model.process, grids.karras(model.process, 16, end="zero"))
    start = 10.0 ** torch.arange(0, 12, dtype=torch.float64)[:, None] * Stream(0).normal((12, 2), dtype=torch.float64)
    x = plan.run(model, start).x
    assert bool((x.norm(dim=1) <= model.points.norm(dim=1).max() + 1e-9).all())


def test_a_gaussian_process_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"needs a PoissonFlow, got EDM\(.*; FinitePoints has Gaussian noise"):
        PoissonPoints(EDM(), cloud(7, 2))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="weights must be positive and sum to 1"):
        PoissonPoints(PoissonFlow(D=2), cloud(7, 2), torch.ones(7))
