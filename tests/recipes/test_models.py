import pytest
import torch

from isocline._core import files
from isocline._core.errors import BadFile, InvalidInput
from isocline.models import bundled
from isocline.networks import MLP, DenoisingMLP, UNet, UNetShape
from isocline.objectives import cem, edm, rectified_flow, v_prediction
from isocline.processes import RectifiedFlow
from isocline.recipes.models import load_model, save_model
from isocline.recipes.own_data import FORMULATIONS, formulation_named, train_on
from isocline.recipes.sources import default_grid, model_samples
from isocline.training import Settings

FEW = Settings(steps=3, batch=16)


@pytest.mark.parametrize(
    "formulation", [cem(), edm(0.7), rectified_flow(), v_prediction()], ids=["cem", "edm", "flow", "v"]
)
def test_a_stored_model_answers_the_same(tmp_path, formulation):
    torch.manual_seed(0)
    network = DenoisingMLP(3, width=16, depth=2)
    path = save_model(tmp_path / "m.safetensors", network, formulation, network.state_dict(), shape=(3,), scale=2.5)
    found, x, t = load_model(path), torch.randn(5, 3), torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    assert torch.equal(found.denoiser(x, t), formulation.denoiser(network)(x, t))
    assert found.denoiser.process == formulation.process
    assert found.denoiser.parameterisation == formulation.parameterisation
    assert (found.shape, found.scale, found.classes) == ((3,), 2.5, 0)


def test_a_stored_u_net_answers_the_same(tmp_path):
    network = UNet(UNetShape(side=8, patch=1, widths=(8, 8), embedding=16, heads=2, middle=1, classes=4))
    torch.nn.init.normal_(network.last.weight)
    path = save_model(tmp_path / "m.safetensors", network, edm(), network.state_dict(), shape=(1, 8, 8))
    found, x = load_model(path), torch.randn(2, 1, 8, 8)
    label = torch.tensor([1, 4])
    assert torch.equal(
        found.denoiser(x, torch.tensor(0.5), label), edm().denoiser(network)(x, torch.tensor(0.5), label)
    )
    assert found.classes == 4


def test_the_bundled_model_is_one_too():
    found = load_model(bundled("fashion"))
    assert (found.shape, found.classes, found.scale) == ((1, 28, 28), 10, 1.0)


def test_other_files_and_networks_are_refused(tmp_path):
    with pytest.raises(BadFile, match="does not hold an image model"):
        load_model(bundled("fashion_classifier"))
    with pytest.raises(InvalidInput, match="a MLP has no file form"):
        save_model(tmp_path / "m.safetensors", MLP(2, 2), cem(), {}, shape=(2,))  # type: ignore[arg-type]
    network = DenoisingMLP(3, width=16, depth=2)
    path = save_model(tmp_path / "m.safetensors", network, cem(), network.state_dict(), shape=(3,))
    weights, about = files.read_tensors(path)
    for key, value in (("network", '{"name": "os.system"}'), ("process", '{"name": "VP"}'), ("scale", "wide")):
        files.write_tensors(path, weights, {**about, key: value})
        with pytest.raises(BadFile, match="does not hold a model of isocline"):
            load_model(path)


def test_the_unit_of_the_data_comes_back(tmp_path):
    angle = 2 * torch.pi * torch.rand(2000, 1, generator=torch.Generator().manual_seed(0))
    data = 100 + 20 * torch.cat([angle.cos(), angle.sin()], dim=1)
    settings = Settings(steps=60, batch=64, rate=5e-3, warmup=5, average=0.9)
    learned = train_on(data, tmp_path, formulation="edm", settings=settings, width=32)
    assert abs(learned.model.center - 100) < 1
    samples, _ = model_samples(learned.path, 400, 0)
    restored = load_model(learned.path).restore(samples)
    assert abs(float(restored.mean()) - 100) < 5
    assert 7 < float(restored.std()) < 28  # of the data: 14.1; of the samples in the model's unit: near 1


@pytest.mark.parametrize("name", [function.__name__ for function in FORMULATIONS])
def test_every_formulation_trains_stores_and_samples(tmp_path, name):
    data = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    learned = train_on(data, tmp_path, formulation=name, settings=FEW, width=16, depth=1)
    samples, denoiser = model_samples(learned.path, 10, 0)
    assert samples.shape == (10, 3)
    assert denoiser.process == formulation_named(name).process


def test_images_train_a_u_net(tmp_path):
    learned = train_on(torch.randn(32, 1, 8, 8), tmp_path, settings=FEW, width=32)
    assert isinstance(learned.fitted.denoiser.network, UNet)  # type: ignore[attr-defined]
    assert load_model(learned.path).shape == (1, 8, 8)


def test_bad_data_are_refused_before_training(tmp_path):
    for data, message in (
        (torch.ones(8, 2), "all data are equal"),
        (torch.tensor([[1.0, float("nan")]] * 4), "at least two data, all of them finite"),
        (torch.randn(8, 3, 5, 7), "data are vectors"),
    ):
        with pytest.raises(InvalidInput, match=message):
            train_on(data, tmp_path / "run", settings=FEW)
    with pytest.raises(InvalidInput, match="there is no formulation 'cme'"):
        train_on(torch.randn(8, 2), tmp_path / "run", formulation="cme", settings=FEW)
    assert not (tmp_path / "run").exists()


def test_a_flow_starts_at_infinite_noise_and_gets_a_uniform_grid():
    times = default_grid(RectifiedFlow(), 4)
    assert (float(times[0]), float(times[-1])) == (1, 0)
