"""What a cookie proves, and for how long."""

import base64
import json

import pytest

from app.console.session import Kept, Session, Sessions


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Memory(Kept):
    """What several gateways share, without a database."""

    def __init__(self, secret: bytes = b"drawn") -> None:
        self._secret, self._ended = secret, set[str]()

    def secret(self) -> bytes:
        return self._secret

    def end(self, id: str, expires: float) -> None:
        self._ended.add(id)

    def ended(self, id: str) -> bool:
        return id in self._ended


@pytest.fixture
def kept() -> Memory:
    return Memory()


@pytest.fixture
def sessions(kept: Memory, clock: Clock) -> Sessions:
    return Sessions(kept, "key", 60, clock)


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


def test_gateways_on_one_database_know_each_other_s_sessions(
    sessions: Sessions, kept: Memory, clock: Clock
) -> None:
    session, other = sessions.open("Ada"), Sessions(kept, "key", 60, clock)
    assert other.read(sessions.cookie(session)) == session
    assert other.confirms(session, sessions.token(session))
    other.end(session)
    assert sessions.read(sessions.cookie(session)) is None


def test_a_new_key_or_another_database_ends_every_session(
    sessions: Sessions, kept: Memory, clock: Clock
) -> None:
    cookie = sessions.cookie(sessions.open("Ada"))
    assert Sessions(kept, "new key", 60, clock).read(cookie) is None
    assert Sessions(Memory(b"another"), "key", 60, clock).read(cookie) is None


def test_who_signs_out_is_out_before_the_cookie_expires(sessions: Sessions) -> None:
    one, other = sessions.open("Ada"), sessions.open("Ada")
    sessions.end(one)
    assert sessions.read(sessions.cookie(one)) is None
    assert sessions.read(sessions.cookie(other)) == other


def test_a_token_belongs_to_its_session(sessions: Sessions) -> None:
    one, other = sessions.open(), sessions.open()
    assert sessions.confirms(one, sessions.token(one))
    assert not sessions.confirms(one, sessions.token(other))
    assert not sessions.confirms(one, "")
    assert not sessions.confirms(one, "é")
