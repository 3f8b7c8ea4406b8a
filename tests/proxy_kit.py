"""The page behind nginx, configured as docs/web.md says; only addresses and files are the test's.

nginx calls the node from 127.0.0.2, so that this machine's own address is somebody else's.
"""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import yaml
from certificates import Authority
from nodes import Node
from peers import HOST, Nginx, free_port
from web_kit import PASSWORD

DOCUMENT = Path(__file__).parents[1] / "docs/web.md"
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
