from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.timeseries.estimators import SignatureKernelClassifier
from isocline.timeseries.kernels import Identity, NeuralSignatureKernel


def turning(n: int, seed: int, length: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Noisy circles (n, T, 2), told apart only by the sense in which they turn."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    angle = np.linspace(0, 2 * np.pi, length) + rng.uniform(0, 2 * np.pi, (n, 1))
    x = np.stack([np.cos(angle), np.where(y, 1, -1)[:, None] * np.sin(angle)], 2)
    return x + 0.1 * rng.normal(size=x.shape), y


class Negative(NeuralSignatureKernel):
    """What a grid that is far too coarse may give."""

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return -super().__call__(x, y)


@pytest.mark.parametrize("kernel", [None, NeuralSignatureKernel(Identity())])
def test_it_tells_the_sense_of_a_turn(kernel: NeuralSignatureKernel | None) -> None:
    x, y = turning(16, 0)
    model = SignatureKernelClassifier(kernel, scale=0.5).fit(x, y)
    new, labels = turning(20, 1)
    assert model.score(new, labels) == 1.0
    assert (model.decision_function(new) > 0).tolist() == labels.astype(bool).tolist()
    backwards = model.predict(new[:, ::-1])  # the same points in the other order
    assert (backwards != labels).mean() > 0.8


def test_gaps_are_filled_and_channels_have_no_unit() -> None:
    x, y = turning(16, 2)
    new, labels = turning(20, 3)
    gaps = np.where(np.random.default_rng(0).random(new.shape) < 0.2, np.nan, new)
    model = SignatureKernelClassifier(NeuralSignatureKernel(Identity()), scale=0.5).fit(x, y)
    assert model.score(gaps, labels) >= 0.95
    units = np.array([1000.0, 0.01])
    other = clone(model).fit(x * units + 5, y)
    # the machine itself is solved to 1e-3
    np.testing.assert_allclose(other.decision_function(new * units + 5), model.decision_function(new), atol=0.01)


def test_a_series_whole_channel_may_be_missing() -> None:
    x, y = turning(12, 4)
    x[0, :, 1] = np.nan
    assert SignatureKernelClassifier().fit(x, y).predict(x).shape == (12,)


@pytest.mark.parametrize(
    ("use", "match"),
    [
        (lambda x, y: SignatureKernelClassifier(scale=0.0).fit(x, y), "scale and C must be positive"),
        (
            lambda x, y: SignatureKernelClassifier(Negative()).fit(x, y),
            "lower scale, or raise the kernel's refine",
        ),
        (lambda x, y: SignatureKernelClassifier().fit(x[:, :1], y), "at least 2 times"),
        (lambda x, y: SignatureKernelClassifier().fit(x, y).predict(x[..., :1]), "X has 1 channels, .* fitted with 2"),
    ],
)
def test_bad_input_is_refused(use: Callable[[np.ndarray, np.ndarray], object], match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        use(*turning(6, 5))


@pytest.mark.slow
def test_scikit_learns_checks_pass() -> None:
    found = check_estimator(SignatureKernelClassifier(NeuralSignatureKernel(Identity())), on_skip=None, on_fail=None)
    assert {row["check_name"]: str(row["exception"]) for row in found if row["status"] == "failed"} == {}
    assert len(found) > 40
