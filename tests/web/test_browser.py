"""A PACS admin's day in a real browser, on a node with real traffic.

`make test-web` runs it: Debian's chromium without a display, DCMTK as the modality, Orthanc as the
archive. A series arrives and fails, because its model's weights are gone; the page says why, they
are put back, and it is queued again from there, analysed, waits for an archive that is away, and is
delivered. Another one fails because its file was damaged, and is mended likewise. An image that was
announced wrongly is put back from quarantine. axe-core looks at all pages.

With DICOMNODE_PICTURES=1 the pictures of docs/pictures are made anew.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from nodes import Node
from peers import HOST, Dcmtk, Orthanc
from playwright.sync_api import Browser, Page, expect, sync_playwright
from proxy_kit import NAME, add, begin
from pydicom.uid import ExplicitVRLittleEndian
from scu import Wire, store
from small_ct import CT, encoded, instance
from web_kit import PASSWORD

from dicomnode.demo.series import SeriesOptions, write_series
from inference.phantom import Body

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("DICOMNODE_BROWSER") != "1", reason="make test-web runs the browser"
    ),
    pytest.mark.peer("orthanc", "dcmtk", "chromium", "nginx", "openssl"),
    # Playwright's own loop, which pytest would otherwise call unclosed.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
PICTURES = Path(__file__).parents[2] / "docs/pictures"
WINDOW = {"width": 1366, "height": 768}
PATIENCE_MS = 200_000.0
"""Much more than it takes: other things may run beside."""
MODELS = Path(__file__).parents[2] / "inference/models"
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
    affine = np.diag([-3.0, -3.0, 12.0, 1.0])  # as large as one patch of the model
    affine[:3, 3] = [213.0, 205.0, -192.0]
    hu, _ = Body(seed).render((128, 96, 32), affine)
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
    """Fail where axe-core finds what is serious or critical, in either colour scheme.

    Nor may the page be wider than the window: what is too wide scrolls in a part of it.
    """
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0, f"{page.url} is {wide} pixels too wide"
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


def again(page: Page) -> None:
    """Have the analysis on a study's page done again."""
    page.get_by_role("link", name="Analyse again").click()
    expect(page.get_by_text("with a new count of failures")).to_be_visible()
    is_accessible(page)
    page.get_by_role("button", name="Analyse again").click()
    expect(page.get_by_role("status")).to_have_text("It is queued.")
    go(page, "Back")


def try_rules(page: Page, study: str) -> None:
    """Ask which model a study would get, and then a series that never came, without the mouse."""
    page.get_by_role("link", name=study).click()
    go(page, "Try the rules on them")
    verdict = page.locator("#verdict")
    expect(verdict).to_contain_text("model own")
    expect(verdict).to_contain_text("results go to archive")
    page.get_by_label("Slices").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("1")
    page.keyboard.press("Enter")
    expect(verdict).to_contain_text("instances 1 is below 2")
    expect(page.get_by_label("Slices")).to_have_value("1")
    is_accessible(page)
    picture(page, "try")


def ask_peer(page: Page) -> None:
    """Ask the archive for C-ECHO, from the list of peers."""
    go(page, "Peers")
    is_accessible(page)
    picture(page, "peers")
    go(page, "Test ARCHIVE")
    page.get_by_role("button", name="Test the peer").click()
    expect(page.get_by_role("status")).to_have_text("ARCHIVE answers C-ECHO.")


def put_back(page: Page, running: Node) -> None:
    """Let an image come that its sender has announced wrongly, and take it in after all."""
    one = Wire(CT, "1.2.3.4.5", ExplicitVRLittleEndian, encoded(instance()))
    assert store(running.port, one) == [0xA900]
    go(page, "Quarantine")
    expect(page.locator("tbody tr")).to_contain_text("another one than its sender announced")
    is_accessible(page)
    picture(page, "quarantine")
    go(page, "Put back")
    is_accessible(page)
    page.get_by_role("button", name="Put the file back").click()
    expect(page.get_by_role("status")).to_have_text("It is taken in as if it had just come.")
    go(page, "Back")
    expect(page.get_by_text("Nothing is in quarantine.")).to_be_visible()
    go(page, "Studies")
    expect(page.locator("tbody tr")).to_have_count(3)


