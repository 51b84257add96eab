"""What a `.pt2` file might run when torch opens it, and that it does not run here."""

import contextlib
import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter

from models.errors import WeightsError
from models.exported.archive import open_program
from tests.models.artefacts import exported_program, pictures, small_network

SAMPLES = "data/sample_inputs/model.pt"
WEIGHTS = "data/weights/model_weights_config.json"
Members = dict[str, bytes]


@pytest.fixture(scope="module")
def harmless() -> Members:
    buffer = io.BytesIO()
    torch.export.save(exported_program(small_network()), buffer)
    reader = PT2ArchiveReader(io.BytesIO(buffer.getvalue()))
    return {name: reader.read_bytes(name) for name in reader.get_file_names() if not name.startswith(".data")}


def packed(members: Members) -> bytes:
    buffer = io.BytesIO()
    with PT2ArchiveWriter(buffer) as writer:
        for name, content in members.items():
            if name != "byteorder":  # the writer's own
                writer.write_bytes(name, content)
    return buffer.getvalue()


class Bomb:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.fspath(self.proof),)


def saved(bomb: Bomb) -> bytes:
    buffer = io.BytesIO()
    torch.save(bomb, buffer)
    return buffer.getvalue()


def edited(members: Members, name: str, change: Callable[[Any], None]) -> Members:
    content = json.loads(members[name])
    change(content)
    return {**members, name: json.dumps(content).encode()}


def in_samples(members: Members, proof: Path) -> Members:
    return {**members, SAMPLES: saved(Bomb(proof))}


def in_a_weight(members: Members, proof: Path) -> Members:
    def change(config: Any) -> None:
        next(iter(config["config"].values()))["use_pickle"] = True

    return {**edited(members, WEIGHTS, change), "data/weights/weight_0": saved(Bomb(proof))}


def in_a_constant(members: Members, proof: Path) -> Members:
    def change(config: Any) -> None:
        entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        config["config"]["x"] = entry

    name = "data/constants/model_constants_config.json"
    return {**edited(members, name, change), "data/constants/opaque_obj_0": pickle.dumps(Bomb(proof))}


def in_an_expression(members: Members, proof: Path) -> Members:
    def change(program: Any) -> None:
        for value in program["graph_module"]["graph"]["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = f"__import__('os').mkdir({os.fspath(proof)!r}) or 1"
                    return

    return edited(members, "models/model.json", change)


def in_guards(members: Members, proof: Path) -> Members:
    code = f"__import__('os').mkdir({os.fspath(proof)!r}) is None"
    return edited(members, "models/model.json", lambda program: program.update(guards_code=[code]))


def in_a_name(members: Members, _: Path) -> Members:
    def change(program: Any) -> None:
        nodes = program["graph_module"]["graph"]["nodes"]
        nodes[0]["outputs"][0]["as_tensor"]["name"] = "x\nimport os"

    return edited(members, "models/model.json", change)


def in_an_operator(target: str) -> Callable[[Members, Path], Members]:
    def make(members: Members, _: Path) -> Members:
        def change(program: Any) -> None:
            program["graph_module"]["graph"]["nodes"][0]["target"] = target

        return edited(members, "models/model.json", change)

    return make


def in_containers(members: Members, _: Path) -> Members:
    def change(program: Any) -> None:
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        context = json.dumps({"__enum__": True, "fqn": "antigravity:x", "name": "y"})
        signature["out_spec"] = json.dumps(
            [1, {"type": "builtins.dict", "context": context, "children_spec": []}]
        )

    return edited(members, "models/model.json", change)


@pytest.mark.parametrize(
    "bomb", [in_samples, in_a_weight, in_a_constant, in_an_expression, in_guards], ids=lambda f: f.__name__
)
def test_what_runs_when_torch_opens_it_does_not_run_here(
    bomb: Callable[[Members, Path], Members], harmless: Members, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    data = packed(bomb(harmless, proof))
    with contextlib.suppress(Exception):  # it runs nevertheless
        torch.export.load(io.BytesIO(data)).module()(pictures(2))
    assert proof.exists(), "the file is harmless: the test proves nothing"
    proof.rmdir()
    with contextlib.suppress(WeightsError):
        open_program(data, "model.pt2").module()(pictures(2))
    assert not proof.exists()


def test_without_its_samples_and_guards_it_is_the_same_program(harmless: Members, tmp_path: Path) -> None:
    data = packed(in_guards(in_samples(harmless, tmp_path / "proof"), tmp_path / "proof"))
    found = open_program(data, "model.pt2").module(check_guards=False)(pictures(4))
    assert torch.equal(found, small_network()(pictures(4)))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (in_an_operator("torch.hub.load"), "the operator 'torch.hub.load'"),
        (in_an_operator("torch.ops.aten.from_file.default"), "the operator 'torch.ops.aten.from_file"),
        (in_an_operator("_operator.call"), "the operator '_operator.call'"),
        (in_an_operator("torch.ops.mine.run.default"), "the operator 'torch.ops.mine.run.default'"),
        (in_a_name, "the text in name 'x.nimport os'"),
        (in_an_expression, "the text in expr_str .__import__"),
        (in_containers, "its arguments are packed as 'builtins.dict'"),
        (in_a_weight, "'stem.0.weight' is stored as a pickled object, which runs code when it is opened"),
        (in_a_constant, "'x' is stored as a pickled object"),
        (lambda m, _: {k: v for k, v in m.items() if k != "models/model.json"}, "it holds no program"),
        (lambda m, _: {k: v for k, v in m.items() if k != WEIGHTS}, "saved by an old PyTorch"),
        (lambda m, _: {k: v for k, v in m.items() if k != "data/weights/weight_0"}, "not a readable program"),
    ],
)  # fmt: skip
def test_what_is_refused(
    make: Callable[[Members, Path], Members], sentence: str, harmless: Members, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=rf"^model\.pt2.*{sentence}"):
        open_program(packed(make(harmless, tmp_path / "proof")), "model.pt2")


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04" + b"\0" * 100])
def test_what_is_no_archive(data: bytes) -> None:
    with pytest.raises(WeightsError, match=r"^model\.pt2 is not a readable program of torch\.export: \w"):
        open_program(data, "model.pt2")


def test_a_program_from_a_gpu_opens_without_one(harmless: Members) -> None:
    gpu = {
        name: content.replace(b'{"type": "cpu", "index": null}', b'{"type": "cuda", "index": 0}')
        for name, content in harmless.items()
        if name.endswith(".json")
    }
    program = open_program(packed({**harmless, **gpu}), "model.pt2")
    assert torch.equal(program.module(check_guards=False)(pictures(2)), small_network()(pictures(2)))
