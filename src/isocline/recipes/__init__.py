"""The verbs: sample, tune, train."""

from isocline.recipes.diagnose import Diagnosis, diagnose
from isocline.recipes.fit import Fitted, fit_denoiser
from isocline.recipes.models import StoredModel, load_model, save_model
from isocline.recipes.own_data import Learned, train_on
from isocline.recipes.pairs import Pairs, draw_pairs
from isocline.recipes.sample import sample
from isocline.recipes.tune import Outcome, tune

__all__ = [
    "Diagnosis",
    "Fitted",
    "Learned",
    "Outcome",
    "Pairs",
    "StoredModel",
    "diagnose",
    "draw_pairs",
    "fit_denoiser",
    "load_model",
    "sample",
    "save_model",
    "train_on",
    "tune",
]
