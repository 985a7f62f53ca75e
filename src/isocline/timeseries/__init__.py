"""Time series that are irregular or have gaps: models, estimators, kernels."""
