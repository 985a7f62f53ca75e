"""Do neural signature kernels classify better than a Gaussian kernel on features? BasicMotions, 40 + 40 recordings.

    python benchmarks/signature_kernel.py [--seeds 5] [--quick]

Six channels, 100 times, four activities; the archive's own split first, then other splits of all 80 recordings, as many of each
class. A support vector machine with three kernels: the ReLU neural signature kernel, the identity one (signatures), and
exp(-g |f - f'|^2) of features (mean, standard deviation, least, largest value and mean absolute step of each channel,
standardised). Each has two numbers, its scale and C; they are chosen from grids of 3 x 2 by 4-fold cross-validation on the training
half. Every channel keeps the share of points that the column says; gaps are filled linearly. Cells are kept in
``runs/signature_kernel``. Writes ``docs/benchmarks/signature_kernel.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from isocline._core import files
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.datasets import basic_motions
from isocline.timeseries.estimators import SignatureKernelClassifier
from isocline.timeseries.kernels import Activation, Identity, NeuralSignatureKernel, ReLU

OUT, RUNS = Path(__file__).parent.parent / "docs" / "benchmarks", Path("runs/signature_kernel")
MISSING = (0.0, 0.5)


def features(x: np.ndarray) -> np.ndarray:
    """Return five numbers for each channel of series (n, T, C) with gaps, (n, 5 C)."""
    places = np.arange(x.shape[1])
    full = np.moveaxis(x, 1, 2).copy()
    for channel in full.reshape(-1, x.shape[1]):  # a view; gaps are filled only to find the steps
        known = np.isfinite(channel)
        channel[~known] = np.interp(places[~known], places[known], channel[known])
    steps = np.abs(np.diff(full, axis=2)).mean(2)
    return np.concatenate([np.nanmean(x, 1), np.nanstd(x, 1), np.nanmin(x, 1), np.nanmax(x, 1), steps], 1)


class Neural:
    """A search that computes one Gram matrix for each scale."""

    def __init__(self, activation: Activation) -> None:
        self.kernel = NeuralSignatureKernel(activation)

    def fit(self, x: np.ndarray, y: np.ndarray) -> SignatureKernelClassifier:
        """Return the estimator with the best scale and C."""
        scores = {}
        for scale in (0.03, 0.06, 0.1):
            gram = SignatureKernelClassifier(self.kernel, scale=scale).fit(x, y).gram_
            for c in (10.0, 1000.0):
                scores[scale, c] = cross_val_score(SVC(kernel="precomputed", C=c), gram, y, cv=folds()).mean()
        scale, c = max(scores, key=lambda key: scores[key])
        return SignatureKernelClassifier(self.kernel, scale=scale, C=c).fit(x, y)


def gaussian() -> Any:
    model = make_pipeline(FunctionTransformer(features), StandardScaler(), SVC())
    return GridSearchCV(model, {"svc__gamma": [0.003, 0.01, 0.03], "svc__C": [10.0, 1000.0]}, cv=folds())


def folds() -> StratifiedKFold:
    return StratifiedKFold(4, shuffle=True, random_state=0)


MODELS = {
    "neural signature, ReLU": lambda: Neural(ReLU()),
    "neural signature, identity": lambda: Neural(Identity()),
    "Gaussian, of features": gaussian,
}


def data(seed: int, missing: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training and test part; seed 0 is the archive's split."""
    split = basic_motions()
    x = torch.cat([split.train.values, split.test.values]).double()
    y = torch.cat([split.train.labels, split.test.labels])
    order = torch.arange(80)
    if seed:
        mixed = Stream(seed, "order").permutation(80)
        order = torch.cat([mixed[y[mixed] == k][part] for part in (slice(10), slice(10, 20)) for k in range(4)])
    x[Stream(seed, "gaps").uniform(tuple(x.shape)) < missing] = torch.nan
    x, y = x[order].numpy(), y[order].numpy()
    return x[:40], y[:40], x[40:], y[40:]


def cell(name: str, missing: float, seed: int) -> dict[str, Any]:
    path = RUNS / f"{name}, {missing:g}, {seed}.json"
    if path.is_file():
        return files.read_json(path)
    x, y, new, labels = data(seed, missing)
    began = time.process_time()
    search = MODELS[name]().fit(x, y)
    found = {"accuracy": float(search.score(new, labels)), "chosen": chosen(search)}
    found["seconds"] = time.process_time() - began
    files.ensure_folder(RUNS)
    files.write_json(path, found)
    print(f"{name:28s} missing {missing:g}, seed {seed}: {found}", flush=True)
    return found


def chosen(model: Any) -> dict[str, float]:
    if isinstance(model, SignatureKernelClassifier):
        return {"scale": model.scale, "C": model.C}
    found: dict[str, float] = model.best_params_
    return found


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| kernel | missing | accuracy, mean ± standard deviation | archive's split | seconds |", "|---" * 5 + "|"]
    for row in rows:
        found = 100 * np.array([c["accuracy"] for c in row["cells"]])
        seconds = np.mean([c["seconds"] for c in row["cells"]])
        shown = f"{found.mean():.1f} ± {found.std():.1f} | {found[0]:.1f} | {seconds:.0f}"
        lines.append(f"| {row['model']} | {100 * row['missing']:.0f} % | {shown} |")
    return "\n".join(lines)


def page(result: dict[str, Any]) -> str:
    versions = result["versions"]
    return (
        "# Kernels on recordings of motion\n\n"
        f"Written by `python benchmarks/signature_kernel.py --seeds {result['seeds']}`; isocline {versions['isocline']}, "
        f"torch {versions['torch']}, scikit-learn {versions['sklearn']}, Python {versions['python']}. BasicMotions: "
        f"40 recordings to learn from, 40 to test on, four classes; {result['seeds']} splits, the first of them the archive's. "
        "A support vector machine with three kernels, two numbers of each chosen by cross-validation on the training half. "
        "Seconds are processor time of the whole "
        "search.\n\n" + markdown(result["rows"]) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument(
        "--quick", action="store_true", help="1 seed, nothing missing, without ReLU; prints, writes no tables"
    )
    given = parser.parse_args()
    seeds, shares = (1, MISSING[:1]) if given.quick else (given.seeds, MISSING)
    names = list(MODELS)[1:] if given.quick else list(MODELS)
    rows = [
        {"model": name, "missing": share, "cells": [cell(name, share, seed) for seed in range(seeds)]}
        for share in shares
        for name in names[::-1]
    ]
    print(markdown(rows))
    if given.quick:
        return
    versions = {"isocline": __version__, "torch": torch.__version__, "python": platform.python_version()}
    result = {"seeds": seeds, "versions": versions | {"sklearn": sklearn.__version__}, "rows": rows}
    files.write_json(given.out / "signature_kernel.json", result)
    files.write_text(given.out / "signature_kernel.md", page(result))


if __name__ == "__main__":
    main()
