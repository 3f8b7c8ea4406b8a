"""The gateway of compose.yaml, by a real nginx: a real page and a real Orthanc stand behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from nodes import Node
from peers import DICOM_WEB_PLUGIN, HOST, Nginx, Orthanc, free_port
from small_ct import CT, encoded, instance
from web_kit import PASSWORD, token_on

from dicomnode.instances import file_prefix
from dicomnode.users import Users

GATEWAY = Path(__file__).resolve().parents[2] / "config/compose/gateway.conf"
VIEWER = "stands for OHIF"
pytestmark = pytest.mark.peer("nginx", "orthanc", "orthanc-dicomweb")


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where it listens for the page, and for the viewer."""

    page: str
    viewer: str
    archive: Orthanc


@pytest.fixture
def gateway(
    node: Callable[..., Node], start_orthanc: Callable[..., Orthanc], tmp_path: Path
) -> Iterator[Gateway]:
    web = node("web", overrides={"web": {"enabled": True}})
    Users(web.settings.users_file).add("olga", "operator", PASSWORD)
    archive = start_orthanc(
        options={
            "Plugins": [str(DICOM_WEB_PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
    )
    page, viewer, ohif = free_port(), free_port(), free_port()
    (tmp_path / "app-config.js").write_text("window.config = {};")
    text = GATEWAY.read_text()
    for old, new in {
        "listen 8485;": f"listen {HOST}:{page};",
        "listen 3000;": f"listen {HOST}:{viewer};",
        "127.0.0.1:8484": f"{HOST}:{web.document['web']['port']}",
        "127.0.0.1:8042": f"{HOST}:{archive.http_port}",
        "ohif:80": f"{HOST}:{ohif}",
        "/srv/": f"{tmp_path}/",
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    stands_for = f"server {{ listen {HOST}:{ohif}; location / {{ return 200 '{VIEWER}'; }} }}"
    nginx = Nginx(tmp_path / "nginx", f"{text}\n{stands_for}")
    nginx.start(page)
    yield Gateway(f"http://{HOST}:{page}", f"http://{HOST}:{viewer}", archive)
    nginx.stop()


def test_the_page_works_behind_it(gateway: Gateway) -> None:
    with httpx.Client(base_url=gateway.page, trust_env=False) as browser:
        asked = browser.get("/", follow_redirects=True)
        assert asked.status_code == 200
        assert str(asked.url).startswith(f"{gateway.page}/login")
        form = {"name": "olga", "password": PASSWORD, "form_token": token_on(asked)}
        signed_in = browser.post("/login", data=form, headers={"origin": gateway.page})
        assert signed_in.headers["location"].startswith("/")
        assert "operator" in browser.get("/").text
        forged = browser.post("/logout", headers={"origin": "http://evil.example"})
        assert forged.status_code == 403


def test_the_viewer_and_the_archive_are_of_one_origin(gateway: Gateway) -> None:
    dataset = instance()
    prefix = file_prefix(CT, dataset.SOPInstanceUID, "1.2.840.10008.1.2.1")
    gateway.archive.post("/instances", prefix + encoded(dataset))
    with httpx.Client(base_url=gateway.viewer, trust_env=False) as browser:
        assert browser.get("/viewer?StudyInstanceUIDs=1").text == VIEWER
        config = browser.get("/app-config.js")
        assert config.text == "window.config = {};"
        assert config.headers["cross-origin-embedder-policy"] == "require-corp"
        assert config.headers["cross-origin-opener-policy"] == "same-origin"
        (study,) = browser.get("/dicom-web/studies").json()
        assert study["0020000D"]["Value"] == [str(dataset.StudyInstanceUID)]
        # What Orthanc calls itself is what the browser called.
        assert study["00081190"]["Value"][0].startswith(f"{gateway.viewer}/dicom-web/")
