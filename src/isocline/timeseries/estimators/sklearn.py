"""What is used of scikit-learn; without it, every estimator is still importable and says how to get it when it is made."""

from __future__ import annotations

from typing import Any

from isocline._core.errors import ExtraMissing

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_array, check_is_fitted, check_random_state, check_X_y, validate_data
except ImportError as error:
    _CAUSE = error

    class BaseEstimator:  # type: ignore[no-redef]
        """Refuses to be made."""

        def __new__(cls, *_: Any, **__: Any) -> Any:
            """Name the extra."""
            raise ExtraMissing(f"{cls.__name__} needs scikit-learn: pip install 'isocline[timeseries]'") from _CAUSE

    class ClassifierMixin:  # type: ignore[no-redef]
        """Nothing."""

    class RegressorMixin:  # type: ignore[no-redef]
        """Nothing."""


__all__ = [
    "BaseEstimator",
    "ClassifierMixin",
    "RegressorMixin",
    "check_X_y",
    "check_array",
    "check_classification_targets",
    "check_is_fitted",
    "check_random_state",
    "validate_data",
]
