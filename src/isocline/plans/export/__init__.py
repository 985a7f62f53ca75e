"""Plans for other programs: a sampler there with noise levels and settings that compute the same, or a scheduler of our own."""

from typing import TYPE_CHECKING, Any

from isocline.plans.export.comfyui import ComfyUIExport, comfyui
from isocline.plans.export.flow_match import flow_match_sigmas
from isocline.plans.export.k_diffusion import KDiffusionExport, k_diffusion

if TYPE_CHECKING:
    from isocline.plans.export.diffusers import PlanScheduler

__all__ = ["ComfyUIExport", "KDiffusionExport", "PlanScheduler", "comfyui", "flow_match_sigmas", "k_diffusion"]


def __getattr__(name: str) -> Any:
    """Load diffusers when `PlanScheduler` is first asked for, not before."""
    if name == "PlanScheduler":
        from isocline.plans.export.diffusers import scheduler_class

        return scheduler_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
