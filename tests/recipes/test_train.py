import pytest
import torch

from isocline._core.errors import BadFile, DataMissing
from isocline.datasets import Images
from isocline.models import bundled
from isocline.networks.unet import UNetShape
from isocline.recipes.train import ImageRecipe, load_image_model, shape_of, train_images
from isocline.training import Settings
from tests.recipes import tiny


def test_a_stored_model_predicts_the_same(tmp_path):
    path = tiny.stored(tmp_path)
    x, label = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 5, 10])
    expected = tiny.model().predict(x, 0.7, label).x0
    assert torch.equal(load_image_model(path).predict(x, 0.7, label).x0, expected)
    assert shape_of(load_image_model(path)) == tiny.SHAPE


def test_a_truncated_weights_file_is_named(tmp_path):
    path = tiny.stored(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadFile, match="truncated or not a safetensors file"):
        load_image_model(path)


def test_another_safetensors_file_is_refused():
    with pytest.raises(BadFile, match="does not hold an image model"):
        load_image_model(bundled("fashion_classifier"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataMissing, match="there is no file"):
        load_image_model(tmp_path / "none.safetensors")


@pytest.mark.slow
def test_training_beats_the_best_constant_predictor(tmp_path):
    # images are one of two constant grey levels; D = the right level is learnable, D = mean is the trivial answer
    pixels = torch.tensor([40, 215], dtype=torch.uint8).repeat(64)[:, None, None, None].expand(-1, 1, 8, 8).contiguous()
    images = Images(pixels, torch.arange(128) % 2, ("dark", "light"))
    shape = UNetShape(classes=2, side=8, patch=1, widths=(8, 8), embedding=16, heads=2, middle=1)
    recipe = ImageRecipe("levels", shape, 0.7, Settings(steps=300, batch=32, rate=3e-3, warmup=20, average=0.98))
    model, _ = train_images(recipe, images, tmp_path)
    x0, label = images.take(torch.arange(64))
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    error = (model.predict(x0 + 1.0 * noise, 1.0, label).x0 - x0).square().mean()
    assert error < 0.2 * x0.var()
