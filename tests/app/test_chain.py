"""A gateway in front of another gateway: our own /v2 as the remote classifier, over sockets, in bytes."""

from pathlib import Path

import pytest
import yaml

from bench.remote import RemoteOptions, bench_remote
from tests.app.service import Service
from tests.app.tiny import CLASSES, SIZE, form, pngs, write_bundle


def test_one_guards_the_other_and_the_benchmark_counts(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, png in enumerate(pngs(8, seed=3)):
        (photos / f"{number}.png").write_bytes(png)
    options = {"device": "cpu", "detectors": ["spc"], "alpha": 0.4}
    near = write_bundle(tmp_path / "near")
    with Service(bundle=near, data_dir=tmp_path / "a", mode="monitor", **options) as behind:
        spec = {
            "name": "far", "backend": "remote", "url": behind.url, "model_name": "tiny", "model_version": "0",
            "access": "probabilities", "output_name": "probabilities", "labels": list(CLASSES),
            "tensors": "binary", "input": {"size": [SIZE, SIZE], "channels": 1},
        }  # fmt: skip
        far = tmp_path / "far"
        far.mkdir()
        (far / "model.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
        with Service(bundle=far, data_dir=tmp_path / "b", **options) as gateway:
            assert gateway.http.post("/calibrate", files=form(pngs(40, seed=1))).status_code == 201
            results = gateway.http.post("/classify", files=form(pngs(24, seed=3))).json()["results"]
            labels = behind.http.post("/classify", files=form(pngs(24, seed=3))).json()["results"]
            assert {each["verdict"] for each in results} == {"accepted", "rejected"}
            for there, here in zip(results, labels, strict=True):
                if there["prediction"]:
                    assert there["prediction"]["label"] == here["prediction"]["label"]
                    confidence = pytest.approx(here["prediction"]["confidence"], rel=1e-4)
                    assert there["prediction"]["confidence"] == confidence
            report = bench_remote(
                RemoteOptions(far, gateway.url, photos, seconds=0.4, turn=0.1, callers=2, batch=2)
            )
    assert len(report.direct) == len(report.guarded) == 2
    assert all(rate > 0 for rate in (*report.direct, *report.guarded))
    assert 1 <= report.queries <= 6
    assert len(report.sentences()) == 4
