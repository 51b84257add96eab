import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from models.errors import WeightsError
from models.weights import digest_of, read_weights, write_weights

STATE = {
    "w": torch.arange(6.0).reshape(2, 3),
    "half": torch.tensor([0.1, -2.0]).half(),
    "count": torch.tensor(7),
    "flag": torch.tensor([True, False]),
}


class Malicious:
    """Creates the file `proof` when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.fspath(self.proof),)


def write_legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_old_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=0))


def write_numpy(content: object, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([content], dtype=object), allow_pickle=True)


WRITERS = [torch.save, write_legacy, write_pickle, write_old_pickle, write_numpy]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda w: w.__name__)
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "in a state dict"])
def test_no_code_of_a_malicious_pickle_runs(writer: Any, wrapped: bool, tmp_path: Path) -> None:
    proof, path = tmp_path / "proof", tmp_path / "weights.pt"
    content: object = Malicious(proof)
    writer({"w": torch.ones(1), "x": content} if wrapped else content, path)
    with pytest.raises(WeightsError, match=r"pickled Python object.*so it is refused.*save_file"):
        read_weights(path)
    assert not proof.exists()
    if writer is torch.save:  # the same file does run code where it is opened carelessly
        torch.load(path, weights_only=False)
        assert proof.exists()


@pytest.mark.parametrize(
    "content", [nn.Linear(2, 2), {"w": np.ones(3)}, {"w": nn.Linear(2, 2)}], ids=["model", "numpy", "in dict"]
)
@pytest.mark.parametrize("writer", [torch.save, write_legacy, write_pickle], ids=lambda w: w.__name__)
def test_pickled_objects_are_refused_with_what_to_do(writer: Any, content: object, tmp_path: Path) -> None:
    writer(content, tmp_path / "weights.pt")
    with pytest.raises(
        WeightsError, match=r"weights\.pt is not a plain state dict.*where you trust the file"
    ):
        read_weights(tmp_path / "weights.pt")


def test_a_pickle_is_refused_under_a_safetensors_name(tmp_path: Path) -> None:
    torch.save(Malicious(tmp_path / "proof"), tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        read_weights(tmp_path / "weights.safetensors")
    assert not (tmp_path / "proof").exists()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_torchscript_is_refused_without_unsafe_advice(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"not a readable torch file.*TorchScript") as caught:
        read_weights(tmp_path / "weights.pt")
    assert "weights_only=False" not in str(caught.value)
    assert "`False`" not in str(caught.value)


@pytest.mark.parametrize("content", [STATE, OrderedDict(STATE), {"state_dict": STATE, "epoch": 3}])
@pytest.mark.parametrize("writer", [torch.save, write_legacy], ids=lambda w: w.__name__)
def test_state_dicts_and_checkpoints_are_read(writer: Any, content: object, tmp_path: Path) -> None:
    writer(content, tmp_path / "weights.pt")
    read = read_weights(tmp_path / "weights.pt")
    assert read.keys() == STATE.keys()
    for name, value in STATE.items():
        torch.testing.assert_close(read[name], value, rtol=0, atol=0)


def valid_bytes(suffix: str, folder: Path) -> bytes:
    path = folder / f"valid{suffix}"
    save_file(STATE, path) if suffix == ".safetensors" else torch.save(STATE, path)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("damage", ["empty", "head", "half", "tail", "text", "noise", "foreign zip"])
def test_damaged_files_are_named(suffix: str, damage: str, tmp_path: Path) -> None:
    path, valid = tmp_path / f"weights{suffix}", valid_bytes(suffix, tmp_path)
    content = {
        "empty": b"",
        "head": valid[:5],
        "half": valid[: len(valid) // 2],
        "tail": valid[:-1],
        "text": b"hello, this is no model\n",
        "noise": np.random.default_rng(1).bytes(4000),
    }
    if damage == "foreign zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme", "no tensors")
    else:
        path.write_bytes(content[damage])
    with pytest.raises(WeightsError, match=rf"{path.name} is not"):
        read_weights(path)


@pytest.mark.parametrize("cut", range(0, 1500, 97))
def test_a_legacy_file_cut_anywhere_is_named(cut: int, tmp_path: Path) -> None:
    write_legacy(STATE, tmp_path / "whole.pt")
    content = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: cut % len(content)])
    with pytest.raises(WeightsError, match=r"cut\.pt"):
        read_weights(tmp_path / "cut.pt")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor:UserWarning")
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([torch.ones(1)], "holds an object of type list, not a state dict"),
        (torch.ones(1), "holds an object of type Tensor, not a state dict"),
        ({}, "holds nothing"),
        ({"epoch": 3, "model": {}}, "'epoch' is of type int.*checkpoint with a `state_dict` member"),
        ({3: torch.ones(1)}, "3 is of type Tensor"),
        ({"w": torch.eye(2).to_sparse()}, "'w' is a sparse"),
        ({"w": torch.ones(2, device="meta")}, "'w' is a sparse, quantised or empty-shell"),
    ],
)
def test_other_contents_are_refused(content: object, sentence: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=sentence):
        read_weights(tmp_path / "weights.pt")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"w\.pt does not exist"):
        read_weights(tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="is not a file"):
        read_weights(tmp_path)


def test_write_half_keeps_what_half_cannot_hold(tmp_path: Path) -> None:
    state = {"w": torch.tensor([0.1, 2.0]), "variance": torch.tensor([7e4]), "count": torch.tensor(3)}
    write_weights(state, tmp_path / "w.safetensors", half=True)
    stored = load_file(tmp_path / "w.safetensors")
    assert {name: value.dtype for name, value in stored.items()} == {
        "w": torch.float16, "variance": torch.float32, "count": torch.int64,
    }  # fmt: skip
    assert stored["variance"].item() == 7e4
    write_weights(state, tmp_path / "w.safetensors")
    assert load_file(tmp_path / "w.safetensors")["w"].dtype == torch.float32


def test_digest_depends_on_every_bit_and_on_nothing_else() -> None:
    base = digest_of(STATE, {"a": 1, "b": [2]})
    assert len(base) == 64
    assert digest_of(dict(reversed(STATE.items())), {"b": [2], "a": 1}) == base
    assert digest_of(STATE, {"a": 1, "b": [3]}) != base
    changes: list[dict[str, Any]] = [
        {"w": STATE["w"].nextafter(torch.tensor(9.0))},
        {"w": STATE["w"].reshape(3, 2)},
        {"w": STATE["w"].double()},
        {"count": torch.tensor(8)},
        {"flag": torch.tensor([True, True])},
        {"more": torch.ones(1)},
    ]
    others = {digest_of({**STATE, **change}, {"a": 1, "b": [2]}) for change in changes}
    others.add(digest_of({"v" if k == "w" else k: v for k, v in STATE.items()}, {"a": 1, "b": [2]}))
    assert base not in others
    assert len(others) == len(changes) + 1


def test_digest_ignores_memory_layout() -> None:
    assert digest_of({"w": STATE["w"].t().contiguous().t()}, {}) == digest_of({"w": STATE["w"]}, {})


def test_what_is_written_can_be_read_by_the_user_who_serves_it(tmp_path: Path) -> None:
    write_weights({"w": torch.zeros(2)}, tmp_path / "weights.safetensors")
    assert (tmp_path / "weights.safetensors").stat().st_mode & 0o777 == 0o644
