from pathlib import Path

import pytest

from tests.lab.tiny import write_images


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 training and 60 test images of three classes."""
    return write_images(tmp_path_factory.mktemp("data") / "bars.zip")
