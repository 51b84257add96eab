"""A classifier behind an endpoint: what it sends, what it makes of the answer, what it refuses to believe."""

import base64
import io
import json
import logging
import time
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from models.errors import (
    BadUpstreamAnswer,
    BundleError,
    InputError,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from models.remote import Connection, due, load_remote
from models.remote.fake import FAULTS, FakeServer
from models.remote.spec import RemoteSpec
from tests.models.remote.conftest import labels, pictures, probabilities, spec

IMAGES = pictures(7)
TRUTH = probabilities(IMAGES)
WAYS: dict[str, dict[str, Any]] = {
    "v2": {},
    "v2 binary": {"tensors": "binary"},
    "v2 named output": {"tensors": "binary", "output_name": "out", "model_version": "3"},
    "json": {"protocol": "json", "json_calls": {"image": "pixels"}},
}


@pytest.mark.parametrize("way", WAYS)
def test_probabilities_and_labels_arrive(far: Any, way: str) -> None:
    there = far(**WAYS[way])
    assert there.classifier.logits(IMAGES).softmax(1).numpy() == pytest.approx(TRUTH, abs=1e-5)
    told = far(access="labels", **WAYS[way]).classifier.logits(IMAGES)
    assert told.argmax(1).tolist() == TRUTH.argmax(1).tolist()
    assert (told == 0).sum(1).tolist() == [1] * 7
    assert (told == -torch.inf).sum(1).tolist() == [3] * 7


def test_a_batch_is_as_few_requests_as_the_limit_allows(far: Any) -> None:
    there = far(max_batch=3)
    assert there.classifier.logits(IMAGES).softmax(1).numpy() == pytest.approx(TRUTH, abs=1e-5)  # in order
    assert sorted(there.rows) == [1, 3, 3]
    assert there.classifier.queries == 7
    assert far(max_batch=7).classifier.logits(torch.empty(0, 1, 4, 5)).shape == (0, 4)


def test_what_is_sent_is_what_the_bundle_says(far: Any) -> None:
    seen: list[np.ndarray] = []

    def answer(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return np.full((len(images), 4), 0.25, dtype=np.float32)

    colour = torch.rand(2, 3, 4, 5)
    normal = {"size": [4, 5], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "layout": "nhwc"}
    far(server=FakeServer(answer), input=normal).classifier.logits(colour)
    wanted = (colour - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / 0.5
    assert seen[0] == pytest.approx(wanted.permute(0, 2, 3, 1).numpy(), abs=1e-6)

    reversed_ = {"size": [4, 5], "colours": "bgr"}
    far(server=FakeServer(answer), input=reversed_, datatype="UINT8").classifier.logits(colour)
    assert seen[1].tolist() == colour.flip(1).mul(255).round().int().tolist()

    for tensors in ("json", "binary"):
        sent = far(server=FakeServer(answer), input={"size": [4, 5]}, datatype="BYTES", tensors=tensors)
        sent.classifier.logits(colour)
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in seen[-1].tolist()])
        assert pixels.tolist() == colour.mul(255).round().int().permute(0, 2, 3, 1).tolist()


def test_somebody_elses_json() -> None:
    """Images wrapped in objects, an answer deep inside, labels by name, scores by name."""

    def reply(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        assert request.url == "http://far.example/base/v9:annotate"
        assert asked["model"] == "m"
        pngs = [base64.b64decode(entry["image"]["content"]) for entry in asked["requests"]]
        shades = np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in pngs]) / 255
        entries = [
            {"best": [{"name": ("dark", "dim", "bright", "white")[row.argmax()]}],
             "all": dict(zip(("white", "bright", "dim", "dark"), row[::-1].tolist(), strict=True))}
            for row in probabilities(shades)
        ]  # fmt: skip
        return httpx.Response(200, json={"result": {"responses": entries}})

    calls = {
        "path": "/v9:annotate",
        "request": {"model": "m", "requests": "$images"},
        "item": {"image": {"content": "$image"}},
        "answer": "result.responses",
    }
    by_name = spec(protocol="json", access="labels", json_calls={**calls, "entry": "best.0.name"})
    classifier = load_remote(by_name, Connection(), httpx.MockTransport(reply))
    assert classifier.logits(IMAGES).argmax(1).tolist() == TRUTH.argmax(1).tolist()
    classifier.close()
    scores = spec(protocol="json", json_calls={**calls, "entry": "all"})
    classifier = load_remote(scores, Connection(), httpx.MockTransport(reply))
    assert classifier.logits(IMAGES).softmax(1).numpy() == pytest.approx(TRUTH, abs=1e-5)
    classifier.close()


