from pathlib import Path
from typing import Any

import pytest
import yaml

from models.bundle import InputSpec, TorchSpec, read_spec, weights_path, write_spec
from models.errors import BundleError
from tests.models.conftest import TINY, MakeBundle

INPUT: dict[str, Any] = dict(TINY["input"])  # type: ignore[call-overload]


def test_every_field_is_read(make_bundle: MakeBundle) -> None:
    spec = read_spec(make_bundle())
    defaults = {"interpolation": "bilinear", "range": [0, 1], "layout": "nchw", "colours": "rgb"}
    assert spec.model_dump(mode="json") == {**TINY, "input": {**INPUT, **defaults}, "output": "logits"}


def test_defaults(make_bundle: MakeBundle) -> None:
    directory = make_bundle(
        version=None, backend=None, architecture_args=None, labels=None, input={"size": [8, 9]}
    )
    spec = read_spec(directory)
    assert (spec.version, spec.backend, spec.architecture_args, spec.labels) == ("1", "torch", {}, None)
    assert spec.input == InputSpec(size=(8, 9), channels=3, interpolation="bilinear", mean=None, std=None)


@pytest.mark.parametrize("field", ["name", "architecture", "weights", "input"])
def test_a_missing_field_is_named(field: str, make_bundle: MakeBundle) -> None:
    with pytest.raises(BundleError, match=rf"model\.yaml: {field}: Field required"):
        read_spec(make_bundle(**{field: None}))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"wieghts": "x"}, "wieghts: Extra inputs are not permitted"),
        ({"input": {**INPUT, "means": [0.5]}}, "input.means: Extra inputs"),
        ({"input": {**INPUT, "mean": [0.5, 0.5]}}, "input: .*mean has 2 values for 3 channels"),
        ({"input": {**INPUT, "std": [0.5] * 4}}, "input: .*std has 4 values for 3 channels"),
        ({"input": {**INPUT, "std": [0.5, 0.5, 0.0]}}, r"input\.std\.2: .*greater than 0"),
        ({"input": {**INPUT, "mean": [123.7, 116.3, 103.5]}}, r"input\.mean\.0: .*less than or equal to 1"),
        ({"input": {**INPUT, "std": [58.4, 57.1, 57.4]}}, r"input\.std\.0: .*less than or equal to 1"),
        ({"input": {**INPUT, "mean": [float("nan")] * 3}}, r"input\.mean\.0"),
        ({"input": {"size": [4, 4], "mean": [0.5] * 3}}, "give both mean and std, or neither"),
        ({"input": {**INPUT, "size": [32]}}, r"input\.size"),
        ({"input": {**INPUT, "size": [0, 32]}}, r"input\.size\.0"),
        ({"input": {**INPUT, "channels": 4}}, r"input\.channels: Input should be 1 or 3"),
        ({"input": {**INPUT, "interpolation": "lanczos"}}, r"input\.interpolation"),
        ({"input": {**INPUT, "range": [0, 127]}}, r"input\.range\.1: Input should be 1 or 255"),
        ({"input": {**INPUT, "range": [-1, 1]}}, r"input\.range\.0: Input should be 0"),
        ({"input": {**INPUT, "layout": "hwcn"}}, r"input\.layout: Input should be 'nchw' or 'nhwc'"),
        ({"input": {"size": [4, 4], "channels": 1, "colours": "bgr"}}, "colours: bgr is for 3 channels"),
        ({"output": "labels"}, "output: Input should be 'logits' or 'probabilities'"),
        ({"backend": ["torch"]}, "backend: Input should be one of torch"),
        ({"backend": "tensorflow"}, "backend: Input should be one of torch"),
        ({"architecture": "resnet18"}, "architecture: String should match"),
        ({"name": "../x"}, "name: String should match"),
        ({"version": 1}, "version: Input should be a valid string"),
        ({"weights": ""}, "weights: String should match"),
        ({"labels": [0, 1, 2]}, r"labels\.0: Input should be a valid string"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], sentence: str, make_bundle: MakeBundle) -> None:
    with pytest.raises(BundleError, match=sentence):
        read_spec(make_bundle(**changes))


def test_all_faults_are_named_at_once(make_bundle: MakeBundle) -> None:
    with pytest.raises(BundleError, match=r"weights: Field required.*colour: Extra"):
        read_spec(make_bundle(weights=None, colour="red"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "file: Input should be a valid dictionary"),
        (b"- a\n- b\n", "file: Input should be a valid dictionary"),
        (b"name: [unclosed", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"name: 2024-13-45", "cannot be read"),
        (b"name: !!python/object/apply:os.getcwd []", "cannot be read.*python/object"),
    ],
)
def test_a_file_that_is_no_mapping(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_bytes(content)
    with pytest.raises(BundleError, match=sentence):
        read_spec(tmp_path)


def test_not_a_bundle(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "absent"):
        with pytest.raises(BundleError, match=r"is not a model bundle: it has no model\.yaml"):
            read_spec(directory)
    (tmp_path / "model.yaml").mkdir()
    with pytest.raises(BundleError, match="cannot be read"):
        read_spec(tmp_path)


@pytest.mark.parametrize("name", ["../secret.pt", "/etc/hostname", "sub/../../secret.pt"])
def test_weights_stay_inside(name: str, tmp_path: Path) -> None:
    spec = TorchSpec.model_validate({**TINY, "weights": name})
    with pytest.raises(BundleError, match=r"weights: .*lies outside the bundle"):
        weights_path(spec, tmp_path)


def test_a_link_out_of_the_bundle_is_outside_and_a_link_within_is_not(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "v2").mkdir(parents=True)
    (tmp_path / "secret.pt").touch()
    (bundle / "out.pt").symlink_to(tmp_path / "secret.pt")
    (bundle / "in.pt").symlink_to(bundle / "v2" / "w.pt")
    with pytest.raises(BundleError, match="lies outside"):
        weights_path(TorchSpec.model_validate({**TINY, "weights": "out.pt"}), bundle)
    inside = weights_path(TorchSpec.model_validate({**TINY, "weights": "in.pt"}), bundle)
    assert inside == (bundle / "v2" / "w.pt").resolve()


@pytest.mark.parametrize("args", [{}, {"num_classes": 3, "norm": None, "nested": {"x": [1, None]}}])
def test_write_and_read_again(args: dict[str, Any], tmp_path: Path) -> None:
    spec = TorchSpec.model_validate({**TINY, "architecture_args": args, "labels": ["1", "yes", "é"]})
    write_spec(spec, tmp_path)
    assert read_spec(tmp_path) == spec
    bare = TorchSpec.model_validate(
        {k: v for k, v in TINY.items() if k != "labels"} | {"input": {"size": [1, 2]}}
    )
    write_spec(bare, tmp_path)
    assert read_spec(tmp_path) == bare
    assert "labels" not in yaml.safe_load((tmp_path / "model.yaml").read_text(encoding="utf-8"))
