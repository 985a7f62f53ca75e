r"""What a network must learn when data lie on a thin set: which targets explode as ``t -> 0``, and how fast.

    python studies/submanifold_singularity.py [--quick] [--json] [--picture FILE]

Ornstein-Uhlenbeck noise, ``x_t = a x_0 + sqrt(q) eps`` with ``a = exp(-t/2)``, ``q = 1 - exp(-t)``; data uniform on a sphere
``M`` of dimension ``m`` in ``R^d``. Let ``y`` be the point of ``M`` nearest to ``x``, ``n = x - y`` and ``II`` the second
fundamental form. Laplace's method (Lu, Wang and Bal, arXiv 2301.07882; the constants are derived again here) gives

    p_t(x) = (2 pi q)^{-(d-m)/2} exp(-dist(x, aM)^2 / 2q) rho(y) det(I - n.II)^{-1/2} (1 + O(t)),

and from it, with ``f = E[x_0 | x_t]``, noise target ``e = (x - a f) / sqrt(q)`` and score ``-e / sqrt(q)``:

    t E|score|^2 -> d - m,      |score| t -> dist(x, M)  at a fixed x off M,
    E|e|^2       -> d - m,      |e|  ~ dist / sqrt(t),   de/dn ~ 1 / sqrt(t),   |de/dt| ~ dist t^{-3/2} / 2,
    SNR E|x_0 - f|^2 -> m,      f -> y,   grad f -> P_T (I - n.II)^{-1}  inside the reach.

So the data target stays bounded. Its slope does not: on the medial axis it grows like ``1 / t``. And data of thickness ``w``
have no singularity at all below ``t ~ w^2``. Expectations are quadratures over the radius, good to rounding; a Monte Carlo
draw checks them.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from scipy.optimize import brentq
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from isocline.processes import FinitePoints, GaussianMixture, Sphere, ornstein_uhlenbeck
from studies.verdict import Claim, Panel, Study, below, main, near, slope, spread

OU = ornstein_uhlenbeck(t_min=1e-8, t_max=10.0)
SPHERES = ((2, 1), (3, 1), (8, 1), (3, 2), (8, 5))  # d, m
LADDER = np.geomspace(1e-6, 1e-3, 7)


def radial(model: Sphere, t: Tensor, nodes: int = 120) -> tuple[Tensor, Tensor, Tensor]:
    """Return states (T K, d) on the first axis, their times (T K,) and weights (T, K), for times (T,).

    They integrate over the law of the distance from the centre within the sphere's plane. The law of ``x_t`` is invariant
    under rotations of that plane, and normal in the other coordinates, which are zero here.
    """
    alpha, sigma, m = OU.alpha(t)[:, None], OU.sigma(t)[:, None], model.intrinsic
    node, weight = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(nodes))
    low, high = (alpha * model.radius - 12 * sigma).clamp_min(0), alpha * model.radius + (12 + 6 * math.sqrt(m)) * sigma
    r, times = low + 0.5 * (high - low) * (node + 1), t.repeat_interleave(nodes)
    x = torch.nn.functional.pad(r.reshape(-1, 1), (0, model.dimension - 1))
    area = math.log(2) + 0.5 * (m + 1) * math.log(math.pi) - math.lgamma(0.5 * (m + 1))
    across = (model.dimension - m - 1) * torch.log(math.sqrt(2 * math.pi) * sigma)  # density of the others at 0
    density = torch.exp(model.log_density(x, times).reshape(r.shape) + across + area + m * torch.log(r))
    return x, times, 0.5 * (high - low) * weight * density


def noise_energy(model: Sphere, t: ndarray) -> ndarray:
    """Return ``E|e|^2`` of the noise target under ``p_t``, for times (T,)."""
    x, times, weight = radial(model, torch.from_numpy(t))
    plane = (weight * model.predict(x, times).eps.square().sum(1).reshape(weight.shape)).sum(1)
    return plane.numpy() + model.dimension - model.intrinsic - 1


def score_energy(model: Sphere, t: ndarray) -> ndarray:
    """Return ``E|score|^2 = E|e|^2 / q`` under ``p_t``, for times (T,)."""
    return noise_energy(model, t) / -np.expm1(-t)


def data_loss(model: Sphere, t: ndarray) -> ndarray:
    """Return ``SNR E|x_0 - f|^2``, the floor of the weighted data loss, for times (T,).

    It is ``a E tr grad f``, because ``grad f = (a / q) Cov(x_0 | x_t)``: written so, nothing cancels at small `t`.
    """
    x, times, weight = radial(model, torch.from_numpy(t))
    trace = sum(jacobian(model, x, times, axis)[:, axis] for axis in range(model.intrinsic + 1))
    return np.exp(-t / 2) * (weight * torch.as_tensor(trace).reshape(weight.shape)).sum(1).numpy()


def jacobian(model: FinitePoints | GaussianMixture | Sphere, x: Tensor, t: Tensor | float, axis: int) -> Tensor:
    """Return column `axis` of ``grad f`` (B, d)."""
    v = torch.zeros_like(x)
    v[:, axis] = 1
    return model.vjp(x, t, v)[1]


def averages() -> list[Claim]:
    """Second moments under ``p_t``."""
    early = np.append(LADDER, [0.1, 1.0])
    score = noise = data = total = 0.0
    for d, m in SPHERES:
        model = Sphere(OU, d, m)
        score = max(score, *abs(LADDER * score_energy(model, LADDER) / (d - m) - 1))
        noise = max(noise, *abs(noise_energy(model, LADDER) / (d - m) - 1))
        data = max(data, *abs(data_loss(model, LADDER) / m - 1))
        total = max(total, *abs((noise_energy(model, early) + data_loss(model, early)) / d - 1))
    return [
        below("t E[score²] is d − m: relative error, t ≤ 1e-3, five spheres", score, 0.01),
        below("E[noise target²] is d − m: relative error", noise, 0.01),
        below("SNR-weighted data loss is m: relative error", data, 0.01),
        below("noise target and data loss add up to d at every t: relative error", total, 1e-9),
    ]


def monte_carlo(samples: int) -> list[Claim]:
    """Check the quadrature by sampling, and the identity of the two losses."""
    z, gap = [], 0.0
    for d in (2, 3, 8):
        model, t = Sphere(OU, d, 1), 1e-3
        x0, at = model.sample(samples, d), np.array([t])
        x, noise = OU.perturb(x0, t, 100 + d)
        found = model.predict(x, t)
        weighted = (x0 - found.x0).square().sum(1) * float(OU.alpha(t) / OU.sigma(t)) ** 2
        plain = (noise - found.eps).square().sum(1)
        for size, exact in ((found.eps.square().sum(1), noise_energy(model, at)), (weighted, data_loss(model, at))):
            z.append(abs(float(size.mean()) - exact.item()) / (float(size.std()) / math.sqrt(samples)))
        gap = max(gap, float((weighted - plain).abs().max() / plain.max()))
    return [
        below(f"Monte Carlo with {samples} samples against quadrature: largest of six z-scores", max(z), 4.0),
        below("SNR-weighted data loss equals the noise loss, sample by sample", gap, 1e-9),
    ]


def off_the_set(d: int) -> tuple[Sphere, Tensor, Tensor, Tensor]:
    """Return the circle, points (B, d) off it and inside its reach, their distances (B,) and nearest points (B, d)."""
    model = Sphere(OU, d, 1)
    shift = torch.tensor([-0.5, -0.3, 0.3, 0.5], dtype=torch.float64)
    angle = torch.tensor([0.3, 1.7, 2.9, 5.0], dtype=torch.float64)
    nearest = torch.nn.functional.pad(torch.stack([torch.cos(angle), torch.sin(angle)], 1), (0, d - 2))
    x = nearest * (1 + shift[:, None])
    x[:, 2:] = 0.2
    return model, x, (x - nearest).norm(dim=1), nearest


def pointwise() -> list[Claim]:
    """What happens at fixed points off the circle."""
    ratio, rate = 0.0, 0.0
    slopes: dict[str, list[float]] = {"score": [], "noise": [], "data": [], "gap": [], "bend": []}
    for d in (2, 3, 8):
        model, x, distance, nearest = off_the_set(d)
        found = [model.predict(x, t) for t in LADDER]
        ratio = max(
            ratio,
            *(float((p.score.norm(dim=1) * t / distance - 1).abs().max()) for p, t in zip(found, LADDER, strict=True)),
        )
        rows = {
            "score": [p.score.norm(dim=1) for p in found],
            "noise": [p.eps.norm(dim=1) for p in found],
            "data": [p.x0.norm(dim=1) for p in found],
            "gap": [(p.x0 - nearest).norm(dim=1) for p in found],
            "bend": [normal_slope(model, x, nearest, t) for t in LADDER],
        }
        for name, values in rows.items():
            slopes[name] += [slope(LADDER, column.numpy()).value for column in torch.stack(values, 1)]
        step = 1e-3
        late, early = (model.predict(x, 1e-4 * (1 + sign * step)).eps for sign in (1, -1))
        speed = (late - early).norm(dim=1) / (2e-4 * step)
        rate = max(rate, float((speed / (0.5 * distance * 1e-4**-1.5) - 1).abs().max()))
    return [
        below("score times t is the distance: relative error at 12 fixed points, t ≤ 1e-3", ratio, 0.01),
        near("slope of the score against t at these points: mean [range]", spread(slopes["score"]), -1.0, 0.05),
        near("slope of the noise target against t at these points", spread(slopes["noise"]), -0.5, 0.05),
        near("slope of the data target against t at these points", spread(slopes["data"]), 0.0, 0.05),
        near("slope of the noise target's normal derivative against t", spread(slopes["bend"]), -0.5, 0.05),
        below("time derivative of the noise target is dist t^(-3/2) / 2: relative error at t = 1e-4", rate, 0.01),
        near(
            "slope of the data target's distance from the nearest point of the circle", spread(slopes["gap"]), 1.0, 0.05
        ),
    ]


def normal_slope(model: Sphere, x: Tensor, nearest: Tensor, t: float) -> Tensor:
    """Return the derivative (B,) of the noise target along the normal."""
    normal = torch.nn.functional.normalize(x - nearest, dim=1)
    along = (normal * model.vjp(x, t, normal)[1]).sum(1)
    return (1 - float(OU.alpha(t)) * along) / float(OU.sigma(t))


def bounded() -> list[Claim]:
    """The data target's value and slope, and the expansion of the density they come from."""
    model, far = Sphere(OU, 3, 1), torch.logspace(-9, 3, 49, dtype=torch.float64)
    x = torch.cat([torch.nn.functional.pad(far[:, None], (0, 2)), torch.nn.functional.pad(far[:, None], (1, 1)) + 0.1])
    largest = max(float(model.predict(x, t).x0.norm(dim=1).max()) for t in (1e-8, 1e-4, 1.0, 5.0))
    r, t = torch.linspace(0.5, 1.5, 11, dtype=torch.float64), 1e-3
    x = torch.nn.functional.pad(r[:, None], (0, 2))
    ahead, aside, across = (jacobian(model, x, t, axis) for axis in range(3))
    want = torch.zeros_like(aside)
    want[:, 1] = 1 / r  # P_T (I - n.II)^{-1} on the circle: R / r along the tangent
    error = max(float((aside - want).abs().max()), float(ahead.abs().max()), float(across.abs().max()))
    return [
        below("largest data target in units of R, points up to 1000 R away, t from 1e-8 to 5", largest, 1 + 1e-12),
        below("slope of the data target is R / r along the circle, 0 across it: error at t = 1e-3", error, 0.01),
        near("slope against t of the error of the density's expansion", slope(LADDER, expansion_error()), 1.0, 0.05),
    ]


