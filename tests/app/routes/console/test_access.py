"""Who gets in, for how long, and what another site's page can make a browser do."""

import re

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from tests.app.conftest import MakeClient, MakeSettings
from tests.app.console.seed import keep
from tests.app.routes.console.pages import Page, gateway_of, post, token
from tests.app.tiny import pngs

KEY = "an admin's key"
PATHS = ["", "/live", "/detectors", "/calibrations", "/quarantine?label=1", "/incidents", "/what-if", "/mode"]


@pytest.fixture
def locked(make_client: MakeClient) -> TestClient:
    return make_client(admin_key=KEY, mode="monitor")


def sign_in(client: TestClient, key: str = KEY, back: str = "/console", name: str = "Ada") -> None:
    fields = {"csrf": token(client, "/console/sign-in"), "key": key, "name": name, "next": back}
    answer = post(client, "/console/sign-in", fields)
    assert (answer.status_code, answer.headers["location"]) == (303, back)


def test_who_is_not_signed_in_is_asked_to_and_comes_back(locked: TestClient) -> None:
    for path in PATHS:
        locked.cookies.clear()
        answer = locked.get(f"/console{path}", follow_redirects=False)
        assert answer.status_code == 303
        assert locked.get(answer.headers["location"]).status_code == 200
        assert Page(locked.get(f"/console{path}").text).fields["next"] == f"/console{path}"
        sign_in(locked, back=f"/console{path}")
        assert locked.get(f"/console{path}", follow_redirects=False).status_code == 200


def test_pictures_and_probes_need_a_sign_in(locked: TestClient) -> None:
    (digest,) = keep(gateway_of(locked), pngs(1))
    for path in (f"{digest}.png", f"{digest}/seen.png", f"{digest}/probes/x3.png"):
        assert locked.get(f"/console/pictures/{path}", follow_redirects=False).status_code == 303
    assert locked.get("/console/incidents/1/0/9/average.png", follow_redirects=False).status_code == 303


def test_the_cookie_is_for_the_console_alone(locked: TestClient) -> None:
    sign_in(locked)
    (cookie,) = locked.cookies.jar
    assert (cookie.path, cookie.secure) == ("/console", False)
    assert KEY not in str(cookie.value)
    assert locked.post("/mode", json={"mode": "monitor"}).status_code == 401
    kept = locked.get("/console/sign-in", headers={"Cookie": "triggerwall_console=x"}).headers["set-cookie"]
    assert "HttpOnly" in kept
    assert "SameSite=strict" in kept


def test_over_https_the_cookie_stays_there(make_settings: MakeSettings) -> None:
    with TestClient(create_app(make_settings(admin_key=KEY)), base_url="https://console.example") as client:
        assert "Secure" in client.get("/console/sign-in").headers["set-cookie"]


def test_a_wrong_key_opens_nothing(locked: TestClient) -> None:
    answer = post(locked, "/console/sign-in", {"csrf": token(locked, "/console/sign-in"), "key": "wrong"})
    assert answer.status_code == 401
    assert "not the gateway’s admin key" in Page(answer.text).text
    assert locked.get("/console", follow_redirects=False).status_code == 303


def test_a_callers_key_is_no_admins(make_client: MakeClient) -> None:
    client = make_client(admin_key=KEY, caller_keys={"shop": "a shop's key"})
    fields = {"csrf": token(client, "/console/sign-in"), "key": "a shop's key"}
    assert post(client, "/console/sign-in", fields).status_code == 401
    assert client.get("/console", headers={"X-API-Key": "a shop's key"}).status_code == 401


def test_a_sign_in_leads_nowhere_else(locked: TestClient) -> None:
    for back in ("https://evil.example", "//evil.example", "/consoleevil", "/docs", "", "/console\r\nX: y"):
        fields = {"csrf": token(locked, "/console/sign-in"), "key": KEY, "next": back}
        assert post(locked, "/console/sign-in", fields).headers["location"] == "/console"


def test_a_session_is_a_new_one_after_the_sign_in(locked: TestClient) -> None:
    """Whoever planted or saw the cookie from before has nothing in hand."""
    before = token(locked, "/console/sign-in")
    cookie = locked.cookies["triggerwall_console"]
    sign_in(locked)
    assert locked.cookies["triggerwall_console"] != cookie
    assert token(locked) != before
    assert (
        post(locked, "/console/mode", {"csrf": before, "from": "monitor", "to": "monitor"}).status_code == 403
    )


