"""Every study holds in its short form, fails when something in it is broken, and is what the page shows."""

from __future__ import annotations

import math
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from isocline.plans import grids, solvers
from isocline.processes import Denoiser, FinitePoints, Sphere
from studies import kl_discretisation as kl
from studies import restoration_degradation as restoration
from studies import sampling_geometry as geometry
from studies import submanifold_singularity as submanifold
from studies import verdict
from studies.verdict import Claim

STUDIES = {"submanifold_singularity": submanifold, "kl_discretisation": kl, "restoration_degradation": restoration}
NAMES = [*STUDIES, "sampling_geometry"]


def failed(claims: list[Claim]) -> list[str]:
    return [claim.claim for claim in claims if not claim.holds]


def without_numbers(claims: list[Claim]) -> list[str]:
    return [re.sub(r"\d+", "#", claim.claim) for claim in claims]


# The short form


@pytest.mark.parametrize("name", STUDIES)
def test_the_short_form_holds_and_makes_the_claims_of_the_page(name: str) -> None:
    study = STUDIES[name].study(quick=True)
    assert failed(study.claims) == []
    assert without_numbers(study.claims) == without_numbers(verdict.stored(name))


@pytest.mark.slow
def test_the_geometry_holds_in_its_short_form_and_makes_the_claims_of_the_page() -> None:
    study = geometry.study(quick=True)
    assert failed(study.claims) == []
    assert without_numbers(study.claims) == without_numbers(verdict.stored("sampling_geometry"))


@pytest.fixture(scope="module")
def digits() -> tuple[FinitePoints, geometry.Paths]:
    model = FinitePoints(geometry.VE, geometry.digits()[0])
    return model, geometry.follow(solvers.ddim(geometry.VE, grids.karras(geometry.VE, 24)), model, 16)


def test_the_geometry_of_paths_holds(digits: tuple[FinitePoints, geometry.Paths]) -> None:
    model, paths = digits
    claims = geometry.straightness(paths, model, 4) + geometry.who_leads(paths) + geometry.likelihoods(paths, model)
    assert failed(claims + geometry.differences(model, 4)) == []


# The page and the scripts


@pytest.mark.parametrize("name", NAMES)
def test_the_page_shows_the_stored_table_and_every_stored_claim_holds(name: str) -> None:
    page = verdict.PAGE.read_text(encoding="utf-8")
    assert verdict.on_page(name, page) == page, f"run `python studies/{name}.py --store`"
    assert failed(verdict.stored(name)) == []
    assert (verdict.STORED / f"studies_{name}.png").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_a_claim_fits_into_a_table(name: str) -> None:
    assert all("|" not in text for claim in verdict.stored(name) for text in (claim.claim, claim.measured, claim.bar))


@pytest.mark.parametrize("name", NAMES)
def test_every_script_is_a_command(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Path(verdict.__file__).parent / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert end.value.code == 0
    assert "--picture" in capsys.readouterr().out


# What is broken is noticed


def test_a_wrong_denoiser_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Sphere._mean

    def shrunk(self: Sphere, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return 0.98 * right(self, x, alpha, sigma)

    monkeypatch.setattr(Sphere, "_mean", shrunk)
    assert "E[noise target²] is d − m: relative error" in failed(submanifold.averages())
    assert "slope of the data target's distance from the nearest point of the circle" in failed(submanifold.pointwise())


def test_a_wrong_noise_level_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    true = submanifold.OU.perturb
    monkeypatch.setattr(type(submanifold.OU), "perturb", lambda self, x0, t, rng: true(x0, 1.03 * t, rng), raising=True)
    assert any(name.startswith("Monte Carlo") for name in failed(submanifold.monte_carlo(20_000)))


def test_a_wrong_score_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kl.frozen_score

    def strong(t: np.ndarray, v: float) -> tuple[np.ndarray, np.ndarray]:
        factor, added = right(t, v)
        linear = np.exp((t[:-1] - t[1:]) / 2)
        return linear + 1.1 * (factor - linear), added

    monkeypatch.setattr(kl, "frozen_score", strong)
    assert "frozen score: slope of the result's KL in N; here the bound is not tight" in failed(kl.rates())
    assert len(failed(kl.what_to_freeze())) >= 1


def test_a_wrong_look_back_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(restoration.LOOK_BACKS, "sqrt(h)/2", lambda h: 4 * h)
    assert "Gaussian data, l = sqrt(h)/2: order" in failed(restoration.on_gaussians())


def test_a_wrong_kernel_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = restoration.exact_kernel_step

    def late(y: Tensor, data: Tensor, s: float, t: float, q: float) -> Tensor:
        return right(y, data, s, 1.001 * t, q)

    monkeypatch.setattr(restoration, "exact_kernel_step", late)
    assert any("DDIM" in name for name in failed(restoration.exact_kernels()))


def test_a_wrong_bandwidth_is_noticed(digits: tuple[FinitePoints, geometry.Paths]) -> None:
    model, paths = digits
    wrong = paths._replace(s=1.01 * paths.s)
    assert "D is the mean-shift step: largest difference" in failed(geometry.likelihoods(wrong, model))


@pytest.mark.slow
def test_a_network_that_memorises_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def rote(seed: int, quick: bool) -> Denoiser:
        return FinitePoints(geometry.VE, geometry.digits()[0][: geometry.SEEN])

    monkeypatch.setattr(geometry, "train", rote)
    names = failed(geometry.memorising(quick=True))
    assert "network: share of samples that copy a training digit" in names
    assert "network: error on seen digits over error on held-out ones" in names


# Parts against a second way


@pytest.mark.parametrize("rows", [kl.euler_maruyama, kl.frozen_score, kl.frozen_data])
def test_every_scheme_converges_to_the_data(rows: Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray]]) -> None:
    assert kl.divergence(rows, kl.exponential(1e-3, 4000), 0.3) < 1e-6