def expansion_error() -> list[float]:
    """Return the largest error of the logarithm of Laplace's expansion of ``p_t`` on the points off a circle in ``R^3``."""
    model, x, _, _ = off_the_set(3)
    r, errors = x[:, :2].norm(dim=1), []
    for t in LADDER:
        q = float(OU.sigma(t)) ** 2
        squared = (r - float(OU.alpha(t))) ** 2 + x[:, 2] ** 2
        # d - m = 2, rho = 1 / (2 pi R), det(I - n.II) = r / R with R = 1
        guess = -math.log(2 * math.pi * q) - squared / (2 * q) - math.log(2 * math.pi) - 0.5 * torch.log(r)
        errors.append(float((model.log_density(x, t) - guess).abs().max()))
    return errors


def thick_energy(width: float, t: float) -> float:
    """Return ``E|score|^2`` for a circle thickened by ``N(0, w^2 I)``: 512 Gaussians, by quadrature over one of their sectors."""
    model = GaussianMixture.circle_bed(OU, d=2, components=512, std=width)
    wide, alpha = math.sqrt(float(OU.alpha(t) * width) ** 2 + float(OU.sigma(t)) ** 2), float(OU.alpha(t))
    node, weight = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(48))
    r = alpha + 8 * wide * node
    angle = 2 * math.pi / 512 * torch.arange(8, dtype=torch.float64) / 8
    x = torch.stack([r[:, None] * torch.cos(angle), r[:, None] * torch.sin(angle)], -1).reshape(-1, 2)
    mass = (8 * wide * weight * r)[:, None].expand(-1, 8).reshape(-1) * torch.exp(model.log_density(x, t))
    return float(mass @ model.score(x, t).square().sum(1) / mass.sum())


