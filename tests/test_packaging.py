"""A wheel holds everything that the packages read."""

import fnmatch
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
TOP = ("app", "bench", "detectors", "lab", "models")
COMPILED = {".py", ".pyc"}


def test_every_package_is_named() -> None:
    found = {
        str(file.parent.relative_to(ROOT)).replace("/", ".")
        for top in TOP
        for file in (ROOT / top).rglob("__init__.py")
    }
    assert found == set(TOOLS["packages"])


def test_every_file_that_is_no_code_is_named() -> None:
    files = [
        file.relative_to(ROOT)
        for top in TOP
        for file in (ROOT / top).rglob("*")
        if file.is_file() and file.suffix not in COMPILED
    ]
    assert len(files) > 20
    data = TOOLS["package-data"]
    left = [
        str(file)
        for file in files
        if not any(
            fnmatch.fnmatch(str(Path(*file.parts[1:])), pattern.replace("**/", ""))
            for pattern in data.get(file.parts[0], ())
        )
    ]
    assert left == []
