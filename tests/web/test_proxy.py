"""The page behind nginx, configured as docs/web.md says; only addresses and files are the test's.

nginx calls the node from 127.0.0.2, so that this machine's own address is somebody else's.
"""

from __future__ import annotations

import base64
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import yaml
from certificates import Authority
from nodes import Node
from peers import HOST, Nginx, free_port
from web_kit import PASSWORD, token_on

from dicomnode.users import Users
from dicomnode.web.sessions import COOKIE

pytestmark = pytest.mark.peer("nginx", "openssl")
DOCUMENT = Path(__file__).parents[2] / "docs/web.md"
PROXY = "127.0.0.2"
NAME = "ct.hospital"


def example(language: str) -> str:
    found = re.findall(
        rf"^```{language}\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL
    )
    (text,) = [one for one in found if NAME in one]
    return text


def replaced(text: str, values: dict[str, str]) -> str:
    for old, new in values.items():
        assert old in text, f"the example has no {old!r} any more"
        text = text.replace(old, new)
    return text


@dataclass(frozen=True, slots=True)
class Site:
    """A node, the proxy before it, and how it is reached."""

    node: Node
    port: int
    authority: Path
    clients: list[httpx.Client] = field(default_factory=list)

    def browser(self, name: str | None = None, password: str = PASSWORD) -> httpx.Client:
        """Return a browser that comes through the proxy, as who gives name and password there."""
        client = httpx.Client(
            base_url=f"https://{NAME}",
            transport=_Mapped(self.port, self.authority),
            auth=None if name is None else (name, password),
        )
        self.clients.append(client)
        return client

    def close(self) -> None:
        """Close the browsers."""
        for client in self.clients:
            client.close()

    def direct(self, **headers: str) -> httpx.Response:
        """Ask the node itself, past the proxy."""
        url = f"http://{HOST}:{self.node.document['web']['port']}/api/overview"
        return httpx.get(url, headers={"host": NAME, **headers}, trust_env=False)


class _Mapped(httpx.HTTPTransport):
    """Finds the proxy where the name's address would be."""

    def __init__(self, port: int, authority: Path) -> None:
        super().__init__(verify=ssl.create_default_context(cafile=str(authority)), trust_env=False)
        self._port = port

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        mapped = httpx.Request(
            request.method,
            request.url.copy_with(host=HOST, port=self._port),
            headers=[*((k, v) for k, v in request.headers.raw if k.lower() != b"host")],
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": NAME},
        )
        mapped.headers["host"] = NAME
        return super().handle_request(mapped)


def begin(folder: Path, *, by_header: bool) -> tuple[Site, Nginx]:
    web = yaml.safe_load(example("yaml"))["web"]
    web["bind"] = HOST  # the node is found at another place, and the proxy comes from one
    web["trusted_proxies"] = [PROXY]
    if not by_header:
        del web["proxy_header"], web["trusted_proxies"]
    node = Node(folder / "node", overrides={"web": {"enabled": True, **web}})
    authority = Authority(folder / "tls")
    signed = authority.sign("page", alternative_names=f"DNS:{NAME}")
    users, port = folder / "htpasswd", free_port()
    made = subprocess.run(
        ["openssl", "passwd", "-apr1", PASSWORD], capture_output=True, text=True, check=True
    )
    users.write_text("".join(f"{one}:{made.stdout}" for one in ("anna", "vera", "mallory")))
    server = replaced(
        example("nginx"),
        {
            "listen 443 ssl;": f"listen {HOST}:{port} ssl;",
            "/etc/nginx/ct.hospital.crt": str(signed.certificate),
            "/etc/nginx/ct.hospital.key": str(signed.key),
            "/etc/nginx/dicomnode.htpasswd": str(users),
            "10.1.1.30:8484": f"{HOST}:{node.document['web']['port']}",
        },
    )
    if not by_header:
        server = re.sub(r"\n\s+auth_basic[^\n]*", "", server)
    node.start("web")
    nginx = Nginx(folder / "nginx", server, source=PROXY)
    nginx.start(port)
    return Site(node, port, authority.certificate), nginx


def add(node: Node, *arguments: str) -> None:
    command = [sys.executable, "-m", "dicomnode", "users", "add", *arguments]
    subprocess.run([*command, "-c", str(node.config)], input=f"{PASSWORD}\n", text=True, check=True)


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
