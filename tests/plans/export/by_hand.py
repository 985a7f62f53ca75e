"""Samplers of k-diffusion and ComfyUI written out from their formulas, in the unscaled state, one plain loop each.

``model(y, s)`` returns the data prediction; `noise` holds one fresh noise for each step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from scipy.integrate import quad
from torch import Tensor

Model = Callable[[Tensor, float], Tensor]
Levels = tuple[float, ...]


def slope(model: Model, y: Tensor, s: float) -> Tensor:
    return (y - model(y, s)) / s


def churned(
    y: Tensor, s: float, n: int, z: Tensor, s_churn: float, s_noise: float, s_tmin: float, s_tmax: float
) -> tuple[Tensor, float]:
    gamma = min(s_churn / n, math.sqrt(2) - 1) if s_tmin <= s <= s_tmax else 0.0
    higher = s * (1 + gamma)
    return y + math.sqrt(higher**2 - s**2) * s_noise * z, higher


def sample_euler(
    model: Model, y: Tensor, sigmas: Levels, noise: list[Tensor],
    s_churn: float = 0.0, s_noise: float = 1.0, s_tmin: float = 0.0, s_tmax: float = math.inf,
) -> Tensor:  # fmt: skip
    for i, (s, t) in enumerate(pairwise(sigmas)):
        y, s = churned(y, s, len(sigmas) - 1, noise[i], s_churn, s_noise, s_tmin, s_tmax)
        y = y + (t - s) * slope(model, y, s)
    return y


def sample_heun(
    model: Model, y: Tensor, sigmas: Levels, noise: list[Tensor],
    s_churn: float = 0.0, s_noise: float = 1.0, s_tmin: float = 0.0, s_tmax: float = math.inf,
) -> Tensor:  # fmt: skip
    for i, (s, t) in enumerate(pairwise(sigmas)):
        y, s = churned(y, s, len(sigmas) - 1, noise[i], s_churn, s_noise, s_tmin, s_tmax)
        first = slope(model, y, s)
        second = slope(model, y + (t - s) * first, t) if t > 0 else first
        y = y + (t - s) * (first + second) / 2
    return y


def sample_dpm_2(model: Model, y: Tensor, sigmas: Levels, noise: list[Tensor]) -> Tensor:
    for s, t in pairwise(sigmas):
        d = slope(model, y, s)
        if t > 0:
            middle = math.sqrt(s * t)
            d = slope(model, y + (middle - s) * d, middle)
        y = y + (t - s) * d
    return y


def sample_dpmpp_2m(model: Model, y: Tensor, sigmas: Levels, noise: list[Tensor]) -> Tensor:
    return sample_dpmpp_2m_sde(model, y, sigmas, noise, eta=0.0)


def sample_dpmpp_2m_sde(model: Model, y: Tensor, sigmas: Levels, noise: list[Tensor], eta: float = 1.0) -> Tensor:
    old: list[Tensor] = []
    for i, (s, t) in enumerate(pairwise(sigmas)):
        data = model(y, s)
        if t == 0:
            return data
        h = math.log(s / t)
        mean = data
        if old:
            mean = data + (data - old[-1]) * h / math.log(sigmas[i - 1] / s) / 2
        y = t / s * math.exp(-eta * h) * y + (1 - math.exp(-(1 + eta) * h)) * mean
        y = y + t * math.sqrt(1 - math.exp(-2 * eta * h)) * noise[i]
        old.append(data)
    return y


def sample_dpmpp_3m_sde(model: Model, y: Tensor, sigmas: Levels, noise: list[Tensor], eta: float = 1.0) -> Tensor:
    old: list[Tensor] = []
    steps = [math.log(s / t) if t > 0 else math.inf for s, t in pairwise(sigmas)]
    for i, (s, t) in enumerate(pairwise(sigmas)):
        old.append(model(y, s))
        if t == 0:
            return old[-1]
        h = steps[i]
        whole = (1 + eta) * h
        y = math.exp(-whole) * y + (1 - math.exp(-whole)) * old[i]
        second = (math.exp(-whole) - 1) / whole + 1
        if i == 1:
            y = y + second * (old[1] - old[0]) * h / steps[0]
        if i > 1:
            near, far = (old[i] - old[i - 1]) * h / steps[i - 1], (old[i - 1] - old[i - 2]) * h / steps[i - 2]
            span = (steps[i - 1] + steps[i - 2]) / h
            bend = (near - far) / span
            y = y + second * (near + bend * steps[i - 1] / h) - (second / whole - 0.5) * bend
        y = y + t * math.sqrt(1 - math.exp(-2 * eta * h)) * noise[i]
    return y


def sample_dpmpp_2s_ancestral(model: Model, y: Tensor, sigmas: Levels, noise: list[Tensor], eta: float = 1.0) -> Tensor:
    for i, (s, t) in enumerate(pairwise(sigmas)):
        down, up = ancestral(s, t, eta)
        data = model(y, s)
        if down > 0:
            middle = math.sqrt(s * down)
            data = model(middle / s * y + (1 - middle / s) * data, middle)
        y = down / s * y + (1 - down / s) * data + up * noise[i]
    return y


def sample_euler_ancestral(model: Model, y: Tensor, sigmas: Levels, noise: list[Tensor], eta: float = 1.0) -> Tensor:
    for i, (s, t) in enumerate(pairwise(sigmas)):
        down, up = ancestral(s, t, eta)
        y = y + (down - s) * slope(model, y, s) + up * noise[i]
    return y


def ancestral(s: float, t: float, eta: float) -> tuple[float, float]:
    up = min(t, eta * t * math.sqrt(1 - (t / s) ** 2))
    return math.sqrt(t**2 - up**2), up


def sample_lms(model: Model, y: Tensor, sigmas: Levels, noise: list[Tensor], order: int = 4) -> Tensor:
    past: list[Tensor] = []
    for i, (s, t) in enumerate(pairwise(sigmas)):
        past.append(slope(model, y, s))
        nodes = range(max(0, i - order + 1), i + 1)
        for j in nodes:
            others = [sigmas[k] for k in nodes if k != j]

            def basis(u: float, j: int = j, others: list[float] = others) -> float:
                return math.prod((u - o) / (sigmas[j] - o) for o in others)

            y = y + quad(basis, s, t, epsabs=0, epsrel=1e-12)[0] * past[j]
    return y


def denoised_at_the_end(sample: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return `sample` with a last step to level 0 replaced by the data prediction, as ComfyUI has it."""

    def run(model: Model, y: Tensor, sigmas: Levels, noise: list[Tensor], **settings: float) -> Tensor:
        if sigmas[-1] > 0:
            return sample(model, y, sigmas, noise, **settings)
        return model(sample(model, y, sigmas[:-1], noise, **settings), sigmas[-2])

    return run