def test_who_signs_out_is_out(locked: TestClient) -> None:
    sign_in(locked)
    cookie = locked.cookies["triggerwall_console"]
    assert post(locked, "/console/sign-out", {"csrf": token(locked)}).status_code == 303
    assert locked.get("/console", follow_redirects=False).status_code == 303
    stolen = {"Cookie": f"triggerwall_console={cookie}"}
    assert locked.get("/console", headers=stolen, follow_redirects=False).status_code == 303


def test_an_expired_session_changes_nothing(locked: TestClient) -> None:
    (digest,) = keep(gateway_of(locked), pngs(1))
    sign_in(locked)
    fields = {"csrf": token(locked), "image": digest, "mark": "trigger"}
    locked.app.state.console.sessions._clock = lambda: 1e11  # type: ignore[attr-defined]  # after the year 5000
    answer = post(locked, "/console/quarantine/marks", fields)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/console/sign-in?next=")
    assert gateway_of(locked).quarantine.get(digest).mark is None
    page = Page(locked.get(answer.headers["location"]).text)
    assert "your session has ended. Nothing that you had not sent was changed." in page.text


def test_the_key_in_a_header_is_enough(locked: TestClient) -> None:
    """For scripts: no session, no cookie, no token."""
    (digest,) = keep(gateway_of(locked), pngs(1))
    shown = {"X-API-Key": KEY}
    answer = locked.get("/console", headers=shown)
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    assert (
        post(locked, "/console/quarantine/marks", {"image": digest, "mark": "trigger"}, **shown).status_code
        == 303
    )
    held = gateway_of(locked).quarantine.get(digest)
    assert (held.mark, held.marked_by) == ("trigger", "admin key")
    wrong = locked.get("/console", headers={"X-API-Key": "wrong"}, follow_redirects=False)
    assert wrong.status_code == 401


def test_without_a_key_it_answers_this_machine_alone(make_client: MakeClient) -> None:
    client = make_client()
    assert client.get("/console").status_code == 200
    assert "nothing to sign in with" in Page(client.get("/console/sign-in").text).text
    answer = client.get("/console", headers={"Host": "evil.example"})
    assert answer.status_code == 403
    assert answer.headers["content-type"].startswith("text/html")
    assert make_client(host="0.0.0.0").get("/console").status_code == 403


FORMS = [
    ("/console/mode", {"from": "monitor", "to": "monitor"}),
    ("/console/quarantine/marks", {"image": "0" * 64, "mark": "trigger"}),
    ("/console/incidents/1/0/9/marks", {"every": "1", "mark": "trigger"}),
    ("/console/calibrations/a/activate", {"instead_of": ""}),
    ("/console/sign-out", {}),
    ("/console/sign-in", {"key": KEY}),
]


@pytest.mark.parametrize(("path", "fields"), FORMS)
def test_every_form_needs_its_sessions_token(
    locked: TestClient, path: str, fields: dict[str, object]
) -> None:
    """Also where the browser sends the cookie along."""
    sign_in(locked)
    for forged in ({}, {"csrf": ""}, {"csrf": "0" * 64}):
        answer = post(locked, path, {**fields, **forged})
        assert answer.status_code == 403
        assert "nothing was changed" in Page(answer.text).text


def test_every_route_that_changes_something_is_among_these(client: TestClient) -> None:
    """A form that is added and forgotten here would not be tested for its token."""
    posts = {
        each.path
        for router in client.app.router.routes  # type: ignore[attr-defined]
        for each in _leaves(router)
        if "POST" in (getattr(each, "methods", None) or ()) and each.path.startswith("/console")
    }
    patterns = [re.sub(r"\{\w+\}", "[^/]+", path) for path in posts]
    assert len(patterns) == len(FORMS)
    assert all(any(re.fullmatch(pattern, path) for pattern in patterns) for path, _ in FORMS)


def _leaves(route: object) -> list[object]:
    inner = getattr(route, "effective_candidates", None)
    return [route] if inner is None else [each for found in inner() for each in _leaves(found)]


def test_a_page_of_this_machine_cannot_post_here_without_a_key(client: TestClient) -> None:
    """No key is set, so no sign-in protects: the token does, even from another port of this machine."""
    client.get("/console")
    origin = {"Origin": "http://localhost:3000"}
    answer = post(client, "/console/mode", {"from": "enforce", "to": "monitor"}, **origin)
    assert answer.status_code == 403
    assert gateway_of(client).firewall.mode == "enforce"


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"csrf=%ff", "application/x-www-form-urlencoded", 422),
        (b"a=1&" * 5000, "application/x-www-form-urlencoded", 422),
        (b"x" * 600_000, "application/x-www-form-urlencoded", 422),
    ],
)
def test_what_is_no_form_is_refused(client: TestClient, content: bytes, kind: str, status: int) -> None:
    answer = client.post("/console/mode", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
