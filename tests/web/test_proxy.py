"""Sign-in by nginx before the page, and by the page behind it, as docs/web.md says."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from peers import HOST
from proxy_kit import NAME, PROXY, Site, add, begin
from web_kit import PASSWORD, token_on

from dicomnode.users import Users
from dicomnode.web.sessions import COOKIE

pytestmark = pytest.mark.peer("nginx", "openssl")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made, nginx = begin(tmp_path_factory.mktemp("proxy"), by_header=True)
    try:
        add(made.node, "anna", "--role", "operator", "--no-password")
        add(made.node, "vera", "--role", "viewer", "--no-password")
        yield made
        made.node.stop()
    finally:
        made.close()
        nginx.stop()
        made.node.close()


def test_the_proxy_signs_in_and_the_node_has_the_role(site: Site) -> None:
    anna, vera, nobody = site.browser("anna"), site.browser("vera"), site.browser()
    assert nobody.get("/").status_code == 401
    assert site.browser("anna", "wrong").get("/").status_code == 401
    answer = anna.get("/")
    assert answer.status_code == 200
    assert re.search(r"anna <span[^>]*>operator", answer.text)
    assert "Sign out" not in answer.text, "it is the proxy's to sign out"
    assert answer.headers["strict-transport-security"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert vera.get("/studies").status_code == 200
    assert vera.get("/act/fetch-study?study=1.2.3").status_code == 403
    assert site.browser("mallory").get("/").status_code == 303, "who is not in the node's file"


def test_a_form_comes_through_with_its_origin(site: Site) -> None:
    anna = site.browser("anna")
    values = {"events": "1"}
    form = {
        **values,
        "confirm": "yes",
        "form_token": token_on(anna.get("/act/acknowledge", params=values)),
    }
    for origin, status in ((f"https://{NAME}", 200), ("https://evil.example", 403)):
        headers = {"origin": origin}
        assert anna.post("/act/acknowledge", data=form, headers=headers).status_code == status
    assert anna.post("/act/acknowledge", data={**form, "form_token": "x"}).status_code == 403


def test_what_a_browser_says_of_itself_is_replaced(site: Site) -> None:
    vera = site.browser("vera")
    for header in ("X-Remote-User", "x-remote-user", "X_Remote_User"):
        answer = vera.get("/", headers={header: "anna"})
        assert re.search(r"vera <span[^>]*>viewer", answer.text), header
        assert site.browser().get("/api/overview", headers={header: "anna"}).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [{}, {"X-Forwarded-For": PROXY}, {"Forwarded": f"for={PROXY}"}, {"X-Real-IP": PROXY}],
    ids=str,
)
def test_past_the_proxy_the_header_is_worth_nothing(site: Site, headers: dict[str, str]) -> None:
    assert site.direct(**{"X-Remote-User": "anna", **headers}).status_code == 401


def test_from_the_proxys_address_it_is_believed(site: Site) -> None:
    """The refusals above are about the address, and nothing else."""
    transport = httpx.HTTPTransport(local_address=PROXY)
    url = f"http://{HOST}:{site.node.document['web']['port']}/api/overview"
    with httpx.Client(transport=transport) as client:
        assert client.get(url, headers={"X-Remote-User": "anna"}).status_code == 200


def test_programs_come_with_a_token_of_the_nodes_own(site: Site) -> None:
    token = Users(site.node.settings.users_file).add_token("vera", 1)
    bearer = {"authorization": f"Bearer {token}"}
    basic = base64.b64encode(f"anna:{PASSWORD}".encode()).decode()
    client = site.browser()
    for path in ("/api/overview", "/metrics"):
        assert client.get(path, headers=bearer).status_code == 200, path
        assert client.get(path).status_code == 401, path
        wrong = {"authorization": f"Basic {basic}"}
        assert client.get(path, headers=wrong).status_code == 401, path
    assert client.get("/studies", headers=bearer).status_code == 401, "nginx asks there"


@pytest.mark.skipif(
    os.environ.get("DICOMNODE_BROWSER") != "1", reason="make test-web begins a second node"
)
def test_where_the_page_signs_in_its_cookie_goes_by_https_alone(tmp_path: Path) -> None:
    made, nginx = begin(tmp_path, by_header=False)
    try:
        add(made.node, "anna", "--role", "operator", "--password-stdin")
        browser = made.browser()
        form = {"name": "anna", "password": PASSWORD}
        form["form_token"] = token_on(browser.get("/login"))
        answer = browser.post("/login", data=form, headers={"origin": f"https://{NAME}"})
        assert answer.status_code == 303
        cookie = next(
            one for one in answer.headers.get_list("set-cookie") if one.startswith(COOKIE)
        )
        assert {"secure", "httponly", "samesite=strict"} <= set(cookie.lower().split("; "))
        assert browser.get("/").status_code == 200
        assert made.direct(**{"X-Remote-User": "anna"}).status_code == 401
        made.node.stop()
    finally:
        made.close()
        nginx.stop()
        made.node.close()
