"""Callers behind a reverse proxy are told apart where the gateway trusts it, and only there."""

from pathlib import Path

import pytest

from tests.app.service import Service
from tests.app.tiny import pngs

TRUSTED, UNTRUSTED = "10.0.0.0/8,127.0.0.1", "10.0.0.0/8"


@pytest.mark.parametrize(("proxies", "statuses"), [(TRUSTED, [200, 200, 429]), (UNTRUSTED, [200, 429, 429])])
def test_each_address_has_its_own_quota(
    bundle: Path, tmp_path: Path, proxies: str, statuses: list[int]
) -> None:
    """One image each: from two callers, then again from the first, who says to be a third."""
    settings = {"mode": "monitor", "rate_limit": 0.001, "rate_burst": 1, "trusted_proxies": proxies}
    senders = ["192.0.2.1", "198.51.100.1", "203.0.113.9, 192.0.2.1, 10.1.2.3"]
    with Service(bundle=bundle, data_dir=tmp_path, detectors=["spc"], **settings) as service:
        found = [
            service.http.post(
                "/classify",
                content=pngs(1)[0],
                headers={"Content-Type": "image/png", "X-Forwarded-For": sender},
            ).status_code
            for sender in senders
        ]
    assert found == statuses
