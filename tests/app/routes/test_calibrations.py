"""POST /calibrate, the history, and the way back."""

import asyncio
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.calibrator import CalibrationBusy
from tests.app.conftest import MakeClient
from tests.app.routes.test_classify import PNG, gateway_of, slug
from tests.app.tiny import CLASSES, form, pngs, write_bundle


def zipped(entries: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def archive_form(data: bytes, **fields: str) -> list[tuple[str, tuple[str | None, object]]]:
    return [("archive", ("benign.zip", data)), *form([], **fields)]


def foldered(count: int = 40, seed: int = 1) -> dict[str, bytes]:
    return {f"train/{CLASSES[n % 4]}/{n}.png": data for n, data in enumerate(pngs(count, seed))}


def test_images_alone(client: TestClient) -> None:
    answer = client.post("/calibrate", files=form(pngs(40, seed=1)))
    assert answer.status_code == 201
    report = answer.json()
    assert answer.headers["location"] == f"/calibrations/{report['id']}"
    assert report["active"] is True
    assert report["model"]["digest"] == gateway_of(client).info.digest
    assert (report["alpha"], report["images"], report["labelled"]) == (0.4, 40, False)
    assert report["benign_accuracy"] is None
    assert (report["skipped"], report["skipped_images"]) == ([], 0)
    (spc,) = report["detectors"]
    assert spc["detector"] == "spc"
    assert spc["achieved_fpr"] <= 0.4
    assert sum(each["images"] for each in spc["classes"]) == 40
    assert client.get("/readyz").status_code == 200
    assert client.get(answer.headers["location"]).json() == report


def test_labels_by_name_and_by_index_are_the_same(client: TestClient) -> None:
    images = pngs(40, seed=1)
    names = client.post("/calibrate", files=form(images, labels=[CLASSES[n % 4] for n in range(40)])).json()
    indices = client.post("/calibrate", files=form(images, labels=[str(n % 4) for n in range(40)])).json()
    assert names["labelled"]
    assert names["benign_accuracy"] == indices["benign_accuracy"] is not None
    assert names["detectors"] == indices["detectors"]


def test_an_archive_is_the_same_as_its_images(client: TestClient) -> None:
    labels = [CLASSES[n % 4] for n in range(40)]
    parts = client.post("/calibrate", files=form(pngs(40, seed=1), labels=labels)).json()
    extra = {"__MACOSX/x": b"junk", "train/.DS_Store": b"junk", "train/dot/": b""}
    answer = client.post("/calibrate", files=archive_form(zipped({**foldered(), **extra}), alpha="0.4"))
    assert answer.status_code == 201
    assert answer.json()["detectors"] == parts["detectors"]
    assert answer.json()["benign_accuracy"] == parts["benign_accuracy"]


def test_a_calibration_class_with_one_image(client: TestClient) -> None:
    entries = {f"{CLASSES[0]}/{n}.png": data for n, data in enumerate(pngs(30, seed=1))}
    entries[f"{CLASSES[3]}/only.png"] = pngs(1, seed=2)[0]
    answer = client.post("/calibrate", files=archive_form(zipped(entries)))
    assert answer.status_code == 201
    assert answer.json()["images"] == 31


def test_fewer_images_than_alpha_needs(client: TestClient) -> None:
    answer = client.post("/calibrate", files=form(pngs(40), alpha="0.01"))
    assert (answer.status_code, slug(answer)) == (422, "calibration-refused")
    assert "takes 99; send more" in answer.json()["detail"]
    assert client.get("/readyz").status_code == 503
    assert client.get("/calibrations").json()["calibrations"] == []


def test_unreadable_images_are_left_out_and_named(client: TestClient) -> None:
    images = [*pngs(30), b"", b"nonsense"]
    report = client.post("/calibrate", files=form(images, labels=["0"] * 32)).json()
    assert (report["images"], report["skipped_images"]) == (30, 2)
    assert [each["part"] for each in report["skipped"]] == ["30.png", "31.png"]
    assert "2 images could not be used and were left out" in report["warnings"]


def test_mostly_unreadable_images_are_refused(client: TestClient) -> None:
    answer = client.post("/calibrate", files=form([*pngs(10), *[b"nonsense"] * 11]))
    assert (answer.status_code, slug(answer)) == (422, "unusable-images")
    assert answer.json()["part"] == "10.png"


LABELLED: list[tuple[str, list[str], str, str]] = [
    ("too few", ["0"] * 3, "label-mismatch", "labels"),
    ("too many", ["0"] * 5, "label-mismatch", "labels"),
    ("unknown name", ["0", "1", "square", "2"], "label-mismatch", "labels[2]"),
    ("index out of range", ["0", "1", "2", "4"], "label-mismatch", "labels[3]"),
    ("negative", ["-1", "1", "2", "3"], "label-mismatch", "labels[0]"),
    ("not ASCII digits", ["٣", "1", "2", "3"], "label-mismatch", "labels[0]"),
    ("too long", ["x" * 5000, "1", "2", "3"], "malformed-form", "labels"),
]


@pytest.mark.parametrize(
    ("labels", "kind", "part"), [row[1:] for row in LABELLED], ids=[row[0] for row in LABELLED]
)
def test_labels_that_do_not_match(client: TestClient, labels: list[str], kind: str, part: str) -> None:
    answer = client.post("/calibrate", files=form(pngs(4), labels=labels))
    assert (slug(answer), answer.json()["part"]) == (kind, part)
    assert answer.status_code in (400, 422)


FORMS: list[tuple[str, Any, str, int]] = [
    ("nothing", form([], alpha="0.5"), "invalid-request", 422),
    ("images and archive", [*form(pngs(4)), *archive_form(zipped(foldered(4)))], "invalid-request", 422),
    ("archive and labels", archive_form(zipped(foldered(4)), labels="0"), "label-mismatch", 422),
    ("a field that is not known", form(pngs(4), label=["0"] * 4), "invalid-request", 422),
    ("alpha of 1", form(pngs(4), alpha="1"), "invalid-request", 422),
    ("alpha of 0", form(pngs(4), alpha="0"), "invalid-request", 422),
    ("alpha is not a number", form(pngs(4), alpha="nan"), "invalid-request", 422),
    ("alpha is a word", form(pngs(4), alpha="low"), "invalid-request", 422),
    ("activate is a word", form(pngs(4), activate="maybe"), "invalid-request", 422),
    ("two alphas", form(pngs(4), alpha=["0.5", "0.6"]), "too-many-parts", 413),
    ("archive is no zip", archive_form(b"nonsense"), "archive-refused", 422),
    ("archive is empty", archive_form(zipped({})), "unusable-images", 422),
    ("traversal", archive_form(zipped({"../../dot/x.png": b"x"})), "archive-refused", 422),
    ("unknown folder", archive_form(zipped({"square/x.png": b"x"})), "label-mismatch", 422),
]


@pytest.mark.parametrize(
    ("files", "kind", "status"), [row[1:] for row in FORMS], ids=[row[0] for row in FORMS]
)
def test_forms_that_make_no_sense(client: TestClient, files: Any, kind: str, status: int) -> None:
    answer = client.post("/calibrate", files=files)
    assert (answer.status_code, slug(answer)) == (status, kind)
    assert client.get("/calibrations").json() == {"active": None, "calibrations": [], "activations": []}


def test_wrong_content_type(client: TestClient) -> None:
    answer = client.post(
        "/calibrate", content=zipped(foldered()), headers={"Content-Type": "application/zip"}
    )
    assert (answer.status_code, slug(answer)) == (415, "unsupported-media-type")


def test_limits(make_client: MakeClient) -> None:
    client = make_client(
        max_calibration_images=10,
        max_calibration_body_bytes=9000,
        max_archive_bytes=3000,
        max_image_bytes=1000,
    )
    assert slug(client.post("/calibrate", files=form(pngs(11)))) == "too-many-parts"
    assert slug(client.post("/calibrate", files=form([b"x" * 9000]))) == "body-too-large"
    assert slug(client.post("/calibrate", files=archive_form(zipped(foldered(11))))) == "archive-refused"
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("dot/0.png", bytes(1_000_000))
    answer = client.post("/calibrate", files=archive_form(bomb.getvalue()))
    assert (answer.status_code, slug(answer), answer.json()["part"]) == (422, "archive-refused", "dot/0.png")


def test_rollback(client: TestClient) -> None:
    first, second = (client.post("/calibrate", files=form(pngs(40, seed))).json()["id"] for seed in (1, 2))
    assert client.get("/info").json()["calibration"]["id"] == second
    assert client.get(f"/calibrations/{first}").json()["active"] is False
    answer = client.post(f"/calibrations/{first}/activate")
    assert (answer.status_code, answer.json()["active"], answer.json()["id"]) == (200, True, first)
    body = client.post("/classify", content=pngs(1)[0], headers=PNG).json()
    assert body["calibration"] == first
    history = client.get("/calibrations").json()
    assert history["active"] == first
    assert [each["id"] for each in history["calibrations"]] == [second, first]
    assert [(a["calibration"], a["reason"]) for a in history["activations"]] == [
        (first, "activated"),
        (second, "created"),
        (first, "created"),
    ]


def test_created_without_being_activated(client: TestClient) -> None:
    report = client.post("/calibrate", files=form(pngs(40), activate="false")).json()
    assert report["active"] is False
    assert client.get("/readyz").status_code == 503
    assert client.post(f"/calibrations/{report['id']}/activate").status_code == 200
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("path", ["nothing", "20260101T000000Z-00000000"])
def test_an_unknown_calibration(calibrated: TestClient, path: str) -> None:
    for answer in (
        calibrated.get(f"/calibrations/{path}"),
        calibrated.post(f"/calibrations/{path}/activate"),
    ):
        assert (answer.status_code, slug(answer)) == (404, "unknown-calibration")
    assert slug(calibrated.get("/calibrations/a..b")) == "invalid-request"


def test_one_calibration_at_a_time(calibrated: TestClient) -> None:
    calibrator = gateway_of(calibrated).calibrator
    with calibrator.reserved():
        answer = calibrated.post("/calibrate", files=form(pngs(40)))
        with pytest.raises(CalibrationBusy), calibrator.reserved():
            pass
    assert (answer.status_code, slug(answer), answer.headers["retry-after"]) == (
        409,
        "calibration-busy",
        "10",
    )
    assert calibrated.post("/calibrate", files=form(pngs(40))).status_code == 201


def test_a_failed_save_changes_nothing(calibrated: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store commits before anything is enforced."""
    from app.storage.errors import StoreError

    gateway = gateway_of(calibrated)
    before = gateway.firewall.guard

    def fail(*_: Any, **__: Any) -> None:
        raise StoreError("disk full at /secret")

    monkeypatch.setattr(gateway.store, "save", fail)
    answer = calibrated.post("/calibrate", files=form(pngs(40, seed=3)))
    assert (answer.status_code, slug(answer)) == (503, "store-failed")
    assert "secret" not in answer.text
    assert gateway.firewall.guard is before


class TestAnotherClassifier:
    """A calibration is bound to what it was made for, and never enforced on anything else."""

    def test_a_new_model_version(self, make_client: MakeClient, tmp_path: Path) -> None:
        old = make_client()
        id = old.post("/calibrate", files=form(pngs(40))).json()["id"]
        client = make_client(bundle=write_bundle(tmp_path / "other", seed=9))
        answer = client.get("/readyz")
        assert (answer.status_code, slug(answer)) == (503, "calibration-mismatch")
        assert "another classifier" in answer.json()["detail"]
        assert slug(client.post("/classify", content=pngs(1)[0], headers=PNG)) == "calibration-mismatch"
        info = client.get("/info").json()
        assert (info["ready"], info["calibration"]) == (False, None)
        assert "another classifier" in info["reason"]
        refused = client.post(f"/calibrations/{id}/activate")
        assert (refused.status_code, slug(refused)) == (409, "conflict")
        assert client.post("/calibrate", files=form(pngs(40))).status_code == 201
        assert client.get("/readyz").status_code == 200
        assert client.get("/info").json()["reason"] is None

    def test_other_detector_settings(self, make_client: MakeClient) -> None:
        make_client().post("/calibrate", files=form(pngs(40)))
        client = make_client(spc_scales=(2, 3))
        assert "other detector settings" in client.get("/readyz").json()["detail"]

    def test_monitor_mode_goes_on_without(self, make_client: MakeClient) -> None:
        make_client().post("/calibrate", files=form(pngs(40)))
        client = make_client(spc_scales=(2, 3), mode="monitor")
        assert client.get("/readyz").status_code == 200
        assert "other detector settings" in client.get("/info").json()["reason"]
        result = client.post("/classify", content=pngs(1)[0], headers=PNG).json()["results"][0]
        assert (result["verdict"], result["detections"]) == ("flagged", [])

    def test_fixed_thresholds_do_not_stand_in(self, make_client: MakeClient) -> None:
        make_client(thresholds="fixed").post("/calibrate", files=form(pngs(40)))
        client = make_client(thresholds="fixed", spc_scales=(2, 3))
        assert client.get("/readyz").status_code == 503


def test_a_restart_enforces_the_same(make_client: MakeClient) -> None:
    first = make_client()
    id = first.post("/calibrate", files=form(pngs(40))).json()["id"]
    files = form(pngs(64, seed=7))
    before = first.post("/classify", files=files).json()
    second = make_client()
    assert second.get("/readyz").status_code == 200
    after = second.post("/classify", files=files).json()
    assert after["calibration"] == before["calibration"] == id
    assert after["results"] == before["results"]


class TestAdmin:
    PATHS = ("/calibrate", "/calibrations/x/activate")

    @pytest.mark.parametrize("path", PATHS)
    def test_with_a_key(self, make_client: MakeClient, path: str) -> None:
        client = make_client(admin_key="secret", host="0.0.0.0")
        for headers in ({}, {"X-API-Key": "wrong"}, {"X-API-Key": "secre"}, {"X-API-Key": "sécret"}):
            encodable = {name: value.encode() for name, value in headers.items()}
            answer = client.post(path, headers=encodable)
            assert (answer.status_code, slug(answer)) == (401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("ApiKey")
        assert client.post(path, headers={"X-API-Key": "secret"}).status_code in (404, 415)

    @pytest.mark.parametrize("path", PATHS)
    def test_without_a_key_on_a_public_bind(self, make_client: MakeClient, path: str) -> None:
        answer = make_client(host="0.0.0.0").post(path)
        assert (answer.status_code, slug(answer)) == (403, "forbidden")
        assert "TRIGGERWALL_ADMIN_KEY" in answer.json()["detail"]

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Host": "evil.example"},
            {"Host": "evil.example", "Origin": "http://localhost"},
        ],
    )
    def test_a_web_page_cannot_calibrate_a_local_gateway(
        self, client: TestClient, headers: dict[str, str]
    ) -> None:
        answer = client.post("/calibrate", files=form(pngs(40)), headers=headers)
        assert (answer.status_code, slug(answer)) == (403, "forbidden")

    @pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000"])
    def test_this_machine_may(self, client: TestClient, host: str) -> None:
        headers = {"Host": host, "Origin": f"http://{host}"}
        assert client.post("/calibrate", files=form(pngs(40)), headers=headers).status_code == 201

    def test_who_may_not_is_told_before_the_body_is_read(self, make_client: MakeClient) -> None:
        client = make_client(admin_key="secret", max_calibration_body_bytes=2000)
        assert client.post("/calibrate", content=b"x" * 5000).status_code == 401

    def test_reading_needs_no_key(self, make_client: MakeClient) -> None:
        assert make_client(admin_key="secret").get("/calibrations").status_code == 200


def test_classification_goes_on_during_a_calibration(make_client: MakeClient) -> None:
    """Measuring takes turns with classifying on the device."""
    import httpx

    from app.main import create_app

    client = make_client(calibration_batch_images=4, mode="monitor")
    order: list[str] = []

    async def run() -> None:
        app = create_app(client.app.state.gateway.settings)  # type: ignore[attr-defined]
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http,
        ):

            async def calibrate() -> None:
                assert (await http.post("/calibrate", files=form(pngs(400)))).status_code == 201
                order.append("calibrated")

            async def classify() -> None:
                await asyncio.sleep(0.05)
                assert (await http.post("/classify", content=pngs(1)[0], headers=PNG)).status_code == 200
                order.append("classified")

            await asyncio.gather(calibrate(), classify())

    asyncio.run(run())
    assert order == ["classified", "calibrated"]


def test_a_share_of_poison_is_a_field_and_a_setting(make_client: MakeClient) -> None:
    client = make_client(contamination=0.05, alpha=0.2)
    for fields, kept in (({}, 38), ({"contamination": "0.1"}, 36), ({"contamination": "0"}, 40)):
        report = client.post("/calibrate", files=form(pngs(40, seed=1), **fields)).json()
        id = report["id"]
        content = gateway_of(client).store.get(id).content
        (part,) = content["detectors"]
        assert len(part["pooled"]) == kept
        assert report["contamination"]["strength"] in ("unknown", "none")
        assert report["contamination"]["suspects"] == []


@pytest.mark.parametrize("share", ["0.3", "-0.1", "nan", "much"])
def test_a_share_of_poison_outside_its_range(client: TestClient, share: str) -> None:
    answer = client.post("/calibrate", files=form(pngs(40), contamination=share))
    assert answer.status_code == 422
    assert "contamination is a number from 0 to 0.2" in answer.json()["detail"]


def test_images_that_are_all_alike(client: TestClient) -> None:
    answer = client.post("/calibrate", files=form(pngs(1) * 40))
    assert answer.status_code == 201
    assert client.post("/classify", files=form(pngs(3))).status_code == 200