def ipndm(model: Model, y: Tensor, sigmas: Levels, noise: list[Tensor]) -> Tensor:
    weights = [[1.0], [1.5, -0.5], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]
    past: list[Tensor] = []
    for s, t in pairwise(sigmas):
        past.append(slope(model, y, s))
        rule = weights[min(len(past), 4) - 1]
        y = y + (t - s) * sum(w * d for w, d in zip(rule, reversed(past), strict=False))
    return y


def res_multistep(model: Model, y: Tensor, sigmas: Levels, noise: list[Tensor]) -> Tensor:
    old: list[Tensor] = []
    for i, (s, t) in enumerate(pairwise(sigmas)):
        data, h = model(y, s), math.log(s / t)
        phi1 = (1 - math.exp(-h)) / h
        phi2 = (1 - phi1) / h
        c2 = -math.log(sigmas[i - 1] / s) / h if old else math.inf
        past = old[-1] if old else data
        y = math.exp(-h) * y + h * ((phi1 - phi2 / c2) * data + phi2 / c2 * past)
        old.append(data)
    return y


def uni_pc(model: Model, y: Tensor, sigmas: Levels, noise: list[Tensor], variant: str = "bh1") -> Tensor:
    """Run UniPC of order 3 on data predictions, which falls to order 1 at the end, from the linear systems of the paper."""
    lam = [-math.log(s) for s in sigmas]
    n = len(sigmas) - 1
    past = [model(y, sigmas[0])]
    for i in range(n):
        order, h = min(3, i + 1, n - i), lam[i + 1] - lam[i]
        base = math.exp(-h) * y + (1 - math.exp(-h)) * past[i]
        ratios = [(lam[i - k] - lam[i]) / h for k in range(1, order)]
        slopes = [(past[i - k] - past[i]) / r for k, r in zip(range(1, order), ratios, strict=True)]
        b_h = -h if variant == "bh1" else math.expm1(-h)
        rho = [0.5] if order == 2 else solved(ratios, h, b_h)
        guess = base - b_h * sum(r * d for r, d in zip(rho, slopes, strict=True))
        if i + 1 == n:
            return guess
        past.append(model(guess, sigmas[i + 1]))
        rho = [0.5] if order == 1 else solved([*ratios, 1.0], h, b_h)
        y = base - b_h * sum(r * d for r, d in zip(rho, [*slopes, past[i + 1] - past[i]], strict=True))
    return y


def solved(ratios: list[float], h: float, b_h: float) -> list[float]:
    """Return rho of ``sum_k rho_k r_k^(i-1) = i! hh phi_{i+1}(hh) / B``, ``hh = -h``."""
    if not ratios:
        return []
    hh, right, phi = -h, [], math.expm1(-h) / -h - 1
    for i in range(1, len(ratios) + 1):
        right.append(math.factorial(i) * phi / b_h)
        phi = phi / hh - 1 / math.factorial(i + 1)
    matrix = torch.tensor([[r**i for r in ratios] for i in range(len(ratios))], dtype=torch.float64)
    solution: list[float] = torch.linalg.solve(matrix, torch.tensor(right, dtype=torch.float64)).tolist()
    return solution