def test_logits_are_taken_as_they_are(far: Any) -> None:
    server = FakeServer(lambda images: np.tile(np.float32([1, -2, 300, 0]), (len(images), 1)))
    found = far(server=server, output="logits").classifier.logits(IMAGES)
    assert found.tolist() == [[1, -2, 300, 0]] * 7


def test_a_probability_of_zero_is_no_trouble(far: Any) -> None:
    found = far(server=FakeServer(lambda images: np.float32([[1, 0, 0, 0]] * len(images)))).classifier.logits(
        IMAGES
    )
    assert found.isfinite().all()
    assert found.softmax(1)[:, 0].tolist() == [1.0] * 7


def test_images_of_another_shape_are_not_sent(far: Any) -> None:
    there = far()
    with pytest.raises(InputError, match="float32 of shape"):
        there.classifier.logits(torch.zeros(1, 3, 4, 5))
    assert there.rows == []


# --- what goes wrong ------------------------------------------------------------------------------

NONSENSE = {
    "cut", "garbage", "no-json", "empty", "short-batch", "long-batch", "out-of-range", "negative", "nan",
    "text", "error", "forbidden", "redirect", "endless", "wide", "sum",
}  # fmt: skip
TIMEOUTS = {"slow", "drip"}
AWAY = {"down", "busy"}


def test_every_fault_is_expected_here() -> None:
    assert set(FAULTS) == NONSENSE | TIMEOUTS | AWAY


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("access", ["labels", "probabilities"])
@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_becomes_an_answer(far: Any, fault: str, access: str, way: str) -> None:
    if fault == "sum" and access == "labels":
        pytest.skip("labels have no sum")
    there = far([fault], {"max_answer_bytes": 300_000}, access=access, **WAYS[way])
    started = time.monotonic()
    expected = (
        BadUpstreamAnswer
        if fault in NONSENSE
        else UpstreamTimeout
        if fault in TIMEOUTS
        else UpstreamUnavailable
    )
    with pytest.raises(expected) as raised:
        there.classifier.logits(IMAGES)
    assert time.monotonic() - started < 5
    for hidden in ("far.example", "secret", "who are you"):
        assert hidden not in str(raised.value)
    if fault != "redirect":
        assert there.classifier.logits(IMAGES).argmax(1).tolist() == TRUTH.argmax(1).tolist()
    assert len(there.rows) <= 2  # and nothing was asked anywhere else


@pytest.mark.parametrize("fault", ["down", "busy", "slow"])
def test_what_passes_is_tried_again(far: Any, fault: str) -> None:
    there = far([fault, fault], {"retries": 2})
    ends = []
    there.classifier.upstream.on_attempt = ends.append
    assert there.classifier.logits(IMAGES).softmax(1).numpy() == pytest.approx(TRUTH, abs=1e-5)
    failed = {"down": "unavailable", "busy": "unavailable", "slow": "timeout"}[fault]
    assert [(end.outcome, end.rows) for end in ends] == [(failed, 7), (failed, 7), ("answered", 7)]


def test_the_number_of_attempts_is_bounded(far: Any) -> None:
    there = far(["busy"] * 9, {"retries": 2, "breaker_failures": 100})
    with pytest.raises(UpstreamUnavailable, match="503"):
        there.classifier.logits(IMAGES)
    assert len(there.rows) == 3


@pytest.mark.parametrize("fault", ["error", "forbidden", "no-json"])
def test_what_would_only_be_the_same_again_is_not(far: Any, fault: str) -> None:
    there = far([fault], {"retries": 2})
    with pytest.raises(BadUpstreamAnswer):
        there.classifier.logits(IMAGES)
    assert len(there.rows) == 1


def test_the_deadline_ends_attempts_and_pauses(far: Any) -> None:
    there = far(["slow"] * 50, {"timeout": 60.0, "retries": 50, "breaker_failures": 100})
    started = time.monotonic()
    with due(started + 0.3), pytest.raises(UpstreamTimeout):
        there.classifier.logits(IMAGES)
    assert 0.25 < time.monotonic() - started < 5
    with due(time.monotonic() - 1), pytest.raises(UpstreamTimeout):
        there.classifier.logits(IMAGES)
    assert len(there.rows) == 1  # after the deadline nothing was asked


def test_one_failed_request_of_a_batch_fails_the_batch(far: Any) -> None:
    there = far([None, "error"], {"concurrency": 1}, max_batch=2)
    with pytest.raises(BadUpstreamAnswer):
        there.classifier.logits(IMAGES)


