"""A tiny untrained image model of the bundled model's kind, and helpers to store it."""

import torch
from torch import nn

from isocline.networks.unet import UNet, UNetShape
from isocline.processes import EDM, Preconditioned
from isocline.recipes.train import ImageRecipe, save_image_model
from isocline.training import Settings, Trained

SHAPE = UNetShape(classes=10, side=28, widths=(8, 8), embedding=8, heads=2, middle=1)
RECIPE = ImageRecipe("tiny", SHAPE, 0.7, Settings(steps=1))


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = UNet(SHAPE)
        nn.init.normal_(net.last.weight, std=0.05)
    return net.eval().requires_grad_(False)


def model():
    return Preconditioned(network(), EDM(), 0.7)


def stored(folder):
    path = folder / "model.safetensors"
    save_image_model(path, RECIPE, Trained(network().state_dict(), [(1, 0.5)], 1.0))
    return path
