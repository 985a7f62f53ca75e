"""Triangle meshes in the plane: finite elements, morphing to a common shape, transfer of fields, modes."""

from isocline.meshes.mesh import Mesh, MeshRun
from isocline.meshes.morphing import corner_fractions, mean_value_map, rbf_morph, to_disc, to_square
from isocline.meshes.pod import Modes, pod
from isocline.meshes.transfer import interpolation
from isocline.meshes.triangulate import triangulate

__all__ = [
    "Mesh",
    "MeshRun",
    "Modes",
    "corner_fractions",
    "interpolation",
    "mean_value_map",
    "pod",
    "rbf_morph",
    "to_disc",
    "to_square",
    "triangulate",
]
