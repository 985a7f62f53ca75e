import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from isocline._core import files
from isocline._core.errors import InvalidInput, NotFinite
from isocline.operators.gaussian_process import GaussianProcess, covariance, kernel, marginal_likelihood


def data(n: int = 25, d: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=draw, dtype=torch.float64)
    theta = torch.log(torch.tensor([1.7, *[0.8 + 0.7 * i for i in range(d)], 0.05], dtype=torch.float64))
    y = torch.linalg.cholesky(covariance(x, theta)) @ torch.randn(n, generator=draw, dtype=torch.float64)
    return x, y, theta


def test_the_likelihood_is_that_of_a_normal_density_and_its_gradient_that_of_differences() -> None:
    x, y, theta = data()
    value, gradient = marginal_likelihood(x, y, theta)
    density = torch.distributions.MultivariateNormal(torch.zeros_like(y), covariance(x, theta)).log_prob(y)
    assert value == pytest.approx(float(density), rel=1e-12)
    for i in range(len(theta)):
        step = torch.zeros_like(theta)
        step[i] = 1e-5
        slope = (marginal_likelihood(x, y, theta + step)[0] - marginal_likelihood(x, y, theta - step)[0]) / 2e-5
        assert float(gradient[i]) == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_the_kernel_equals_that_of_scikit_learn() -> None:
    kernels = pytest.importorskip("sklearn.gaussian_process.kernels", reason="scikit-learn comes with an extra")
    x, y, theta = data()
    s, n = theta.exp()[0], theta.exp()[-1]
    theirs = kernels.ConstantKernel(float(s)) * kernels.Matern(theta.exp()[1:-1].numpy(), nu=2.5)
    assert np.abs(theirs(x.numpy()) - kernel(x, x, theta).numpy()).max() < 1e-13
    process = pytest.importorskip("sklearn.gaussian_process")
    model = process.GaussianProcessRegressor(theirs + kernels.WhiteKernel(float(n)), optimizer=None).fit(x, y)
    value, slope = model.log_marginal_likelihood(model.kernel_.theta, eval_gradient=True)
    ours, gradient = marginal_likelihood(x, y, theta)
    assert ours == pytest.approx(value, rel=1e-9)
    assert gradient.tolist() == pytest.approx(slope.tolist(), rel=1e-6)
    new = x[:5] + 0.3
    unit = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    mine = GaussianProcess(x, y[:, None], theta[None], unit.expand(2, 3), unit)
    mean, std = mine.predict(new)
    expected = model.predict(new.numpy(), return_std=True)
    assert mean[:, 0].tolist() == pytest.approx(expected[0].tolist(), rel=1e-8)
    assert std[:, 0].tolist() == pytest.approx(expected[1].tolist(), rel=1e-8)


def test_two_points_in_closed_form() -> None:
    theta = torch.log(torch.tensor([2.0, 1.5, 0.1], dtype=torch.float64))
    unit = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    x, y = torch.tensor([[0.0], [1.0]], dtype=torch.float64), torch.tensor([[1.0], [-1.0]], dtype=torch.float64)

    def k(gap: float) -> float:
        r = math.sqrt(5) * abs(gap) / 1.5
        return 2 * (1 + r + r * r / 3) * math.exp(-r)

    mean, std = GaussianProcess(x, y, theta[None], unit, unit).predict(torch.tensor([[0.25]]))
    a, b, c = k(0.25), k(0.75), k(1)
    assert float(mean) == pytest.approx((a - b) / (2.1 - c), rel=1e-12)  # K^-1 (1, -1) = (1, -1) / (2.1 - c)
    explained = (2.1 * (a * a + b * b) - 2 * a * b * c) / (2.1**2 - c * c)
    assert float(std) == pytest.approx(math.sqrt(2.1 - explained), rel=1e-12)


