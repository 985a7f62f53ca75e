import math

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.processes import EDM, GaussianMixture, VariancePreserving
from tests.contracts.denoisers import cloud

VP = VariancePreserving()


def small(process=VP):
    return GaussianMixture(process, cloud(3, 2), torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0.5, 0.3, 0.2]))


def naive(model, x, alpha, sigma):
    """Return the log joint densities and posterior mean of one state, component by component."""
    joint, parts = [], []
    for mean, std, weight in zip(model.means, model.stds, model.weights, strict=True):
        law = torch.distributions.Normal(alpha * mean, torch.sqrt(alpha**2 * std**2 + sigma**2))
        joint.append(torch.log(weight) + law.log_prob(x).sum())
        precision = 1 / std**2 + alpha**2 / sigma**2
        parts.append((mean / std**2 + alpha * x / sigma**2) / precision)
    return torch.stack(joint), torch.stack(parts)


def test_against_a_loop_over_components():
    model, t = small(), torch.tensor([0.1, 0.4, 0.8], dtype=torch.float64)
    x = cloud(3, 2, name="x")
    for i in range(3):
        joint, parts = naive(model, x[i], VP.alpha(t[i]), VP.sigma(t[i]))
        share = torch.softmax(joint, 0)
        torch.testing.assert_close(model.responsibilities(x, t)[i], share, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(model.predict(x, t).x0[i], share @ parts, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(model.log_density(x, t)[i], torch.logsumexp(joint, 0), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("bed", [GaussianMixture.smooth_bed, GaussianMixture.sharp_bed])
def test_score_is_the_gradient_of_the_log_density(bed):
    model, t = bed(VP, 3), torch.tensor([0.02, 0.1, 0.3, 0.9], dtype=torch.float64)
    x, _ = VP.perturb(model.sample(4, 0), t, 1)
    x.requires_grad_()
    (expected,) = torch.autograd.grad(model.log_density(x, t).sum(), x)
    torch.testing.assert_close(model.score(x, t), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.predict(x, t).score, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("t", [0.05, 0.5, 1.0])
def test_density_integrates_to_one(t):
    means, stds = torch.tensor([[-1.0], [0.3], [2.0]]), torch.tensor([0.05, 0.4, 0.2])
    model = GaussianMixture(VP, means, stds, torch.tensor([0.2, 0.5, 0.3]))
    x = torch.linspace(-12, 12, 24001, dtype=torch.float64)
    density = torch.exp(model.log_density(x[:, None], t))
    assert float(torch.trapezoid(density, x)) == pytest.approx(1.0, abs=1e-9)
    mean = float(torch.trapezoid(density * x, x))
    assert mean == pytest.approx(float(VP.alpha(t)) * (-0.2 + 0.15 + 0.6), abs=1e-6)


def test_sample_moments():
    model, n = small(), 40000
    data = model.sample(n, 0)
    mean = model.weights @ model.means
    square = model.weights @ (model.means**2 + model.stds[:, None] ** 2)
    assert ((data.mean(0) - mean).abs() < 4.5 * data.std(0) / n**0.5).all()
    assert (((data**2).mean(0) - square).abs() < 4.5 * (data**2).std(0) / n**0.5).all()


def test_sample_frequencies():
    model = GaussianMixture(VP, 100 * torch.eye(3), torch.full((3,), 0.1), torch.tensor([0.6, 0.3, 0.1]))
    which, n = model.sample(20000, 0).argmax(1), 20000
    frequency = torch.bincount(which, minlength=3) / n
    assert ((frequency - model.weights).abs() < 4.5 * torch.sqrt(model.weights * (1 - model.weights) / n)).all()


def test_one_component_is_the_gaussian_posterior():
    model = GaussianMixture(EDM(), torch.full((1, 2), 0.5), torch.tensor([2.0]))
    x = torch.tensor([[3.0, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(model.predict(x, 1.0).x0, 0.5 + 0.8 * (x - 0.5))


def test_beds_are_as_described():
    smooth, sharp = GaussianMixture.smooth_bed(VP, 1), GaussianMixture.sharp_bed(VP, 1)
    circle = GaussianMixture.circle_bed(VP)
    assert smooth.means.shape == sharp.means.shape == (6, 8)
    assert circle.means.shape == (512, 16)
    torch.testing.assert_close(circle.means.norm(dim=1), torch.ones(512, dtype=torch.float64))
    gap = (circle.means - circle.means.roll(1, 0)).norm(dim=1)
    torch.testing.assert_close(gap, torch.full_like(gap, 2 * math.sin(math.pi / 512)))
    assert set(sharp.stds.tolist()) == {0.1}
    assert torch.equal(smooth.means, GaussianMixture.smooth_bed(EDM(), 1).means)
    assert not torch.equal(smooth.means, GaussianMixture.smooth_bed(VP, 2).means)


def test_bed_parameters_have_their_laws():
    """Means N(0, 0.36), log(std / 0.3) of variance 0.09, Dirichlet(3) weights of variance (1/6)(5/6)/19, 150 seeds."""
    beds = [GaussianMixture.smooth_bed(VP, seed) for seed in range(150)]
    means = torch.stack([b.means for b in beds]).flatten()
    logs = torch.log(torch.stack([b.stds for b in beds]).flatten() / 0.3)
    weights = torch.stack([b.weights for b in beds]).flatten()
    for sample, mean, variance in ((means, 0, 0.36), (logs, 0, 0.09), (weights, 1 / 6, 5 / 36 / 19)):
        n, centred = len(sample), (sample - mean) ** 2
        assert abs(float(sample.mean()) - mean) < 4.5 * (variance / n) ** 0.5
        assert abs(float(centred.mean()) - variance) < 4.5 * float(centred.std()) / n**0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3), torch.ones(3)), r"means must have shape \(K, \*\)"),
        ((torch.zeros(3, 2), torch.ones(2)), r"stds must have shape \(3,\), got \(2,\)"),
        ((torch.zeros(3, 2), -torch.ones(3)), "stds must not be negative"),
        ((torch.zeros(3, 2), torch.ones(3), torch.ones(3)), "weights must be positive and sum to 1"),
        ((torch.zeros(2, 2), torch.ones(2), torch.tensor([0.0, 1.0])), "weights must be positive and sum to 1"),
    ],
)
def test_bad_mixtures_are_refused(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        GaussianMixture(VP, *arguments)
