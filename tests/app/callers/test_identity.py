import pytest
from pydantic import SecretStr

from app.callers.identity import Caller, KeyRing, network_of

RING = KeyRing(SecretStr("root"), {"shop": SecretStr("s1"), "app": SecretStr("s2")})


@pytest.mark.parametrize(
    ("key", "caller"),
    [
        ("root", Caller("admin key", admin=True, unlimited=True)),
        ("s1", Caller("key shop")),
        ("s2", Caller("key app")),
        ("s3", None),
        ("", None),
        (None, None),
        ("\udcff", None),
    ],
)
def test_whose_a_key_is(key: str | None, caller: Caller | None) -> None:
    assert RING.owner(key) == caller


def test_no_key_is_nobodys_where_none_is_configured() -> None:
    assert KeyRing(None, {}).owner("") is None
    assert KeyRing(None, {}).owner(None) is None


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def compare(a: bytes, b: bytes) -> bool:
        seen.append((len(a), len(b)))
        return a == b

    monkeypatch.setattr("hmac.compare_digest", compare)
    assert RING.owner("s1") == Caller("key shop")
    RING.owner("x" * 5000)
    assert seen == [(32, 32)] * 6  # all keys of the ring, at one length, also after one has matched


def test_keys_are_not_kept() -> None:
    assert not any(key in repr(vars(RING)) for key in ("root", "'s1'", "'s2'"))


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("testclient", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_subscriber_with_ipv6_is_one_caller(address: str | None, network: str) -> None:
    assert network_of(address) == network
