import re

import pytest
import torch

from isocline._core import files
from isocline._core.errors import BadFile, DataMissing, InvalidInput
from isocline._core.stream import Stream
from isocline.datasets import Images, load_fashion
from isocline.models import bundled
from isocline.networks.classifier import Classifier
from isocline.recipes.classifier import accuracy, fit_classifier, load_classifier, train_classifier
from isocline.training import Settings


@pytest.fixture(scope="module")
def classifier():
    return load_classifier()


def noise(n: int, seed: int = 0) -> torch.Tensor:
    return Stream(seed).uniform((n, 1, 28, 28)) * 2 - 1


def stripes(n: int, seed: int) -> Images:
    """Noisy images: class 0 is bright in the upper half, class 1 in the left half, class 2 in neither."""
    rng = Stream(seed, "stripes")
    labels = rng.integers(3, (n,))
    pixels = rng.integers(120, (n, 1, 28, 28))
    pixels[labels == 0, :, :14] += 60
    pixels[labels == 1, :, :, :14] += 60
    return Images(pixels.to(torch.uint8), labels, ("upper", "left", "none"))


def test_logits_are_linear_in_the_features(classifier):
    x = noise(5)
    features = classifier.features(x)
    assert features.shape == (5, 64)
    expected = features @ classifier.last.weight.T + classifier.last.bias
    assert torch.allclose(classifier(x), expected, rtol=1e-5, atol=1e-5)


def test_an_image_is_judged_alone(classifier):
    x = noise(6)
    alone = torch.cat([classifier.features(x[i : i + 1]) for i in range(6)])
    assert torch.allclose(classifier.features(x), alone, rtol=1e-4, atol=1e-4)


def test_every_pixel_matters():
    x = noise(1).requires_grad_()
    torch.manual_seed(0)
    Classifier()(x).square().sum().backward()
    assert bool((x.grad != 0).all())


@pytest.mark.parametrize("shape", [(2, 3, 28, 28), (2, 1, 32, 32), (28, 28)])
def test_other_shapes_are_refused(classifier, shape):
    with pytest.raises(InvalidInput, match=re.escape(f"(B, 1, 28, 28), got shape {shape}")):
        classifier(torch.zeros(shape))


def test_it_learns_what_can_be_learned_and_is_stored_to_the_bit(tmp_path):
    settings = Settings(steps=40, batch=32, rate=3e-3, warmup=5, average=0.9)
    classifier, trained = fit_classifier(stripes(400, 0), tmp_path, settings)
    assert accuracy(classifier, stripes(200, 1)).value > 0.97
    path = files.write_tensors(tmp_path / "c.safetensors", trained.weights)
    assert torch.equal(load_classifier(path)(noise(3)), classifier(noise(3)))


def test_accuracy_counts_hits():
    class First(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot(torch.zeros(len(x), dtype=torch.long), 3).float()

    images = stripes(1203, 2)
    assert accuracy(First(), images).value == float((images.labels == 0).double().mean())


def test_missing_data_are_reported_before_training(tmp_path):
    with pytest.raises(DataMissing, match="Fashion-MNIST is not in"):
        train_classifier(tmp_path / "run", tmp_path)
    assert not (tmp_path / "run").exists()


def test_damaged_and_foreign_files_are_refused(tmp_path):
    raw = bundled("fashion_classifier").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(raw[:-100])
    with pytest.raises(BadFile, match="truncated"):
        load_classifier(tmp_path / "cut.safetensors")
    files.write_tensors(tmp_path / "other.safetensors", {"last.bias": torch.zeros(10)})
    files.write_tensors(tmp_path / "empty.safetensors", {"x": torch.zeros(10)})
    for name in ("other", "empty"):
        with pytest.raises(BadFile, match="does not hold a classifier of isocline"):
            load_classifier(tmp_path / f"{name}.safetensors")
    with pytest.raises(DataMissing, match="there is no file"):
        load_classifier(tmp_path / "none.safetensors")


def test_an_unknown_bundled_model_gets_the_nearest():
    with pytest.raises(DataMissing, match="Did you mean 'fashion_classifier'"):
        bundled("fashion-classifier")


def test_the_card_says_what_the_file_says():
    path = bundled("fashion_classifier")
    weights, about = files.read_tensors(path)
    card = path.with_suffix(".md").read_text()
    low, high = about["accuracy_interval"].split()[:2]
    assert f"{about['accuracy']}, 95 % Wilson interval [{low}, {high}]" in card
    assert f"{about['seconds']} s" in card
    assert f"{sum(w.numel() for w in weights.values()):,} parameters".replace(",", " ") in card
    assert path.stat().st_size < 1_000_000


@pytest.mark.slow
def test_the_bundled_weights_have_the_accuracy_they_state(classifier):
    try:
        images = load_fashion(train=False)
    except DataMissing:
        pytest.skip("Fashion-MNIST is not fetched")
    _, about = files.read_tensors(bundled("fashion_classifier"))
    assert accuracy(classifier, images).value == pytest.approx(float(about["accuracy"]), abs=5e-4)
