"""OHIF in a browser: what a reader does there, and what it then holds and shows.

The page is asked through the objects that OHIF itself puts there (`cornerstone`,
`cornerstoneTools`, `services`); nothing is put in their place.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Playwright
from playwright.sync_api import TimeoutError as Overdue

CHROMIUM = "/usr/bin/chromium"
OPTIONS = (  # WebGL without a graphics card
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)
WINDOW = (1366, 768)
PATIENCE_MS = 90_000.0
MARKS_MS = 4000.0
THUMBNAILS = '[data-cy="study-browser-thumbnail"], [data-cy="study-browser-thumbnail-no-image"]'
SIDES = ("left", "top")
VIEWPORT = """
const id = services.viewportGridService.getState().activeViewportId;
const viewport = services.cornerstoneViewportService.getCornerstoneViewport(id);
"""
ENCODE = """
const encode = (pixels) => {
  let text = '';
  for (const value of pixels) text += String.fromCharCode(value);
  return btoa(text);
};
"""
MODALITY = f"""() => {{
  {VIEWPORT}
  const shown = services.viewportGridService.getState().viewports.get(id).displaySetInstanceUIDs;
  return services.displaySetService.getDisplaySetByUID(shown[0]).Modality;
}}"""
MEASUREMENTS = """() => Object.fromEntries(
  services.displaySetService.getActiveDisplaySets()
    .flatMap((set) => (set.Modality === 'SR' ? set.measurements : []))
    .map((one) => [one.TrackingIdentifier,
      Object.fromEntries(one.labels.map((item) => [item.label, item.value]))]))"""
PIXELS = f"""() => {{
  {VIEWPORT}
  {ENCODE}
  const image = cornerstone.cache.getImage(viewport.getCurrentImageId());
  return [image.rows, image.columns, encode(image.getPixelData())];
}}"""
OPENED = f"""() => {{
  {VIEWPORT}
  const source = ({MODALITY})() !== 'SEG';
  const laid = services.segmentationService.getSegmentationRepresentations(id).length > 0;
  return source && laid && viewport?.getCurrentImageId?.() !== undefined;
}}"""
"""The SEG gave its place to its source, with which it is shown from then on."""
LABELS = f"""async () => {{
  const {{ cache, metaData }} = cornerstone;
  const found = cornerstoneTools.segmentation.state.getSegmentations();
  {ENCODE}
  return found.map((one) => ({{
    id: one.segmentationId,
    segments: Object.values(one.segments).map((item) => [item.segmentIndex, item.label]),
    images: one.representationData.Labelmap.imageIds.map((id) => {{
      const image = cache.getImage(id);
      const source = metaData.get('instance', image.referencedImageId);
      return [source.SOPInstanceUID, image.rows, image.columns, encode(image.getPixelData())];
    }}),
  }}));
}}"""
ZOOM = f"""() => {{
  {VIEWPORT}
  viewport?.setZoom?.(viewport.getZoom() * 0.98);
  viewport?.render();
}}"""
COLOURS = f"""([segmentation, numbers]) => {{
  {VIEWPORT}
  const color = cornerstoneTools.segmentation.config.color;
  return numbers.map((number) => [...color.getSegmentIndexColor(id, segmentation, number)]);
}}"""
SHOW_SLICE = f"""async (uid) => {{
  {VIEWPORT}
  const ids = viewport.getImageIds();
  const index = ids.findIndex(
    (id) => cornerstone.metaData.get('instance', id).SOPInstanceUID === uid);
  await viewport.setImageIdIndex(index);
  return index;
}}"""
SHOWN = f"""() => {{
  {VIEWPORT}
  return viewport?.getCurrentImageId?.() !== undefined
    ? cornerstone.metaData.get('instance', viewport.getCurrentImageId()).SOPInstanceUID : null;
}}"""
PLACES = f"""(points) => {{
  {VIEWPORT}
  return points.map((point) => viewport.worldToCanvas(point));
}}"""
CANVAS = f"""() => new Promise((done) => {{
  {VIEWPORT}
  viewport.element.addEventListener(
    cornerstone.Enums.Events.IMAGE_RENDERED,
    () => done([viewport.canvas.clientWidth, viewport.canvas.toDataURL('image/png')]),
    {{ once: true }});
  viewport.render();
}})"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """A Segmentation as the viewer holds it."""

    segmentation_id: str
    numbers: Mapping[str, NDArray[np.uint8]]
    """Segment Numbers [row, column] by the SOP Instance UID of the image below."""
    segments: Mapping[int, str]
    """Names in the list of segments."""


def start_chromium(playwright: Playwright) -> Browser:
    """Start Debian's chromium without a display."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))


