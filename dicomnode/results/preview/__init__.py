"""The preview: one page that shows what was found, as PNG and as DICOM Secondary Capture.

For archives and viewers that show no Segmentation, and for a first look. Drawn with NumPy and
Pillow alone, so that a container without a display draws the same. Nothing that identifies the
patient may enter a picture: no name, no number of theirs, no date, no free text of a header.
"""

from __future__ import annotations

from dicomnode.results.preview.capture import SOP_CLASS_UID, encode_preview
from dicomnode.results.preview.page import Content, draw_page

__all__ = ["SOP_CLASS_UID", "Content", "draw_page", "encode_preview"]
