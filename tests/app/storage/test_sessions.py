"""What gateways share of the console's sessions."""

import time

from app.storage.sessions import SessionStore
from tests.app.storage.conftest import Open


def test_one_secret_for_all(open_database: Open) -> None:
    one, other = SessionStore(open_database()), SessionStore(open_database())
    assert len(one.secret()) == 32
    assert other.secret() == one.secret() == one.secret()


def test_who_is_out_is_out_everywhere_until_it_does_not_matter(open_database: Open) -> None:
    one, other = SessionStore(open_database()), SessionStore(open_database())
    one.end("a", time.time() + 60)
    one.end("a", time.time() + 60)
    assert other.ended("a")
    assert not other.ended("b")
    one.end("long ago", time.time() - 1)
    one.end("b", time.time() + 60)
    assert [other.ended(id) for id in ("a", "b", "long ago")] == [True, True, False]
