"""Who may see and do what: every route, without a sign-in and with a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ledger_kit import receive, rows
from starlette.routing import Route
from web_kit import PASSWORD, Web, act, token_on

from dicomnode.domain.page import WebPolicy
from dicomnode.ledger import Ledger
from dicomnode.ledger.tables import event
from dicomnode.users import Users, UsersError
from dicomnode.web.app import all_pages
from dicomnode.web.guard import HEADERS
from dicomnode.web.sessions import COOKIE, Limiter

OPEN = {
    ("GET", "/login"),
    ("POST", "/login"),
    ("GET", "/static/{name}"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
}
"""Whoever reaches the port may ask these."""


def routes(web: Web) -> list[tuple[str, str]]:
    """Return method and path of every route that the application itself has."""
    found = []
    for route in web.app.app.routes:
        assert isinstance(route, Route)
        found += [(method, route.path) for method in (route.methods or set()) - {"HEAD"}]
    return sorted(found)


def place(path: str) -> str:
    values = {"{uid}": "1.2", "{job}": "1", "{result}": "1", "{name}": "style.css"}
    for name, value in values.items():
        path = path.replace(name, value)
    return path


def test_the_table_of_routes_is_the_application(web: Web) -> None:
    assert routes(web) == sorted((one.method, one.path) for one in all_pages())
    assert {(one.method, one.path) for one in all_pages() if one.role is None} == OPEN


def test_nobody_gets_anything_without_a_sign_in(web: Web) -> None:
    client = web.browser()
    for method, path in routes(web):
        if (method, path) in OPEN:
            continue
        answer = client.request(method, place(path))
        if method == "GET" and not path.startswith(("/api", "/metrics")):
            assert answer.status_code == 303, path
            assert answer.headers["location"].startswith("/login?next=%2F"), path
        else:
            assert answer.status_code == 401, (method, path)
        assert not answer.text or "Sign in" in answer.text


def test_a_viewer_may_look_and_not_act(web: Web) -> None:
    client, program = web.browser("vera"), web.program("vera")
    operators = {(one.method, one.path) for one in all_pages() if one.role == "operator"}
    assert len(operators) > 30
    for method, path in routes(web):
        if path == "/logout":
            continue
        for sender in (client, program):
            status = sender.request(method, place(path)).status_code
            if (method, path) in operators:
                assert status == 403, (method, path)
            elif (method, path) not in OPEN:
                assert status in (200, 404), (method, path)


@pytest.mark.parametrize("wrong", ["", "Bearer", "Bearer nonsense", "Basic dmVyYTp4", "Bearer é"])
def test_a_wrong_token_is_nobody_whatever_else_comes_with_it(web: Web, wrong: str) -> None:
    client = web.browser("olga")
    answer = client.get("/api/overview", headers={"authorization": wrong.encode()})
    assert answer.status_code == 401


def test_a_token_that_was_revoked_or_has_expired_is_worth_nothing(web: Web) -> None:
    client = web.program("vera")
    assert client.get("/api/overview").status_code == 200
    (token,) = web.site.users.table()["vera"].tokens
    web.site.users.revoke_token("vera", token.id)
    assert client.get("/api/overview").status_code == 401
    secret = web.site.users.add_token("vera", -1)
    old = {"authorization": f"Bearer {secret}"}
    assert web.browser().get("/api/overview", headers=old).status_code == 401


# Signing in


def test_a_wrong_password_and_an_unknown_name_sound_alike(web: Web) -> None:
    client = web.browser()
    answers = [web.sign_in(client, name, "wrong password") for name in ("olga", "nobody")]
    assert {answer.status_code for answer in answers} == {401}
    assert all("Name or password is wrong" in answer.text for answer in answers)
    assert all(COOKIE not in answer.cookies for answer in answers)


def test_the_cookie_is_seen_by_no_script_and_sent_by_no_other_site(web: Web) -> None:
    cookie = web.sign_in(web.browser(), "olga", PASSWORD).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie


def test_the_cookie_goes_by_https_only_where_there_is_https(tmp_path: Path, ledger: Ledger) -> None:
    web = Web(tmp_path, ledger, {"web": {"public_url": "https://node.test"}})
    web.add_users()
    answer = web.sign_in(web.browser(), "olga", PASSWORD)
    # The browser of the test comes by HTTP and so has not kept the cookie of the form.
    assert answer.status_code == 403
    form = web.browser().get("/login")
    assert "secure" in form.headers["set-cookie"].lower()
    assert form.headers["strict-transport-security"].startswith("max-age=")


def test_tries_are_limited_and_counted_by_user_and_address(web: Web) -> None:
    client = web.browser()
    for _ in range(5):
        assert web.sign_in(client, "olga", "wrong password").status_code == 401
    refused = web.sign_in(client, "olga", PASSWORD)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) == 300
    assert web.sign_in(client, "vera", PASSWORD).status_code == 303


def test_the_limit_passes_with_time() -> None:
    now = [0.0]
    limiter = Limiter(2, 60, lambda: now[0])
    for _ in range(2):
        assert limiter.is_open("a")
        limiter.failed("a")
    assert not limiter.is_open("a")
    assert limiter.is_open("b")
    now[0] = 61
    assert limiter.is_open("a")


@pytest.mark.parametrize(
    ("asked", "leads"),
    [("/studies?state=HELD", "/studies?state=HELD"), ("//evil.test", "/"), ("https://x", "/"),
     ("/\\evil.test", "/"), ("/a\r\nset-cookie: x", "/")],
)  # fmt: skip
def test_a_sign_in_leads_to_a_page_of_this_site(web: Web, asked: str, leads: str) -> None:
    client = web.browser()
    form = {"name": "vera", "password": PASSWORD, "next": asked}
    form["form_token"] = token_on(client.get("/login", params={"next": asked}))
    assert client.post("/login", data=form).headers["location"] == leads


# The life of a session


def test_a_session_ends_with_signing_out_wherever_its_cookie_is(web: Web) -> None:
    client = web.browser("vera")
    stolen = client.cookies[COOKIE]
    answer = client.post("/logout", data={"form_token": token_on(client.get("/"))})
    assert answer.headers["location"] == "/login"
    thief = web.browser()
    thief.cookies.set(COOKIE, stolen)
    assert thief.get("/").status_code == 303


@pytest.mark.parametrize("change", ["passwd", "remove", "role"])
def test_what_changes_of_a_user_holds_at_once(web: Web, change: str) -> None:
    client = web.browser("olga")
    page = "/act/pause-destination?destination=archive"
    assert client.get(page).status_code == 200
    users = Users(web.settings.users_file)  # another process, as the command is
    if change == "passwd":
        users.set_password("olga", "another password")
    else:
        users.remove("olga")
        if change == "role":
            users.add("olga", "viewer", PASSWORD)
    assert client.get(page).status_code == 303


def test_a_cookie_that_was_tampered_with_is_nobodys(web: Web) -> None:
    client = web.browser("vera")
    cookie = client.cookies[COOKIE]
    for changed in (cookie[:-2] + "xx", "x" + cookie[1:], cookie.replace(".", "", 1), "x" * 5000):
        other = web.browser()
        other.cookies.set(COOKIE, changed)
        assert other.get("/").status_code == 303


# Forms of other sites


@pytest.mark.parametrize(
    "spoil",
    [{"form_token": ""}, {"form_token": "0" * 64}, {"origin": "https://evil.test"},
     {"origin": "null"}, {"sec-fetch-site": "cross-site"}],
)  # fmt: skip
def test_an_act_needs_our_own_form(web: Web, ledger: Ledger, spoil: dict[str, str]) -> None:
    client, spoil = web.browser("olga"), dict(spoil)
    asked = client.get("/act/pause-destination", params={"destination": "archive"})
    form = {
        "destination": "archive", "confirm": "yes", "reason": "move",
        "form_token": spoil.pop("form_token", token_on(asked)),
    }  # fmt: skip
    answer = client.post("/act/pause-destination", data=form, headers=spoil)
    assert answer.status_code == 403
    assert rows(ledger, event) == []


def test_the_token_of_one_session_is_worth_nothing_in_another(web: Web) -> None:
    first, second = web.browser("olga"), web.browser("olga")
    form = {"destination": "archive", "confirm": "yes", "reason": "move",
            "form_token": token_on(first.get("/"))}  # fmt: skip
    assert second.post("/act/pause-destination", data=form).status_code == 403
    assert first.post("/act/pause-destination", data=form).status_code == 200


def test_the_api_with_a_cookie_needs_the_form_token_and_with_a_token_none(web: Web) -> None:
    form = {"destination": "archive", "confirm": "yes", "reason": "move"}
    browser, program = web.browser("olga"), web.program("olga")
    path = "/api/act/pause-destination"
    assert browser.post(path, data=form).status_code == 403
    token = {"x-form-token": token_on(browser.get("/"))}
    assert browser.post(path, data=form, headers=token).json()["done"] == 1
    assert program.post(path, data=form).json()["done"] == 0


# Answers


def test_every_answer_has_the_headers(web: Web) -> None:
    client = web.browser("olga")
    for path in ("/", "/studies", "/login", "/static/style.css", "/nowhere", "/studies/1.2.3",
                 "/api/nowhere", "/act/requeue-job", "/results/99999999999999999999"):  # fmt: skip
        answer = client.get(path)
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, path
        assert "server" not in answer.headers
    assert client.get("/").headers["cache-control"] == "no-store"


def test_a_fault_of_ours_says_nothing_and_has_the_headers(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("secret")

    client = web.browser("olga")
    monkeypatch.setattr("dicomnode.web.looks.overview", fail)
    for path in ("/", "/api/overview"):
        answer = client.get(path)
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert answer.headers["x-frame-options"] == "DENY"


def test_no_page_has_script_or_style_in_it(web: Web, ledger: Ledger) -> None:
    from ledger_kit import header

    receive(ledger, header(series_description="<script>alert(1)</script>"))
    client = web.browser("olga")
    for path in ("/", "/studies", "/studies/1.2", "/login", "/act/release-study?study=1.2"):
        text = client.get(path).text
        assert "<script>" not in text
        assert " style=" not in text
        assert "<style" not in text
        assert " onclick=" not in text


def test_a_form_that_is_too_large_or_no_form_is_refused(web: Web) -> None:
    client = web.program("olga")
    path = "/api/act/requeue-job"
    assert client.post(path, data={"job": "1" * 70000}).status_code == 413
    assert client.post(path, json={"job": 1}).status_code == 415
    many = "&".join("a=1" for _ in range(400))
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post(path, content=many, headers=kind).status_code == 400


# Behind a reverse proxy


def proxied(folder: Path, ledger: Ledger, address: str) -> Web:
    web = Web(
        folder,
        ledger,
        {"web": {"proxy_header": "X-Remote-User", "trusted_proxies": ["10.1.0.0/16"]}},
        address,
    )
    web.add_users()
    return web


def test_a_trusted_proxy_names_the_user(tmp_path: Path, ledger: Ledger) -> None:
    client = proxied(tmp_path, ledger, "10.1.2.3").browser()
    client.headers["x-remote-user"] = "olga"
    assert client.get("/").status_code == 200
    assert act(client, "pause-destination", destination="archive", reason="x").status_code == 200
    client.headers["x-remote-user"] = "vera"
    assert client.get("/act/pause-destination?destination=archive").status_code == 403
    client.headers["x-remote-user"] = "mallory"
    assert client.get("/").status_code == 303


@pytest.mark.parametrize("address", ["10.2.0.1", "127.0.0.1", "testclient", ""])
def test_nobody_else_does(tmp_path: Path, ledger: Ledger, address: str) -> None:
    client = proxied(tmp_path, ledger, address).browser()
    headers = {"x-remote-user": "olga", "x-forwarded-for": "10.1.2.3"}
    assert client.get("/api/overview", headers=headers).status_code == 401


def test_the_header_means_nothing_where_it_is_not_configured(web: Web) -> None:
    answer = web.browser().get("/api/overview", headers={"x-remote-user": "olga"})
    assert answer.status_code == 401


# The configuration and the file


@pytest.mark.parametrize(
    "wrong",
    [{"bind": "0.0.0.0"}, {"proxy_header": "X-User"}, {"trusted_proxies": ("10.0.0.0/8",)},
     {"certificate": Path("c.pem")}, {"port": 0}, {"session_hours": 0},
     {"public_url": "https://host/path"},
     {"proxy_header": "X User", "trusted_proxies": ("10.0.0.1",)},
     {"proxy_header": "X-User", "trusted_proxies": ("host",)}],
)  # fmt: skip
def test_a_configuration_that_would_be_unsafe_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="@"):
        WebPolicy(**wrong)


def test_passwords_may_cross_the_network_encrypted() -> None:
    assert WebPolicy(bind="0.0.0.0", public_url="https://ct.hospital").is_encrypted
    assert WebPolicy(bind="0.0.0.0", certificate=Path("c"), key=Path("k")).is_encrypted


def test_the_file_holds_no_password_and_is_its_owners(web: Web) -> None:
    path = web.settings.users_file
    assert path.stat().st_mode & 0o777 == 0o600
    secret = web.site.users.add_token("vera", 1)
    text = path.read_text()
    assert PASSWORD not in text
    assert secret not in text
    kept = [user.password for user in web.site.users.table().values()]
    assert len(set(kept)) == 2, "the same password, another salt"


def test_a_file_that_is_damaged_lets_nobody_in(web: Web) -> None:
    client = web.browser("olga")
    web.settings.users_file.write_text("{")
    assert client.get("/").status_code == 503
    web.settings.users_file.write_text('{"olga": {"role": "god", "revision": "1"}}')
    assert client.get("/").status_code == 503


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 65, "<b>"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsersError):
        Users(tmp_path / "users.json").add(name, "viewer", PASSWORD)


def test_users_are_added_once_with_a_password_that_is_long_enough(tmp_path: Path) -> None:
    users = Users(tmp_path / "users.json")
    with pytest.raises(UsersError, match="10"):
        users.add("vera", "viewer", "short")
    users.add("vera", "viewer", PASSWORD)
    with pytest.raises(UsersError, match="already"):
        users.add("vera", "operator", PASSWORD)
    assert users.signed_in("vera", PASSWORD)
    assert not users.signed_in("vera", PASSWORD + "x")


def test_a_user_without_a_password_signs_in_by_none(tmp_path: Path) -> None:
    users = Users(tmp_path / "users.json")
    users.add("proxy-user", "viewer", None)
    assert users.signed_in("proxy-user", "") is None
