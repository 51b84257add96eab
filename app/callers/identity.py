"""Keys → callers. Every key is compared, and in constant time, so that answers tell nothing of any."""

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from pydantic import SecretStr

__all__ = ["Caller", "KeyRing", "network_of"]

IPV6_NETWORK = 64  # bits: what one subscriber gets; each has more addresses in it than could be counted


@dataclass(frozen=True)
class Caller:
    """Who sent a request. `name` is that of their key, else where they call from; `admin` may do and know
    everything; `unlimited` has shown the admin key, and is kept to no quota."""

    name: str
    admin: bool = False
    unlimited: bool = False


class KeyRing:
    """The keys that a gateway knows; only their digests are kept."""

    def __init__(self, admin: SecretStr | None, callers: Mapping[str, SecretStr]) -> None:
        self.has_admin, self.has_callers = admin is not None, bool(callers)
        known = [Caller(f"key {name}") for name in callers]
        keys = [*callers.values()]
        if admin is not None:
            known.append(Caller("admin key", admin=True, unlimited=True))
            keys.append(admin)
        self._known = [
            (_digest(key.get_secret_value()), caller) for key, caller in zip(keys, known, strict=True)
        ]

    def owner(self, key: str | None) -> Caller | None:
        """Whose `key` this is; None for nobody's."""
        asked, found = _digest(key or ""), None
        for digest, caller in self._known:
            if hmac.compare_digest(asked, digest):  # no `break`: the time tells nothing of the place
                found = caller
        return found


def _digest(key: str) -> bytes:
    """Of one length, whatever the key's: comparing takes as long for any."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


@lru_cache(maxsize=4096)
def network_of(address: str | None) -> str:
    """What stands for the caller at `address`: itself, or its /64 where it is IPv6."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.ip_network((ip, IPV6_NETWORK), strict=False))
