"""Plans for other programs: the name of a sampler there, noise levels and settings that compute the same."""

from isocline.plans.export.comfyui import ComfyUIExport, comfyui
from isocline.plans.export.k_diffusion import KDiffusionExport, k_diffusion

__all__ = ["ComfyUIExport", "KDiffusionExport", "comfyui", "k_diffusion"]
