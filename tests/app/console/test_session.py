"""What a cookie proves, and for how long."""

import base64
import json

import pytest

from app.console.session import Session, Sessions


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(60, clock)


def test_a_cookie_is_known_again_until_it_expires(sessions: Sessions, clock: Clock) -> None:
    session = sessions.open("Ada <b>")
    cookie = sessions.cookie(session)
    assert sessions.read(cookie) == session == Session(session.id, "Ada <b>", 1060.0)
    clock.now = 1059.9
    assert sessions.read(cookie) == session
    clock.now = 1060.0
    assert sessions.read(cookie) is None


@pytest.mark.parametrize("cookie", [None, "", ".", "a.b", "é.é", "x" * 5000])
def test_what_is_no_cookie_of_ours_is_nobody(sessions: Sessions, cookie: str | None) -> None:
    assert sessions.read(cookie) is None


def test_a_changed_cookie_is_nobody(sessions: Sessions) -> None:
    """Neither a longer life nor another name can be written into it."""
    content, _, signature = sessions.cookie(sessions.open()).partition(".")
    fields = json.loads(base64.urlsafe_b64decode(content))
    for change in ({"expires": 1e12}, {"operator": "admin"}):
        forged = base64.urlsafe_b64encode(json.dumps({**fields, **change}).encode()).decode()
        assert sessions.read(f"{forged}.{signature}") is None


def test_a_cookie_of_another_gateway_is_nobody(sessions: Sessions, clock: Clock) -> None:
    assert Sessions(60, clock).read(sessions.cookie(sessions.open("Ada"))) is None


def test_who_signs_out_is_out_before_the_cookie_expires(sessions: Sessions, clock: Clock) -> None:
    one, other = sessions.open("Ada"), sessions.open("Ada")
    sessions.end(one)
    assert sessions.read(sessions.cookie(one)) is None
    assert sessions.read(sessions.cookie(other)) == other
    clock.now = 2000.0
    sessions.end(other)
    assert list(sessions._ended) == [other.id]  # what has expired is not remembered


def test_a_token_belongs_to_its_session(sessions: Sessions) -> None:
    one, other = sessions.open(), sessions.open()
    assert sessions.confirms(one, sessions.token(one))
    assert not sessions.confirms(one, sessions.token(other))
    assert not sessions.confirms(one, "")
    assert not sessions.confirms(one, "é")
