"""Pages as the tests read them."""

import re
from html.parser import HTMLParser
from urllib.parse import urlencode

from fastapi.testclient import TestClient
from httpx import Response

from app.gateway import Gateway

__all__ = ["Page", "gateway_of", "post", "token"]

VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "rect", "line", "circle"}


class Page(HTMLParser):
    """The text of a page, its links, its fields, and whether its elements are closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.links, self.images, self.open = "", [], [], []
        self.fields: dict[str, str] = {}
        self.feed(html)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.text += " "
        given = dict(attrs)
        assert not any(name.startswith("on") or name == "style" for name in given), given
        if tag == "a":
            self.links.append(given["href"])
        elif tag == "img":
            assert given.get("alt"), given
            self.images.append(given["src"])
        elif tag == "input" and given.get("name"):
            self.fields[str(given["name"])] = given.get("value") or ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        self.text += " "
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def gateway_of(client: TestClient) -> Gateway:
    gateway: Gateway = client.app.state.gateway  # type: ignore[attr-defined]
    return gateway


def token(client: TestClient, path: str = "/console/mode") -> str:
    """The token of this client's session."""
    return Page(client.get(path).text).fields["csrf"]


def post(client: TestClient, path: str, fields: dict[str, object], **headers: str) -> Response:
    """A form, sent as a browser sends it; the answer is not followed."""
    body = urlencode(fields, doseq=True)
    kind = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    return client.post(path, content=body, headers=kind, follow_redirects=False)
