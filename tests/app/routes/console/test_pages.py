"""Every page over HTTP: what it says, what it escapes, what it loads."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image, PngImagePlugin

from app.storage.blobs import Folder
from tests.app.conftest import MakeClient
from tests.app.console.seed import keep
from tests.app.routes.console.pages import Page, gateway_of
from tests.app.tiny import encoded, form, pixels, pngs, write_bundle

PAGES = ("", "/detectors", "/calibrations", "/quarantine", "/incidents", "/what-if", "/mode", "/sign-in")
HTML_NAME = "<script>alert(1)</script>"


@pytest.fixture
def busy(calibrated: TestClient) -> TestClient:
    """A gateway with traffic: 30 images accepted, 5 rejected as label 1."""
    gateway = gateway_of(calibrated)
    keep(gateway, pngs(30, seed=2), suspicious=False, label=0)
    keep(gateway, pngs(5, seed=3))
    return calibrated


def incident_of(client: TestClient) -> str:
    return re.findall(r'href="(/console/incidents/\d+/\d+/\d+)"', client.get("/console/incidents").text)[0]


def test_a_new_gateway_has_every_page(client: TestClient) -> None:
    for path in PAGES:
        answer = client.get(f"/console{path}")
        assert answer.status_code == 200
        assert Page(answer.text).open == []


def test_pages_load_what_is_ours_and_nothing_else(busy: TestClient) -> None:
    for path in PAGES:
        answer = busy.get(f"/console{path}")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="([^"]+)"', answer.text)
        assert len(loaded) >= 4
        assert all(
            url.startswith(("/console/static/", "/console/pictures/", "/console/incidents/"))
            for url in loaded
        )
        for url in loaded:
            assert busy.get(url).status_code == 200


def test_the_overview(busy: TestClient) -> None:
    page = Page(busy.get("/console").text)
    assert "images 35 last hour" in page.text
    assert "rejected 14 % 5 images; budget 40 %" in page.text
    assert "to review 5" in page.text
    assert "1 (line) 5 100 %" in page.text  # the labels of what was stopped
    assert gateway_of(busy).calibrator.active.id in page.text  # type: ignore[union-attr]
    live = Page(busy.get("/console/live?within=week").text)
    assert "images 35 last week" in live.text
    assert busy.get("/console?within=<b>").status_code == 422


def test_the_overview_says_what_the_report_warns_of(busy: TestClient) -> None:
    report = busy.get("/calibrations/" + gateway_of(busy).calibrator.active.id).json()  # type: ignore[union-attr]
    page = Page(busy.get("/console").text)
    assert report["warnings"]
    assert all(" ".join(warning.split()) in page.text for warning in report["warnings"])
    sentences = [each["sentence"][1:] for each in report["evidence"]]
    assert any(sentence in page.text for sentence in sentences)


def test_the_overview_says_why_nothing_can_be_judged(client: TestClient) -> None:
    assert "No calibration is active: POST at least" in Page(client.get("/console").text).text


def test_detectors(busy: TestClient) -> None:
    page = Page(busy.get("/console/detectors").text)
    assert "30 cleared, 5 suspicious; 0 of these scores are bounds." in page.text
    assert "/console/quarantine?detector=spc" in page.links
    keep(gateway_of(busy), pngs(2, seed=9), minutes_ago=60 * 24 * 3)
    assert "5 suspicious" in Page(busy.get("/console/detectors?within=day").text).text
    assert "7 suspicious" in Page(busy.get("/console/detectors?within=week").text).text


def test_calibrations_and_their_reports(calibrated: TestClient) -> None:
    calibrated.post("/calibrate", files=form(pngs(50, seed=2), activate="false"))
    records = gateway_of(calibrated).store.summaries()
    new, old = [each.id for each in records]
    page = Page(calibrated.get("/console/calibrations").text)
    assert f"/console/calibrations/{new}/activate" in page.links
    assert f"/console/calibrations/{old}/activate" not in page.links  # it is active
    assert "40 40 % active" in page.text

    report = Page(calibrated.get(f"/console/calibrations/{old}").text)
    assert "Benign scores of spc" not in report.text  # that is in a plot, for those who cannot see it
    assert "This was learnt from 40 unlabelled benign images" in report.text
    assert f"/calibrations/{old}/report" in report.links

    compared = Page(calibrated.get(f"/console/calibrations/compare?a={old}&b={new}").text)
    assert "the benign images go from 40 to 50" in compared.text
    assert calibrated.get(f"/console/calibrations/compare?a={old}").status_code == 422
    assert calibrated.get(f"/console/calibrations/compare?a={old}&b={old}").status_code == 422
    assert calibrated.get(f"/console/calibrations/compare?a={old}&b=other").status_code == 404


def test_the_gallery_filters(busy: TestClient) -> None:
    def shown(query: str) -> int:
        page = Page(busy.get(f"/console/quarantine?{query}").text)
        return sum("/pictures/" in str(url) for url in page.images)

    keep(gateway_of(busy), pngs(2, seed=8), label=2, detector="psc", minutes_ago=60)
    digests = keep(gateway_of(busy), pngs(1, seed=7), label=3, minutes_ago=120)
    gateway_of(busy).quarantine.mark(digests, "trigger", "me")  # type: ignore[arg-type]
    assert [shown(f"label={label}") for label in range(4)] == [0, 5, 2, 1]
    assert [shown(f"detector={name}") for name in ("spc", "psc", "x")] == [6, 2, 0]
    assert [shown(f"review={each}") for each in ("open", "done", "trigger", "false_alarm")] == [7, 1, 1, 0]
    assert [shown(f"verdict={each}") for each in ("rejected", "flagged", "")] == [8, 0, 8]
    assert [shown("since=2026-01-01T00:00"), shown("until=2026-01-01T00:00")] == [8, 0]
    assert busy.get("/console/quarantine?label=one").status_code == 422
    assert busy.get("/console/quarantine?review=maybe").status_code == 422


def test_the_gallery_goes_page_by_page_with_its_filter(calibrated: TestClient) -> None:
    expected = keep(gateway_of(calibrated), pngs(130, seed=3))
    keep(gateway_of(calibrated), pngs(5, seed=4), label=2)
    url, seen, sizes = "/console/quarantine?label=1&detector=spc", [], []
    while url:
        text = calibrated.get(url).text
        found = re.findall(r'<img src="/console/pictures/([0-9a-f]{64})\.png"', text)
        seen += found
        sizes.append(len(found))
        following = re.search(r'href="(\?[^"]+)" rel="next"', text)
        url = "/console/quarantine" + following[1].replace("&amp;", "&") if following else ""
    assert sizes == [60, 60, 10]
    assert seen == expected[::-1]


def test_an_image_with_its_scores_and_probes(make_client: MakeClient) -> None:
    client = make_client(detectors=("profile", "spc"))
    assert client.post("/calibrate", files=form(pngs(60, seed=1))).status_code == 201
    (digest,) = keep(gateway_of(client), pngs(1, seed=3))
    page = Page(client.get(f"/console/quarantine/{digest}").text)
    assert page.open == []
    assert "spc 0.9 0.5 0.1 suspicious" in page.text
    assert "predicted 1 (line) , confidence 0.7500" in page.text
    probes = [f"/console/pictures/{digest}/probes/{name}.png" for name in ("flip", "noise", "x3", "x11")]
    assert set(probes) < set(page.images)
    assert "What profile asks" in page.text
    assert "What spc asks" in page.text
    original = np.asarray(Image.open(io.BytesIO(client.get(f"/console/pictures/{digest}/seen.png").content)))
    flipped = np.asarray(Image.open(io.BytesIO(client.get(probes[0]).content)))
    tripled = np.asarray(Image.open(io.BytesIO(client.get(probes[2]).content)))
    assert np.array_equal(original, pixels(1, seed=3)[0])
    assert np.array_equal(flipped, original[:, ::-1])
    assert np.array_equal(tripled, np.minimum(original.astype(int) * 3, 255))
    assert client.get(f"/console/pictures/{digest}/probes/other.png").status_code == 404
    assert re.search(r"most likely shows [0-3] \((dot|line|ring|cross)\), 0\.\d\d once disarmed", page.text)
    heat = client.get(f"/console/pictures/{digest}/sensitivity.png")
    assert Image.open(io.BytesIO(heat.content)).size == (256, 256)
    assert heat.headers["cache-control"] == "no-store"
    assert client.get(f"/console/pictures/{'0' * 64}/sensitivity.png").status_code == 404


def test_an_incident_and_its_average(busy: TestClient) -> None:
    url = incident_of(busy)
    assert "1 (line) 5 images" in Page(busy.get("/console/incidents").text).text
    page = Page(busy.get(url).text)
    assert sum(str(each).startswith("/console/pictures/") for each in page.images) == 5
    average = np.asarray(Image.open(io.BytesIO(busy.get(f"{url}/average.png").content)))
    assert np.abs(average - pixels(5, seed=3).mean(0)).max() <= 1
    assert busy.get("/console/incidents/1/5/9").status_code == 404
    assert busy.get("/console/incidents/1/5/9/average.png").status_code == 404
    assert Image.open(io.BytesIO(busy.get(f"{url}/sensitivity.png").content)).mode == "RGB"
    assert busy.get("/console/incidents/1/5/9/sensitivity.png").status_code == 404


def test_what_if(busy: TestClient) -> None:
    def said(query: str) -> str:
        return Page(busy.get(f"/console/what-if?{query}").text).text

    assert "all decisions 35 5 5 14 %" in said("")
    assert "all decisions 35 5 35 100 %" in said("t-spc=0.1")
    assert "all decisions 35 5 0 0 %" in said("t-spc=0.95")
    assert "all decisions 35 5 5 14 %" in said("alpha=20")  # p-values are 0.1 and 0.8
    assert "all decisions 35 5 0 0 %" in said("alpha=5")
    assert "all decisions 35 5 35 100 %" in said("alpha=90")
    for wrong in ("alpha=0", "alpha=100", "alpha=x", "t-spc=nan", "within=ever"):
        assert busy.get(f"/console/what-if?{wrong}").status_code == 422


@pytest.mark.parametrize(
    "path", ["/console/other", "/console/calibrations/none", f"/console/quarantine/{'0' * 64}"]
)
def test_what_is_not_there_is_a_page_that_says_so(busy: TestClient, path: str) -> None:
    answer = busy.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert Page(answer.text).open == []


def test_html_in_names_is_text(make_client: MakeClient, tmp_path: Path) -> None:
    """Class names of the bundle, and the query string."""
    names = (HTML_NAME, '"><img src=x onerror=alert(1)>', "'quoted'", "{{ 7 * 7 }}")
    client = make_client(bundle=write_bundle(tmp_path / "odd", labels=names))
    assert client.post("/calibrate", files=form(pngs(40, seed=1))).status_code == 201
    for label in range(4):
        digests = keep(gateway_of(client), pngs(3, seed=label), label=label)
    active = gateway_of(client).calibrator.active
    assert active is not None
    paths = [
        *PAGES,
        f"/calibrations/{active.id}",
        f"/quarantine/{digests[0]}",
        f"/quarantine?since={HTML_NAME}",
    ]
    paths += [f"/quarantine?label=0&detector={HTML_NAME}", f"/{HTML_NAME}", f"/sign-in?next={HTML_NAME}"]
    for path in paths:
        text = client.get(f"/console{path}").text
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert Page(text).open == []
    assert names[3] in Page(client.get(incident_of(client)).text).text  # the newest
    assert HTML_NAME in Page(client.get("/console/quarantine").text).text


def test_pictures_are_made_here(busy: TestClient) -> None:
    """Whatever was sent, and whatever it was called, a PNG with nothing but pixels comes back."""
    hidden = PngImagePlugin.PngInfo()
    hidden.add_text("Comment", HTML_NAME)
    data = encoded(Image.new("RGBA", (900, 300), (255, 0, 0, 128)), pnginfo=hidden)
    jpeg = encoded(Image.new("L", (40, 30), 200), "JPEG", comment=HTML_NAME.encode())
    for sent, size in ((data, (160, 53)), (jpeg, (40, 30))):
        (digest,) = keep(gateway_of(busy), [sent + HTML_NAME.encode()], media_type="text/html")
        answer = busy.get(f"/console/pictures/{digest}.png")
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert HTML_NAME.encode() not in answer.content
        assert Image.open(io.BytesIO(answer.content)).size == size
    large = busy.get(f"/console/pictures/{digest}.png?large=true")
    assert Image.open(io.BytesIO(large.content)).size == (40, 30)


def test_an_image_whose_file_is_gone_or_broken(busy: TestClient) -> None:
    gateway = gateway_of(busy)
    gone, broken = keep(gateway, pngs(2, seed=5))
    gateway.recording.blobs.remove(gone)
    gateway.recording.blobs.put(broken, b"<svg onload=alert(1)>")
    for digest, said in ((gone, "The image's file is gone."), (broken, "cannot be read any more")):
        assert busy.get(f"/console/pictures/{digest}.png").status_code == 404
        answer = busy.get(f"/console/quarantine/{digest}")
        assert answer.status_code == 200
        assert said in Page(answer.text).text
    assert busy.get(f"{incident_of(busy)}/average.png").status_code == 200  # of those that are left


def test_a_quarantine_that_cannot_be_read(busy: TestClient, tmp_path: Path) -> None:
    """Its folder is missing, or something else lies there: pages say so, and images are judged."""
    (digest,) = keep(gateway_of(busy), pngs(1, seed=6))
    folder = gateway_of(busy).recording.blobs
    assert isinstance(folder, Folder)
    folder.path.rename(tmp_path / "elsewhere")
    assert "file is gone" in Page(busy.get(f"/console/quarantine/{digest}").text).text
    folder.path.write_text("not a folder")
    assert "cannot be read" in Page(busy.get(f"/console/quarantine/{digest}").text).text
    assert busy.get(f"/console/pictures/{digest}.png").status_code == 503
    assert busy.get("/console/quarantine").status_code == 200
    assert (
        busy.post("/classify", content=pngs(1)[0], headers={"Content-Type": "image/png"}).status_code == 200
    )


def test_enormous_images_do_not_get_decoded(busy: TestClient) -> None:
    """A PNG of 100 million pixels in a few kilobytes."""
    data = encoded(Image.new("1", (10_000, 10_000)))
    (digest,) = keep(gateway_of(busy), [data])
    assert busy.get(f"/console/pictures/{digest}.png").status_code == 404
    assert "more than 25000000 pixels" in Page(busy.get(f"/console/quarantine/{digest}").text).text