def test_after_many_failures_it_is_left_alone_and_then_tried_once(far: Any) -> None:
    states: list[bool] = []
    there = far(["down"] * 4, {"breaker_failures": 3, "breaker_rest": 0.2})
    there.classifier.upstream.on_breaker = states.append
    for _ in range(3):
        with pytest.raises(UpstreamUnavailable, match="cannot be reached"):
            there.classifier.logits(IMAGES)
    with pytest.raises(UpstreamUnavailable, match="left alone") as raised:
        there.classifier.logits(IMAGES)
    assert 0 < raised.value.asked_to_wait <= 0.2
    assert len(there.rows) == 3
    time.sleep(0.25)
    with pytest.raises(UpstreamUnavailable, match="cannot be reached"):
        there.classifier.logits(IMAGES)  # the trial, which fails
    with pytest.raises(UpstreamUnavailable, match="left alone"):
        there.classifier.logits(IMAGES)
    time.sleep(0.25)
    there.classifier.logits(IMAGES)
    there.classifier.logits(IMAGES)
    assert len(there.rows) == 6
    assert states == [True, False]


def test_a_wrong_answer_does_not_open_the_breaker(far: Any) -> None:
    there = far(["error"] * 5, {"breaker_failures": 2})
    for _ in range(5):
        with pytest.raises(BadUpstreamAnswer):
            there.classifier.logits(IMAGES)
    assert len(there.rows) == 5


def test_callers_in_a_hurry_do_not_open_the_breaker(far: Any) -> None:
    there = far(["slow"] * 4, {"timeout": 60.0, "breaker_failures": 2})
    for _ in range(4):
        with due(time.monotonic() + 0.02), pytest.raises(UpstreamTimeout):
            there.classifier.logits(IMAGES)
    there.classifier.logits(IMAGES)
    hung = far(["slow"] * 4, {"timeout": 0.05, "breaker_failures": 2})
    for expected in (UpstreamTimeout, UpstreamTimeout, UpstreamUnavailable):
        with due(time.monotonic() + 60), pytest.raises(expected):
            hung.classifier.logits(IMAGES)


def test_the_credential_is_sent_and_never_shown(far: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "Bearer 5ecret"
    there = far(["down", "error", "busy", "slow"], {"credential": secret, "credential_header": "X-Token"})
    for _ in range(4):
        with pytest.raises(UpstreamError) as raised:
            there.classifier.logits(IMAGES)
        assert "5ecret" not in str(raised.value) + repr(raised.value.__cause__)
    there.classifier.logits(IMAGES)
    assert there.server.requests[-1][1]["x-token"] == secret
    assert "5ecret" not in caplog.text
    assert "5ecret" not in repr(there.classifier.upstream.connection)


# --- bundles --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "ftp://x"}, "https://host"),
        ({"url": "https://user:pass@x"}, "TRIGGERWALL_REMOTE_CREDENTIAL"),
        ({"url": "https://x?key=1"}, "without a query"),
        ({"model_name": None}, "model_name"),
        ({"model_name": "../admin"}, "model_name"),
        ({"access": "weights"}, "access"),
        ({"labels": None}, "labels or num_classes"),
        ({"num_classes": 3}, "4 names for 3"),
        ({"max_batch": 0}, "max_batch"),
        ({"datatype": "UINT8", "input": {"size": [4, 5], "mean": [0.5] * 3, "std": [0.5] * 3}}, "fractions"),
        ({"datatype": "BYTES", "input": {"size": [4, 5], "layout": "nhwc"}}, "PNGs"),
        ({"protocol": "json", "json_calls": {"request": {"a": 1}}}, r"\$images"),
        ({"protocol": "json", "json_calls": {"item": ["$image", "$image"]}}, "once"),
    ],
)
def test_a_bundle_that_makes_no_sense(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        spec(**fields)


def test_the_operators_url_wins_and_is_checked() -> None:
    with pytest.raises(BundleError, match="TRIGGERWALL_REMOTE_CREDENTIAL"):
        load_remote(spec(), Connection(url="http://me:secret@here"))


def test_the_digest_follows_what_answers_and_not_where(far: Any) -> None:
    def digest(**fields: Any) -> str:
        found: str = far(**fields).classifier.info.digest
        return found

    same = [{}, {"url": "https://other"}, {"max_batch": 5}, {"tensors": "binary"}]
    assert len({digest(**fields) for fields in same}) == 1
    others = [
        {}, {"version": "2"}, {"model_name": "other"}, {"access": "labels"}, {"datatype": "UINT8"},
        {"input": {"size": [4, 6], "channels": 1}}, {"output": "logits"},
    ]  # fmt: skip
    assert len({digest(**fields) for fields in others}) == len(others)


def test_the_facts(far: Any) -> None:
    info = far(access="labels").classifier.info
    assert (info.backend, info.access, info.num_classes, info.size) == ("remote", "labels", 4, (4, 5))
    assert isinstance(spec(), RemoteSpec)
    assert labels(IMAGES).tolist() == TRUTH.argmax(1).tolist()