def test_the_fit_is_as_likely_as_that_of_scikit_learn() -> None:
    kernels = pytest.importorskip("sklearn.gaussian_process.kernels", reason="scikit-learn comes with an extra")
    process = pytest.importorskip("sklearn.gaussian_process")
    x, y, _ = data(40, 2, seed=3)
    ours = GaussianProcess.fit(x, y[:, None], restarts=4)
    value, gradient = marginal_likelihood(ours.x, ours.y[:, 0], ours.theta[0])
    noise = kernels.WhiteKernel(1e-2, (1e-8, 1.0))
    theirs = kernels.ConstantKernel(1.0, (1e-3, 1e3)) * kernels.Matern([1.0, 1.0], (1e-2, 1e3), nu=2.5) + noise
    model = process.GaussianProcessRegressor(theirs, n_restarts_optimizer=3, random_state=0).fit(ours.x, ours.y[:, 0])
    assert value >= model.log_marginal_likelihood_value_ - 1e-3
    assert float(gradient.abs().max()) < 1e-2


def test_lengths_tell_which_inputs_matter() -> None:
    x = torch.rand(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = GaussianProcess.fit(x, torch.sin(5 * x[:, 1:2]))
    lengths = found.theta[0, 1:-1].exp()
    assert float(lengths[[0, 2]].min()) > 10 * float(lengths[1])


def test_intervals_cover_what_they_say() -> None:
    inside = []
    for seed in range(10):
        x, y, _ = data(120, 2, seed)
        mean, std = GaussianProcess.fit(x[:60], y[:60, None], restarts=2).predict(x[60:])
        inside.append(((y[60:] - mean[:, 0]).abs() < 1.6449 * std[:, 0]).double().mean())
    assert 0.85 < float(torch.stack(inside).mean()) < 0.95


def test_away_from_the_data_it_knows_as_little_as_before() -> None:
    x, y, _ = data()
    found = GaussianProcess.fit(x, y[:, None])
    mean, std = found.predict(torch.full((1, 3), 1e4))
    assert float(mean) == pytest.approx(float(y.mean()), abs=1e-6)
    whole = float((found.theta[0, 0].exp() + found.theta[0, -1].exp()).sqrt() * y.std())
    assert float(std) == pytest.approx(whole, rel=1e-6)


def test_outputs_are_independent_and_units_do_not_matter() -> None:
    x, y, _ = data()
    pair = torch.stack([y, y.square()], 1)
    one, alone = GaussianProcess.fit(x, pair), GaussianProcess.fit(x, pair[:, :1])
    assert float((one.theta[0] - alone.theta[0]).abs().max()) < 1e-6
    other = GaussianProcess.fit(1024 * x, pair / 2**20)  # powers of two: no rounding
    for ours, theirs in zip(one.predict(x + 0.125), other.predict(1024 * (x + 0.125)), strict=True):
        assert float((theirs * 2**20 - ours).abs().max()) < 1e-12


def test_it_comes_back_from_a_file(tmp_path: Path) -> None:
    x, y, _ = data()
    found = GaussianProcess.fit(x, y[:, None])
    files.write_tensors(tmp_path / "gp.safetensors", found.tensors())
    again = GaussianProcess.of(files.read_tensors(tmp_path / "gp.safetensors")[0])
    assert torch.equal(found.predict(x + 1)[1], again.predict(x + 1)[1])


def test_bad_input_is_refused() -> None:
    x, y, _ = data()
    with pytest.raises(InvalidInput, match="needs x"):
        GaussianProcess.fit(x, y)
    with pytest.raises(InvalidInput, match="N >= 3"):
        GaussianProcess.fit(x[:2], y[:2, None])
    with pytest.raises(NotFinite, match="inputs or targets"):
        GaussianProcess.fit(x * math.nan, y[:, None])
    with pytest.raises(InvalidInput, match="inputs have 3 columns"):
        GaussianProcess.fit(x, y[:, None]).predict(x[:, :2])
    same = GaussianProcess.fit(x, torch.ones(len(x), 1))
    assert float((same.predict(x)[0] - 1).abs().max()) < 1e-12
