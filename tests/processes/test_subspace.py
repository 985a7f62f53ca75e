import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.processes import AffineSubspace, GaussianMixture, VariancePreserving
from tests.contracts.denoisers import cloud, frame

VP = VariancePreserving()
OFFSET = cloud(1, 5, name="offset")[0]


def test_full_basis_is_a_mixture_of_one():
    x, t = cloud(4, 5), torch.tensor([0.1, 0.3, 0.6, 0.9], dtype=torch.float64)
    model = AffineSubspace(VP, frame(5, 5), OFFSET, 0.7)
    one = GaussianMixture(VP, OFFSET[None], torch.tensor([0.7], dtype=torch.float64))
    torch.testing.assert_close(model.predict(x, t).x0, one.predict(x, t).x0, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(model.log_density(x, t), one.log_density(x, t), rtol=1e-11, atol=1e-11)


def test_density_is_that_of_the_full_covariance():
    x, t, basis = cloud(4, 5), torch.tensor(0.3, dtype=torch.float64), frame(5, 2)
    alpha, sigma = VP.alpha(t), VP.sigma(t)
    covariance = (alpha * 0.7) ** 2 * basis @ basis.T + sigma**2 * torch.eye(5, dtype=torch.float64)
    law = torch.distributions.MultivariateNormal(alpha * OFFSET, covariance)
    torch.testing.assert_close(AffineSubspace(VP, basis, OFFSET, 0.7).log_density(x, t), law.log_prob(x))


def test_predictions_lie_on_the_subspace_and_project_at_small_noise():
    basis, x = frame(5, 2), cloud(4, 5)
    model = AffineSubspace(VP, basis, OFFSET, 0.7)
    off = torch.eye(5, dtype=torch.float64) - basis @ basis.T
    assert float(((model.predict(x, 0.5).x0 - OFFSET) @ off).abs().max()) < 1e-12
    t = torch.tensor(1e-9, dtype=torch.float64)
    torch.testing.assert_close(model.predict(x, t).x0, OFFSET + (x - OFFSET) @ basis @ basis.T, rtol=1e-8, atol=1e-8)


def test_sample_covariance():
    basis, n = frame(5, 2), 40000
    data = AffineSubspace(VP, basis, OFFSET, 0.7).sample(n, 0) - OFFSET
    products = data[:, :, None] * data[:, None, :]
    error = (products.mean(0) - 0.49 * basis @ basis.T).abs()
    assert (error < 4.5 * products.std(0) / n**0.5).all()


@pytest.mark.parametrize(
    ("basis", "offset", "std", "message"),
    [
        (torch.ones(5, 2), OFFSET, 1.0, "orthonormal columns; pass torch.linalg.qr"),
        (frame(5, 2), OFFSET[:4], 1.0, r"offset must have shape \(5,\)"),
        (frame(5, 2), OFFSET, 0.0, "std must be positive, got 0.0"),
        (OFFSET, OFFSET, 1.0, r"basis must have shape \(d, m\)"),
    ],
)
def test_bad_subspaces_are_refused(basis, offset, std, message):
    with pytest.raises(InvalidInput, match=message):
        AffineSubspace(VP, basis, offset, std)
