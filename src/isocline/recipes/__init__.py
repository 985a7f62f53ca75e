"""The verbs: sample, tune, train."""

from isocline.recipes.diagnose import Diagnosis, diagnose
from isocline.recipes.fit import Fitted, fit_denoiser
from isocline.recipes.pairs import Pairs, draw_pairs
from isocline.recipes.sample import sample
from isocline.recipes.tune import Outcome, tune

__all__ = ["Diagnosis", "Fitted", "Outcome", "Pairs", "diagnose", "draw_pairs", "fit_denoiser", "sample", "tune"]