@pytest.mark.timeout(900)
def test_by_keyboard_alone_behind_the_proxy(tmp_path: Path) -> None:
    """nginx signs in; the page renews itself through it; an act is done without a mouse."""
    site, nginx = begin(tmp_path, by_header=True)
    add(site.node, "anna", "--role", "operator", "--no-password")
    faults: list[str] = []
    try:
        with sync_playwright() as playwright:
            to = f"--host-resolver-rules=MAP {NAME}:443 {HOST}:{site.port}"
            chromium = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu", to]
            )
            context = chromium.new_context(
                viewport=WINDOW,  # type: ignore[arg-type]
                ignore_https_errors=True,
                http_credentials={"username": "anna", "password": PASSWORD},
            )
            page = context.new_page()
            page.on("console", lambda said: faults.append(said.text)
                    if said.type == "error" else None)  # fmt: skip
            page.goto(f"https://{NAME}/")
            expect(page.locator(".who")).to_contain_text("anna operator")
            with site.node.ledger.transaction() as tx:
                tx.event("DISK_FULL", level="attention", detail="a test")
            expect(page.locator("#attention")).to_contain_text("The disk is nearly full")

            page.keyboard.press("Tab")
            expect(page.locator(".skip")).to_be_focused()
            page.keyboard.press("Enter")
            for _ in range(4):
                page.keyboard.press("Tab")
                if page.evaluate("document.activeElement.textContent") == "Acknowledge":
                    break
            expect(page.get_by_role("link", name="Acknowledge")).to_be_focused()
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid", "one sees where one is"
            page.keyboard.press("Enter")
            button = page.get_by_role("button", name="Acknowledge")
            expect(button).to_be_visible()
            while not button.evaluate("one => one === document.activeElement"):
                page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            expect(page.get_by_role("status")).to_have_text("It is off the list.")
            assert faults == []
            chromium.close()
        site.node.stop()
    finally:
        site.close()
        nginx.stop()
        site.node.close()


def own_model(folder: Path) -> Path:
    """Make a model of the hospital's own: the demonstration's, by another name; return weights."""
    shutil.copytree(MODELS / "demo", folder / "own")
    card = folder / "own/card.yaml"
    card.write_text(card.read_text().replace("id: demo\n", "id: own\n", 1))
    (weights,) = folder.rglob("checkpoint_final.*")
    return weights


@pytest.mark.timeout(900)
def test_a_day(browser: Browser, node: Callable[..., Node], dcmtk: Dcmtk, tmp_path: Path) -> None:
    archive = Orthanc(tmp_path / "orthanc")
    weights = own_model(tmp_path / "models")
    rule = {"name": "every CT", "when": {"modality": ["CT"], "min_instances": 2}, "model": "own"}
    running = node(
        "run",
        archive=archive,
        quiet_seconds=4.0,
        overrides={
            "web": {"enabled": True},
            "rules": [{**rule, "destinations": ["archive"]}],
            "work": {"model_folders": [str(tmp_path / "models")]},
        },
    )
    place_of_weights, weights = weights, weights.rename(tmp_path / "weights.away")
    faults: list[str] = []
    page = sign_in(browser, running, faults)
    expect(page.get_by_text("None.")).to_be_visible()

    # It arrives and fails: somebody has removed the model's weights. Nobody loads the page anew.
    go(page, "Overview")
    expect(page.get_by_text("No image has ever come.")).to_be_visible()
    dcmtk.storescu(running.port, series(tmp_path / "first", 1))
    expect(page.locator(".answer", has_text="Receiving")).to_contain_text("Last image")
    attention = page.locator("#attention")
    expect(attention).to_contain_text("The rule's model is not installed, or its files are not")
    expect(attention).to_contain_text("Install it")
    picture(page, "why")
    attention.get_by_role("link", name=re.compile("^2.25")).click()
    expect(page.locator("main")).to_contain_text("MODEL_NOT_AVAILABLE")
    is_accessible(page)
    picture(page, "why-study")

    # They are put back, and it is analysed; now the archive is away.
    weights.rename(place_of_weights)
    again(page)
    go(page, "Overview")
    expect(page.locator(".answer", has_text="Sending")).to_contain_text("No answer from archive")
    expect(page.locator(".destinations")).to_contain_text("The archive cannot be reached.")

    # Another one fails: a file was damaged on disk.
    dcmtk.storescu(running.port, series(tmp_path / "second", 2))
    running.wait_for(lambda status: status["counts"]["instances"] == 64, 60)
    first = min(running.files(), key=lambda path: path.stat().st_mtime_ns).parents[1]
    victim = next(path for path in running.files() if path.parents[1] != first)
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1000])
    study = victim.parents[1].name
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
        again(page)
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
        try_rules(page, study)
        ask_peer(page)
        put_back(page, running)
    finally:
        archive.kill()
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/login$"))
    assert faults == [], "nothing that the browser complains of, and no request to elsewhere"
