"""A PACS admin's day in a real browser, on a node with real traffic.

`make test-web` runs it: Debian's chromium without a display, DCMTK as the modality, Orthanc as the
archive. A series arrives, is analysed, waits for an archive that is away, and is delivered; another
one fails, its page says why, it is mended and queued again from there. axe-core looks at all pages.

With DICOMNODE_PICTURES=1 the pictures of docs/pictures are made anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from nodes import Node
from peers import Dcmtk, Orthanc
from playwright.sync_api import Browser, Page, expect, sync_playwright
from web_kit import PASSWORD

from dicomnode.demo.series import SeriesOptions, write_series
from inference.phantom import Body

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("DICOMNODE_BROWSER") != "1", reason="make test-web runs the browser"
    ),
    pytest.mark.peer("orthanc", "dcmtk", "chromium"),
    # Playwright's own loop, which pytest would otherwise call unclosed.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
PICTURES = Path(__file__).parents[2] / "docs/pictures"
WINDOW = {"width": 1366, "height": 768}
PATIENCE_MS = 90_000.0
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


def series(folder: Path, seed: int) -> Path:
    folder.mkdir()
    affine = np.diag([-3.2, -3.2, 12.0, 1.0])
    affine[:3, 3] = [204.8, 244.8, -240.0]
    hu, _ = Body(seed).render((128, 128, 40), affine)
    for number, data in enumerate(write_series(hu, affine, SeriesOptions(seed=seed))):
        (folder / f"{number}.dcm").write_bytes(data)
    return folder


def picture(page: Page, name: str) -> None:
    """Take a picture in both colour schemes, where pictures are wanted."""
    if os.environ.get("DICOMNODE_PICTURES") != "1":
        return
    PICTURES.mkdir(exist_ok=True)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.screenshot(path=PICTURES / f"{name}-{scheme}.png")
    page.emulate_media(color_scheme="light")


def is_accessible(page: Page) -> None:
    """Fail where axe-core finds what is serious or critical, in either colour scheme."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        found = Axe().run(page).response["violations"]
        faults = [
            (one["id"], [node["html"][:200] for node in one["nodes"]][:3])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert faults == [], f"{page.url} {scheme}"
    page.emulate_media(color_scheme="light")


def sign_in(browser: Browser, node: Node, faults: list[str]) -> Page:
    subprocess.run(
        [sys.executable, "-m", "dicomnode", "users", "add", "olga", "--role", "operator",
         "--password-stdin", "-c", str(node.config)],
        input=f"{PASSWORD}\n", text=True, check=True,
    )  # fmt: skip
    page = browser.new_context(viewport=WINDOW).new_page()  # type: ignore[arg-type]
    page.set_default_timeout(PATIENCE_MS)
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda asked: faults.append(asked.url) if "127.0.0.1" not in asked.url
            else None)  # fmt: skip
    page.goto(f"http://127.0.0.1:{node.document['web']['port']}/studies?state=OPEN")
    is_accessible(page)
    page.get_by_label("Name").fill("olga")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/studies\?state=OPEN$"))
    return page


def go(page: Page, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).first.click()


def test_a_day(browser: Browser, node: Callable[..., Node], dcmtk: Dcmtk, tmp_path: Path) -> None:
    archive = Orthanc(tmp_path / "orthanc")
    running = node("run", archive=archive, quiet_seconds=4.0, overrides={"web": {"enabled": True}})
    faults: list[str] = []
    page = sign_in(browser, running, faults)
    expect(page.get_by_text("None.")).to_be_visible()

    # It arrives and is analysed; the archive is away. Nobody loads the page anew.
    go(page, "Overview")
    expect(page.get_by_text("No image has ever come.")).to_be_visible()
    dcmtk.storescu(running.port, series(tmp_path / "first", 1))
    expect(page.locator(".answer", has_text="Receiving")).to_contain_text("Last image")
    expect(page.locator(".answer", has_text="Sending")).to_contain_text("No answer from archive")
    expect(page.locator(".destinations")).to_contain_text("The archive cannot be reached.")

    # Another one fails: a file was damaged on disk.
    dcmtk.storescu(running.port, series(tmp_path / "second", 2))
    running.wait_for(lambda status: status["counts"]["instances"] == 80, 60)
    first = min(running.files(), key=lambda path: path.stat().st_mtime_ns).parents[1]
    victim = next(path for path in running.files() if path.parents[1] != first)
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1000])
    study = victim.parents[1].name
    attention = page.locator("#attention")
    expect(attention).to_contain_text("The series cannot be analysed honestly")
    expect(attention).to_contain_text(study)
    is_accessible(page)
    picture(page, "overview")

    # The archive comes; the first is delivered.
    archive.start()
    try:
        expect(page.locator(".answer", has_text="Sending")).to_contain_text("Nothing waits.")
        expect(page.locator(".destinations")).to_contain_text("3 delivered")

        # Why, and mend it from the page.
        attention.get_by_role("link", name=study).click()
        expect(page.locator("main")).to_contain_text(study)
        expect(page.locator("main")).to_contain_text("JOB_REFUSED")
        is_accessible(page)
        victim.write_bytes(whole)
        page.get_by_role("link", name="Analyse again").click()
        expect(page.get_by_text("with a new count of failures")).to_be_visible()
        is_accessible(page)
        page.get_by_role("button", name="Analyse again").click()
        expect(page.get_by_role("status")).to_have_text("It is queued.")
        go(page, "Back")
        expect(page.locator("main")).to_contain_text("JOB_REQUEUED")
        expect(page.locator("main")).to_contain_text("by olga")
        deliveries = page.get_by_role("region", name=re.compile("Deliveries of analysis"))
        expect(deliveries.get_by_text("delivered", exact=True)).to_have_count(3)
        shown = page.locator(".preview img")
        expect(shown).to_be_visible()
        assert shown.evaluate("image => image.complete && image.naturalWidth > 500")
        page.get_by_text("Measurements (").click()
        expect(page.locator("details table tr").nth(3)).to_contain_text("mL")
        is_accessible(page)
        page.get_by_role("heading", name="Analysis 2").scroll_into_view_if_needed()
        page.evaluate("document.querySelector('.preview').closest('section').scrollIntoView()")
        picture(page, "study")
        with page.expect_download() as download:
            page.get_by_role("link", name="seg", exact=True).click()
        assert download.value.path().read_bytes()[128:132] == b"DICM"
        assert set(archive.results(study)) == {"SEG", "OT", "SR"}

        # Pause, test, resume; and the list.
        go(page, "Overview")
        expect(page.locator("#attention")).to_contain_text("Nothing.")
        go(page, "Pause archive")
        page.get_by_label(re.compile("Reason")).fill("The archive is moved tonight")
        page.get_by_role("button", name="Pause the destination").click()
        go(page, "Back")
        expect(page.locator(".destinations")).to_contain_text("paused by olga")
        go(page, "Test archive")
        page.get_by_role("button", name="Test the destination").click()
        expect(page.get_by_role("status")).to_have_text("archive answers C-ECHO.")
        go(page, "Back")
        go(page, "Resume archive")
        page.get_by_role("button", name="Resume the destination").click()
        go(page, "Studies")
        expect(page.locator("tbody tr")).to_have_count(2)
        is_accessible(page)
        picture(page, "studies")
    finally:
        archive.kill()
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/login$"))
    assert faults == [], "nothing that the browser complains of, and no request to elsewhere"
