"""A procedural human body and markers, so that every claim can be checked without patient data.

Arrays and world coordinates only: no DICOM, no torch. World is RAS+ millimetres; arrays are
[i, j, k] with a 4x4 affine from indices to the world, as in NIfTI. The shapes are fitted to public
label maps (see docs/demo-model.md); the HU are drawn from ranges that overlap as they do in CT.
"""

from inference.phantom.body import Anatomy, Body, Tissue, load_anatomy
from inference.phantom.markers import Marker, render_markers

__all__ = ["Anatomy", "Body", "Marker", "Tissue", "load_anatomy", "render_markers"]