def test_the_divergence_is_torchs() -> None:
    times, v = kl.uniform(0.1, 7), 2.0
    chain = kl.end_variance(kl.frozen_data(times, v), float(kl.marginal(kl.T, v)))
    normal = [torch.distributions.Normal(0.0, math.sqrt(variance)) for variance in (float(kl.marginal(0.1, v)), chain)]
    assert math.isclose(
        kl.divergence(kl.frozen_data, times, v), float(torch.distributions.kl_divergence(*normal)), rel_tol=1e-4
    )


def test_the_exponential_grid_has_the_steps_of_the_theory() -> None:
    t = kl.exponential(1e-3, 500)
    ratio = -np.diff(t) / np.minimum(1, t[:-1])
    assert t[0] == kl.T
    assert math.isclose(t[-1], 1e-3)
    assert ratio.max() / ratio.min() < 1.02


def test_the_law_keeps_its_mass_and_tends_to_its_stationary_form() -> None:
    law = restoration.FokkerPlanck(restoration.double_well, restoration.two_bumps)
    density = law.density(np.array([0.05, 1.0, 400.0]))
    np.testing.assert_allclose(density.sum(1) * law.size, 1.0, rtol=1e-8)
    boltzmann = np.exp(2 * (2 * np.log(np.cosh(law.x)) - law.x**2 / 2))
    np.testing.assert_allclose(density[-1], boltzmann / boltzmann.sum() / law.size, rtol=1e-3)


def test_quantiles_invert_the_distribution() -> None:
    law, u = restoration.FokkerPlanck(restoration.cubic, restoration.two_bumps, width=3.0), np.linspace(0.01, 0.99, 25)
    mass = np.append(0, np.cumsum(law.density(np.array([0.5]))[0])) * law.size
    np.testing.assert_allclose(np.interp(law.quantile(u, 0.5), law.edges, mass), u, atol=1e-9)


def test_the_step_is_the_flow_to_first_order() -> None:
    """With ``h << l << 1`` a step moves by ``-h (F - g^2 score / 2)``."""
    x, score = np.array([-1.3, 0.4, 2.0]), np.array([0.7, -1.1, -2.5])
    h, l = 1e-7, 1e-4
    speed = (restoration.step(x, restoration.double_well, score, h, l) - x) / h
    np.testing.assert_allclose(speed, -restoration.double_well(x) + score / 2, rtol=3e-3)


def test_a_straight_path_has_no_bend_and_a_half_circle_half_its_chord() -> None:
    angle = torch.linspace(0, math.pi, 181, dtype=torch.float64)
    circle = torch.stack([torch.cos(angle), torch.sin(angle)], 1)[:, None]
    line = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None, None] * torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    assert float(geometry.bend(line)) < 1e-12
    assert math.isclose(float(geometry.bend(circle)), 0.5, rel_tol=1e-9)


def test_settled_is_the_first_step_after_the_last_wrong_one() -> None:
    wrong = torch.tensor([[True, False, True], [False, False, True], [True, False, False]])
    assert geometry.settled(wrong).tolist() == [3, 0, 2]
