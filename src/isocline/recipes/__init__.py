"""The verbs: sample, tune, train."""

from isocline.recipes.diagnose import Diagnosis, diagnose
from isocline.recipes.diffusers import Conditions, from_diffusers
from isocline.recipes.fit import Fitted, fit_denoiser
from isocline.recipes.forecast import Forecaster, ForecastReport, ForecastSettings, forecast
from isocline.recipes.forecast_store import load_forecaster, save_forecaster
from isocline.recipes.mmd_finetuning import MMDFinetuning
from isocline.recipes.models import StoredModel, load_model, save_model
from isocline.recipes.own_data import Learned, train_on
from isocline.recipes.pairs import Pairs, draw_pairs
from isocline.recipes.portfolio import Chosen, Entry, tune_portfolio
from isocline.recipes.quality import quality
from isocline.recipes.sample import sample
from isocline.recipes.tune import Outcome, tune

__all__ = [
    "Chosen",
    "Conditions",
    "Diagnosis",
    "Entry",
    "Fitted",
    "ForecastReport",
    "ForecastSettings",
    "Forecaster",
    "Learned",
    "MMDFinetuning",
    "Outcome",
    "Pairs",
    "StoredModel",
    "diagnose",
    "draw_pairs",
    "fit_denoiser",
    "forecast",
    "from_diffusers",
    "load_forecaster",
    "load_model",
    "quality",
    "sample",
    "save_forecaster",
    "save_model",
    "train_on",
    "tune",
    "tune_portfolio",
]