class Ohif:
    """A browser's page with the viewer in it; `errors` are what the page threw."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._url = url
        self.page: Page = browser.new_page(viewport={"width": WINDOW[0], "height": WINDOW[1]})
        self.page.set_default_timeout(PATIENCE_MS)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open_study(self, study_uid: str, series: int, **parameters: str) -> None:
        """Open a study in the basic viewer, and wait until as many series are listed."""
        more = "".join(f"&{key}={value}" for key, value in parameters.items())
        self.page.goto(f"{self._url}/viewer?StudyInstanceUIDs={study_uid}{more}")
        self.page.wait_for_function(f"document.querySelectorAll('{THUMBNAILS}').length >= {series}")
        self.page.get_by_text("Skip all").click()  # a tour of the viewer lies over it
        self._wait_for_marks()

    def thumbnail(self, description: str) -> Locator:
        """Return what the list of series has of one, by its Series Description."""
        return self.page.locator(THUMBNAILS).filter(has_text=description)

    def load_segmentation(self, description: str) -> Overlay:
        """Double-click a SEG, say yes to the question whether to open it, and return it."""
        self.thumbnail(description).dblclick()
        self._wait_for_marks()
        self.page.locator('[data-cy="yes-hydrate-btn"]').click()
        self.page.wait_for_function(OPENED)
        self._wait_for_marks()
        (found,) = self.page.evaluate(LABELS)
        return Overlay(
            segmentation_id=found["id"],
            numbers={
                uid: np.frombuffer(base64.b64decode(text), np.uint8).reshape(rows, columns)
                for uid, rows, columns, text in found["images"]
            },
            segments=dict(found["segments"]),
        )

    def _wait_for_marks(self) -> None:
        """Wait for the letters at the viewport's sides, which come last.

        The viewer sometimes draws them only when the picture is next moved: so it is zoomed.
        """
        marker = self.page.locator(".left-mid.orientation-marker")
        for _ in range(10):
            with contextlib.suppress(Overdue):
                marker.wait_for(timeout=MARKS_MS)
                return
            self.page.evaluate(ZOOM)
        marker.wait_for()

    def colours(self, overlay: Overlay, numbers: Sequence[int]) -> NDArray[np.float64]:
        """Return the colours [number, red green blue] of segments, 0 to 255."""
        found = self.page.evaluate(COLOURS, [overlay.segmentation_id, list(numbers)])
        return np.array(found, float)[:, :3]

    def show_slice(self, sop_instance_uid: str) -> None:
        """Scroll to an image."""
        assert self.page.evaluate(SHOW_SLICE, sop_instance_uid) >= 0

    def shown(self) -> str | None:
        """Return the SOP Instance UID of the image in the active viewport."""
        found: str | None = self.page.evaluate(SHOWN)
        return found

    def wait_until_shown(self, sop_instance_uid: str) -> None:
        """Wait for an image to be in the active viewport."""
        self.page.wait_for_function(f"(uid) => ({SHOWN})() === uid", arg=sop_instance_uid)

    def wait_until_modality(self, modality: str) -> None:
        """Wait for a series of a modality to be in the active viewport."""
        self.page.wait_for_function(f"(modality) => ({MODALITY})() === modality", arg=modality)

    def held_pixels(self) -> NDArray[np.uint8]:
        """Return the colour image of the active viewport [row, column, red green blue]."""
        rows, columns, text = self.page.evaluate(PIXELS)
        data = np.frombuffer(base64.b64decode(text), np.uint8)
        return data.reshape(rows, columns, -1)[..., :3]

    def measurements(self) -> dict[str, dict[str, str]]:
        """Return what OHIF reads from reports: label -> value, by Tracking Identifier."""
        found: dict[str, dict[str, str]] = self.page.evaluate(MEASUREMENTS)
        return found

    def open_panel(self) -> None:
        """Open the list of segments at the right."""
        self.page.locator('[data-cy="panelSegmentation-btn"]').click()
        self.page.wait_for_timeout(1000.0)  # it slides in

    def pixels_at(self, world: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return what is rendered at points [n, 3] in the patient (LPS+ mm), freshly drawn.

        Returns:
            Colours [n, red green blue] and places [n, x to the right, y down] in the viewport;
            NaN where a place lies outside.
        """
        width, url = self.page.evaluate(CANVAS)
        image = Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
        canvas = np.asarray(image, float)
        places = np.array(self.page.evaluate(PLACES, world.tolist()))
        pixels = np.rint(places * canvas.shape[1] / width).astype(int)
        inside = ((pixels >= 0) & (pixels < canvas.shape[1::-1])).all(axis=1)
        colours = np.full((len(world), 3), np.nan)
        colours[inside] = canvas[pixels[inside, 1], pixels[inside, 0]]
        return colours, places

    def marks(self) -> dict[str, str]:
        """Return the letters at the sides of the viewport: `left`, `top`."""
        found = {side: self.page.locator(f".{side}-mid.orientation-marker") for side in SIDES}
        return {side: marker.inner_text().strip() for side, marker in found.items()}

    def picture(self, path: Path) -> None:
        """Take a picture of the window, small enough to be kept."""
        path.parent.mkdir(parents=True, exist_ok=True)
        shot = Image.open(BytesIO(self.page.screenshot())).convert("RGB")
        shot.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
