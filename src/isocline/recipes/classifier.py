"""The bundled Fashion-MNIST classifier, whose features the Fréchet distance compares, and the recipe that trained it.

Cross entropy on the 60 000 training images, AdamW, no augmentation; the 10 000 test images are read once, at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isocline._core import files
from isocline._core.errors import BadFile
from isocline._core.estimate import Estimate
from isocline._core.stream import Stream
from isocline.datasets import Images, load_fashion
from isocline.datasets.images import Shuffled
from isocline.metrics.proportion import proportion
from isocline.models import bundled
from isocline.networks.classifier import Classifier
from isocline.training import Part, Settings, Trained, train

SETTINGS = Settings(steps=8_000, batch=128, rate=2e-3, decay=0.05)
CHUNK = 500  # images classified at a time


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier with averaged weights, its accuracy on images it never saw, and how it was trained."""

    classifier: Classifier
    accuracy: Estimate
    trained: Trained


def train_classifier(
    folder: str | Path, data: str | Path | None = None, settings: Settings | None = None
) -> TrainedClassifier:
    """Train the bundled Fashion-MNIST classifier again (about ten minutes on one core).

    Args:
        folder: where checkpoints and ``classifier.safetensors`` are kept; a run that was stopped continues from there.
        data: a folder of IDX files; see `load_fashion`.
        settings: length, rates and seed.

    Raises:
        DataMissing: the images are not there; raised before training starts.
    """
    images, test = load_fashion(data), load_fashion(data, train=False)
    classifier, trained = fit_classifier(images, folder, settings)
    measured = accuracy(classifier, test)
    about = {
        "name": "fashion_classifier",
        "data": "Fashion-MNIST, 60000 training images (Zalando SE)",
        "licence": "data: MIT; weights: Apache-2.0",
        "accuracy": f"{measured.value:.4f}",
        "accuracy_interval": f"{measured.low:.4f} {measured.high:.4f} (95 %, {measured.n} test images)",
        "seconds": f"{trained.seconds:.0f}",
    }
    files.write_tensors(Path(folder) / "classifier.safetensors", trained.weights, about)
    return TrainedClassifier(classifier, measured, trained)


def fit_classifier(images: Images, folder: str | Path, settings: Settings | None = None) -> tuple[Classifier, Trained]:
    """Minimise the cross entropy on `images`; return the classifier with averaged weights, and the run."""
    settings = settings or SETTINGS
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        classifier = Classifier(len(images.names))
    batch = settings.batch
    order = Shuffled(len(images), batch, Stream(settings.seed, "classifier/order"))

    def batches(step: int, part: Part) -> tuple[Tensor, Tensor]:
        return images.take(order(step)[part.rows(batch)])

    def loss(network: nn.Module, data: tuple[Tensor, Tensor], step: int, part: Part) -> Tensor:
        return F.cross_entropy(network(data[0]), data[1])

    trained = train(classifier, batches, loss, settings, folder, description="training the classifier")
    classifier.load_state_dict(trained.weights)
    return classifier.requires_grad_(False), trained


def accuracy(classifier: Classifier, images: Images) -> Estimate:
    """Return the share of `images` that `classifier` names correctly, with its 95 % Wilson interval."""
    parts = torch.arange(len(images)).split(CHUNK)
    with torch.no_grad():
        hits = sum(int((classifier(x).argmax(1) == label).sum()) for x, label in map(images.take, parts))
    return proportion(hits, len(images))


def load_classifier(path: str | Path | None = None) -> Classifier:
    """Return the classifier stored at `path`, or the bundled one; float32, without gradients for its weights.

    Raises:
        DataMissing: there is no such file.
        BadFile: the file is truncated or holds something else.
    """
    path = bundled("fashion_classifier") if path is None else path
    weights, _ = files.read_tensors(path)
    try:
        classifier = Classifier(weights["last.bias"].numel())
        classifier.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise BadFile(f"{path} does not hold a classifier of isocline ({type(error).__name__})") from error
    return classifier.eval().requires_grad_(False)


@cache
def _bundled() -> Classifier:
    return load_classifier()


def fashion_features(images: Tensor) -> Tensor:
    """Return the 64 features (B, 64) of images (B, 1, 28, 28) by the bundled classifier."""
    return _bundled().features(images.float())
