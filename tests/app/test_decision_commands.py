"""`triggerwall decisions export` against a real gateway."""

import json
import time
from pathlib import Path

import httpx
import pytest
from pyarrow import parquet

from tests.app.recording.test_writer import wait_for
from tests.app.service import Service
from tests.app.test_cli import run
from tests.app.tiny import form, pngs


def test_jsonl_and_parquet_hold_the_same(bundle: Path, tmp_path: Path) -> None:
    settings = {"thresholds": "fixed", "detectors": ["spc"], "decision_flush_ms": 10}
    with Service(bundle=bundle, data_dir=tmp_path / "data", device="cpu", **settings) as service:
        export = ("decisions", "export")
        url = ("--url", service.url)
        assert service.http.post("/classify", files=form(pngs(20, seed=3))).status_code == 200
        wait_for(lambda: service.http.get("/decisions/export").text.count("\n") == 20)
        assert "20 decisions" in run(*export, tmp_path / "all.jsonl", *url, code=0)
        assert "20 decisions" in run(*export, tmp_path / "all.parquet", "--format", "parquet", *url, code=0)
        lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
        rows = parquet.read_table(tmp_path / "all.parquet").to_pylist()
        assert [each["detections"] for each in lines] == [each["detections"] for each in rows]
        assert [int(each["id"]) for each in lines] == [each["id"] for each in rows]
        assert lines[0]["image_sha256"] == rows[0]["image_sha256"]
        assert {each["at"].tzinfo is not None for each in rows} == {True}

        rejected = sum(each["verdict"] == "rejected" for each in lines)
        some = (*export, tmp_path / "some.jsonl", "--verdict", "rejected", "--since", "2020-01-01", *url)
        assert f"{rejected} decisions" in run(*some, code=0)
        tomorrow = time.strftime("%Y-%m-%d", time.localtime(time.time() + 2 * 86_400))
        assert "0 decisions" in run(*export, tmp_path / "none.jsonl", "--since", tomorrow, *url, code=0)

        run(*export, tmp_path / "no.jsonl", "--verdict", "perhaps", *url, code=3)
        run(*export, tmp_path / "no" / "where.jsonl", *url, code=2)
        assert not list(tmp_path.glob("no*.jsonl")) or not (tmp_path / "no.jsonl").exists()
        assert not list(tmp_path.glob("*.part"))


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(httpx.Client, "stream", lambda *_, **__: pytest.fail("nothing is asked for"))
    said = run("decisions", "export", tmp_path / "x", "--format", "parquet", code=2)
    assert "triggerwall[parquet]" in said
