"""The study of wide networks: its claims, and that something broken is noticed."""

from __future__ import annotations

import pytest
from torch import Tensor

from isocline.timeseries.kernels import ReLU
from studies import neural_signature_kernel as wide
from studies import verdict
from studies.verdict import Claim


def failed(claims: list[Claim]) -> list[str]:
    return [claim.claim for claim in claims if not claim.holds]


@pytest.mark.slow
def test_infinite_width_tends_to_the_kernel() -> None:
    assert failed(wide.deep((3, 4, 5, 6))[2:]) == []


@pytest.mark.slow
def test_all_claims_hold_in_the_short_form() -> None:
    study = wide.study(quick=True)
    assert failed(study.claims) == []
    assert len(study.claims) == 9


def test_the_page_shows_the_stored_table_and_every_stored_claim_holds() -> None:
    page = verdict.PAGE.read_text(encoding="utf-8")
    name = "neural_signature_kernel"
    assert verdict.on_page(name, page) == page, f"run `python studies/{name}.py --store`"
    assert failed(verdict.stored(name)) == []


def test_a_wrong_moment_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ReLU.moment
    monkeypatch.setattr(ReLU, "moment", lambda self, uu, uv, vv: 1.5 * right(self, uu, uv, vv))
    wide.drawn.cache_clear()
    claims = wide.wide(40, 50)
    wrong = [claim.claim for claim in claims if not claim.holds]
    assert any(claim.startswith("ReLU,") for claim in wrong)
    assert all("ReLU" in claim for claim in wrong)  # the control of ReLU may fail with it, the identity may not


def test_weights_that_are_not_scaled_by_the_width_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = wide.ControlledResNet.__call__

    def strong(self: wide.ControlledResNet, x: Tensor, rng: int) -> Tensor:
        return 1.2 * right(self, x, rng)

    monkeypatch.setattr(wide.ControlledResNet, "__call__", strong)
    wide.drawn.cache_clear()
    assert len(failed(wide.wide(40, 50))) >= 2
    wide.drawn.cache_clear()
