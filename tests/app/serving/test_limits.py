"""Every limit on connections and bodies, tried on the real server through raw sockets."""

import time

import httpx
import pytest

from tests.app.serving.conftest import Serve, head, read_all
from tests.app.tiny import form, pngs

PNG = "Content-Type: image/png"


def status(answer: bytes) -> int:
    return int(answer.split()[1])


def test_a_connection_that_never_asks_is_closed(serve: Serve) -> None:
    with serve(head_timeout_s=0.3).connect() as connection:
        assert read_all(connection) == b""


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(serve: Serve) -> None:
    answer = serve(head_timeout_s=0.5).ask(*(bytes([each]) for each in head("/livez")), pause=0.05)
    assert status(answer) == 408
    assert b'"type":"urn:triggerwall:problem:too-slow"' in answer


@pytest.mark.parametrize("pieces", [1, 40])
def test_a_head_that_is_too_long(serve: Serve, pieces: int) -> None:
    lines = [f"X-{number}: {'a' * 100}" for number in range(100)]
    whole = head("/livez", *lines, method="GET")
    step = len(whole) // pieces + 1
    parts = [whole[start : start + step] for start in range(0, len(whole), step)]
    answer = serve(max_head_bytes=2048).ask(*parts, pause=0.01)
    assert status(answer) == 431


def test_a_head_within_the_limit_is_answered(serve: Serve) -> None:
    lines = [f"X-{number}: {'a' * 100}" for number in range(15)]
    answer = serve(max_head_bytes=2048).ask(head("/livez", *lines, "Connection: close", method="GET"))
    assert status(answer) == 200


def test_a_body_that_comes_byte_by_byte_is_not_waited_for(serve: Serve) -> None:
    address = serve(body_timeout_s=0.4, head_timeout_s=0.3)
    started = time.monotonic()
    answer = address.ask(head("/classify", PNG, "Content-Length: 400"), *[b"x"] * 400, pause=0.02)
    assert status(answer) == 408
    assert b"bytes of the body came in" in answer
    assert time.monotonic() - started < 8  # and the rest of the body was not listened to


def test_a_body_that_comes_slowly_but_comes_is_waited_for(serve: Serve) -> None:
    """Longer than `body_timeout_s` in all, at more than `least_upload_rate`."""
    image = pngs(1)[0]
    pieces = [image[start : start + 20] for start in range(0, len(image), 20)]
    length = f"Content-Length: {len(image)}"
    answer = serve(body_timeout_s=0.1, least_upload_rate=100).ask(
        head("/classify", PNG, length, "Connection: close"), *pieces, pause=0.05
    )
    assert status(answer) == 200


def test_connections_beyond_the_limit_are_told_so_and_the_others_served(serve: Serve) -> None:
    address = serve(ports=2, max_connections=3, head_timeout_s=30)
    held = [address.connect() for _ in range(2)]
    with address.connect() as third:
        third.sendall(head("/livez", method="GET"))
        assert third.recv(65536).startswith(b"HTTP/1.1 200")
        refused = address.ask()
        assert status(refused) == 503
        assert b"Retry-After: 1\r\n" in refused
        assert httpx.get(f"http://127.0.0.1:{address.second_port}/livez").status_code == 200
        held.pop().close()
        for _ in range(100):
            if status(answer := address.ask(head("/livez", "Connection: close", method="GET"))) == 200:
                break
            time.sleep(0.02)
        assert status(answer) == 200
    for connection in held:
        connection.close()


def test_bodies_in_flight_are_bounded_together(serve: Serve) -> None:
    """Two bodies that come slowly fill the room; the third is refused at once, and served afterwards."""
    address = serve(max_body_bytes=4000, max_in_flight_bytes=4000, mode="monitor")
    begun = [address.connect() for _ in range(2)]
    for connection in begun:
        connection.sendall(head("/classify", PNG, "Content-Length: 3000") + b"x" * 1990)
    image = pngs(1)[0]
    url = f"http://127.0.0.1:{address.port}/classify"
    for _ in range(100):
        refused = httpx.post(url, content=image + bytes(200), headers={"Content-Type": "image/png"})
        if refused.status_code == 503:
            break
        time.sleep(0.02)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["type"] == "urn:triggerwall:problem:overloaded"
    for connection in begun:
        connection.close()
    for _ in range(100):
        served = httpx.post(url, content=image, headers={"Content-Type": "image/png"})
        if served.status_code == 200:
            break
        time.sleep(0.02)
    assert served.status_code == 200


def test_an_idle_connection_is_closed_and_a_busy_one_kept(serve: Serve) -> None:
    with serve(keep_alive_s=1, head_timeout_s=20).connect() as connection:
        for _ in range(2):
            connection.sendall(head("/livez", method="GET"))
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            time.sleep(0.3)
        assert read_all(connection) == b""


@pytest.mark.parametrize(
    "part",
    [
        b'Content-Disposition: form-data; name="images"; filename="' + b"a" * 600 + b'"\r\n',
        b'Content-Disposition: form-data; name="images"\r\n' + b"X-Y: z\r\n" * 9,
    ],
)
def test_the_headers_of_a_part_are_bounded(serve: Serve, part: bytes) -> None:
    body = b"--b\r\n" + part + b"\r\n" + pngs(1)[0] + b"\r\n--b--\r\n"
    lines = [
        "Content-Type: multipart/form-data; boundary=b",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    answer = serve(max_part_header_bytes=256).ask(head("/classify", *lines) + body)
    assert status(answer) == 400
    assert b"malformed-form" in answer


def test_a_client_that_takes_no_answer_is_cut_off(serve: Serve) -> None:
    address = serve(write_timeout_s=0.3)
    with address.connect() as connection:
        connection.sendall(head("/openapi.json", method="GET") * 3000)
        time.sleep(1.5)
        received = read_all(connection)
    assert received.count(b"HTTP/1.1 200") < 3000


def test_a_form_refused_in_the_middle_leaves_the_connection_usable(serve: Serve) -> None:
    """What is left of a refused body is listened to, so that the client hears why."""
    address = serve(max_images=2)
    with httpx.Client(base_url=f"http://127.0.0.1:{address.port}") as http:
        assert http.post("/classify", files=form(pngs(40))).status_code == 413
        assert http.post("/classify", files=form(pngs(2))).status_code == 200