def thickness() -> list[Claim]:
    """Data of finite thickness."""
    errors, halves, flat = [], [], []
    for w in (0.02, 0.05):
        ladder = np.geomspace(1e-4 * w**2, 4 * w**2, 9)
        law = [thick_energy(w, t) * (float(OU.alpha(t) * w) ** 2 + float(OU.sigma(t)) ** 2) for t in ladder]
        errors += [abs(value - 1) for value in law]
        limit = thick_energy(w, 1e-6 * w**2)
        halves.append(brentq(lambda u, w=w, limit=limit: thick_energy(w, u * w**2) - limit / 2, 0.5, 2.0, xtol=1e-4))
        low = np.geomspace(1e-5 * w**2, 1e-2 * w**2, 5)
        flat.append(slope(low, [thick_energy(w, t) for t in low]).value)
    return [
        below(
            "circle of thickness w: E[score²] is 1 / (q + a² w²): relative error for w = 0.02 and 0.05",
            max(errors),
            0.01,
        ),
        near("time where E[score²] is half its limit, in units of w²", spread(halves), 1.0, 0.03),
        near("slope of E[score²] against t for t ≤ w²/100 (thin data: −1)", spread(flat), 0.0, 0.05),
    ]


def medial_axis() -> list[Claim]:
    """Where a point has two nearest points, the data target is bounded and its slope is not."""
    mu = torch.tensor([0.6, -0.3, 0.2], dtype=torch.float64)
    model, centre = FinitePoints(OU, torch.stack([mu, -mu])), torch.zeros(1, 3, dtype=torch.float64)
    size = float(mu.norm())
    steep = [float((mu / size * model.vjp(centre, t, (mu / size)[None])[1]).sum()) for t in LADDER]
    two = max(abs(s * t / size**2 - 1) for s, t in zip(steep, LADDER, strict=True))
    circle, middle = Sphere(OU, 2, 1), torch.zeros(1, 2, dtype=torch.float64)
    hub = max(abs(float(jacobian(circle, middle, t, 0)[0, 0]) * 2 * t - 1) for t in LADDER)
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)[:, None] * mu
    value = max(float(model.predict(x, t).x0.norm(dim=1).max()) for t in LADDER) / size
    return [
        below("two points: slope of the data target between them is μ²/t: relative error", two, 0.01),
        near("two points: log-log slope of that slope against t", slope(LADDER, steep), -1.0, 0.05),
        below("centre of the circle: slope of the data target is R²/(2t): relative error", hub, 0.01),
        below("two points: largest data target in units of μ", value, 1 + 1e-12),
    ]


def panels() -> list[Panel]:
    """What the picture shows."""
    model, x, _, _ = off_the_set(3)
    found = [model.predict(x[:1], t) for t in LADDER]
    lines = {
        "score": (LADDER, [float(p.score.norm()) for p in found]),
        "noise target": (LADDER, [float(p.eps.norm()) for p in found]),
        "data target": (LADDER, [float(p.x0.norm()) for p in found]),
    }
    wide = np.geomspace(1e-8, 1e-2, 25)
    energy = {"thin": (wide, score_energy(Sphere(OU, 2, 1), wide).tolist())}
    energy |= {f"w = {w:g}": (wide, [thick_energy(w, t) for t in wide]) for w in (0.05, 0.02)}
    return [
        Panel("At a fixed point off the circle", "t", "size", lines),
        Panel("Thickness ends the singularity", "t", "E[score²]", energy),
    ]


def study(quick: bool = False) -> Study:
    """Return the outcome."""
    claims = (
        averages() + monte_carlo(20_000 if quick else 200_000) + pointwise() + bounded() + thickness() + medial_axis()
    )
    return Study(claims, panels)


if __name__ == "__main__":
    sys.exit(main("submanifold_singularity", __doc__, study))
