from dataclasses import replace

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.datasets.fields import Batch, Window
from isocline.operators import Conserving, GridModel, conserved, projected, rollout, trapezoid
from tests.operators.beds import Waves, convolution, spec

SOURCE = Waves(spec())


def problem(seed: int, cases: int = 3, n: int = 30, laws: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return means, covariances, functionals and values of several predictions."""
    random = torch.Generator().manual_seed(seed)
    root = torch.randn(cases, n, n, generator=random, dtype=torch.float64)
    mean = torch.randn(cases, n, generator=random, dtype=torch.float64)
    weights = torch.rand(laws, n, generator=random, dtype=torch.float64) / n
    values = torch.randn(cases, laws, generator=random, dtype=torch.float64)
    return mean, root @ root.mT + torch.eye(n, dtype=torch.float64), weights, values


@pytest.mark.parametrize("seed", range(5))
def test_exact_laws_hold_to_rounding_and_are_certain(seed: int) -> None:
    mean, covariance, g, b = problem(seed)
    for given in (covariance, covariance.diagonal(dim1=-2, dim2=-1)):
        found = conserved(mean, given, g, b)
        assert float((found.mean @ g.T - b).abs().max()) <= 1e-12
        assert float((g @ found.covariance @ g.T).abs().max()) <= 1e-12
    assert float((projected(mean, g, b) @ g.T - b).abs().max()) <= 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_a_noisy_law_gives_the_posterior_by_precisions(seed: int) -> None:
    mean, covariance, g, b = problem(seed, 1)
    precision = torch.linalg.inv(covariance[0]) + g.T @ g / 0.3**2
    expected = torch.linalg.solve(precision, torch.linalg.solve(covariance[0], mean[0]) + g.T @ b[0] / 0.3**2)
    found = conserved(mean, covariance, g, b, 0.3)
    torch.testing.assert_close(found.mean[0], expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.covariance[0], torch.linalg.inv(precision), rtol=1e-8, atol=1e-8)


def test_cases_are_corrected_one_by_one_with_weights_of_their_own() -> None:
    mean, covariance, g, b = problem(0)
    weights = g * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)[:, None, None]
    whole = conserved(mean, covariance, weights, b)
    alone = conserved(mean[1:2], covariance[1:2], weights[1], b[1:2])
    torch.testing.assert_close(whole.mean[1], alone.mean[0])
    torch.testing.assert_close(whole.covariance[1], alone.covariance[0])


def test_the_projection_is_the_nearest_and_variance_draws_the_correction() -> None:
    mean, _, g, b = problem(0, 1)
    nearest = mean[0] + torch.linalg.pinv(g) @ (b[0] - g @ mean[0])
    torch.testing.assert_close(projected(mean, g, b)[0], nearest)
    variance = torch.full_like(mean, 1e-3)
    variance[:, 7] = 1e3
    flat = torch.full((1, mean.shape[1]), 1 / mean.shape[1], dtype=torch.float64)
    change = (conserved(mean, variance, flat, b[:, :1]).mean - mean).abs()
    torch.testing.assert_close(change / change[:, 7:8], variance / variance[:, 7:8])


def test_what_does_not_fit_is_named() -> None:
    mean, covariance, g, b = problem(0)
    with pytest.raises(InvalidInput, match="29 points, the prediction has 30"):
        conserved(mean, covariance, g[:, 1:], b)
    with pytest.raises(InvalidInput, match="negative"):
        conserved(mean, -torch.ones_like(mean), g, b)
    with pytest.raises(InvalidInput, match="depend on each other"):
        conserved(mean, covariance, g[:1].expand(2, -1), b)
    with pytest.raises(InvalidInput, match="points of zero variance"):
        conserved(mean, torch.zeros_like(mean), g, b)
    with pytest.raises(InvalidInput, match="sigma is at least 0"):
        conserved(mean, covariance, g, b, -1.0)
    with pytest.raises(InvalidInput, match="does not fit a mean"):
        conserved(mean, covariance[:, :3], g, b)
    with pytest.raises(InvalidInput, match="increasing"):
        trapezoid(torch.tensor([0.0, 0.0, 1.0]))


@pytest.mark.parametrize("window", [Window(1, 1), Window(2, 3)])
def test_a_rollout_keeps_its_mass(window: Window) -> None:
    torch.manual_seed(0)
    plain = GridModel(convolution, SOURCE.spec, window).double()
    batch = SOURCE.batch(3, window).to(dtype=torch.float64)
    batch = replace(batch, x=batch.x + 1)
    first = batch.x[:, -1].mean((1, 2))
    for model in (Conserving(plain), Conserving(plain, variance=lambda u: u.square())):
        frames = rollout(model, batch, 6).frames
        torch.testing.assert_close(frames.mean((2, 3)), first[:, None].expand(3, 6), rtol=0, atol=1e-10)
    assert not torch.allclose(rollout(plain, batch, 6).frames.mean((2, 3)), first[:, None])


def test_a_module_corrects_as_the_function_does() -> None:
    torch.manual_seed(0)
    plain = GridModel(convolution, SOURCE.spec, Window()).double()
    batch = SOURCE.batch(3, Window()).to(dtype=torch.float64)
    found = Conserving(plain, variance=torch.square)(batch)[:, 0, :, 0]
    u = plain(batch)[:, 0, :, 0]
    weights = torch.full((1, 32), 1 / 32, dtype=torch.float64)
    expected = conserved(u.detach(), u.detach().square(), weights, batch.x.mean((1, 2, 3))[:, None])
    torch.testing.assert_close(found, expected.mean)


def test_what_comes_in_is_added() -> None:
    torch.manual_seed(0)
    plain = GridModel(convolution, SOURCE.spec, Window())

    def flux(batch: Batch, t: Tensor) -> Tensor:
        return 0.5 * batch.dt[:, None]

    batch = SOURCE.batch(2, Window())
    frames = Conserving(plain, flux=flux)(batch)
    torch.testing.assert_close(
        frames.mean((1, 2, 3)), batch.x.mean((1, 2, 3)) + 0.5 * batch.dt.float(), rtol=1e-5, atol=1e-5
    )


def test_a_channel_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidInput, match="1 channels, got channel 1"):
        Conserving(GridModel(convolution, SOURCE.spec, Window()), 1)
