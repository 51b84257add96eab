"""A `.pt2` archive without anything that runs when it is opened.

`torch.export.load` opens pickles without restriction (sample inputs, tensors and constants), hands text of
the archive to `eval` (expressions in sizes, guards), looks up any function of torch by name, and loads
native code. A bundle may come from the very person one guards against, so torch never sees the file itself
but a copy: plain tensors and the graph, with every string in it checked, and nothing else.
"""

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter

from models.errors import WeightsError

__all__ = ["open_program"]

PROGRAM = "models/model.json"
SAMPLES = "data/sample_inputs/model.pt"
TENSORS = ("data/weights/", "data/constants/")
CONFIG = "model_{}_config.json"  # which tensor lies in which member

PLAIN = re.compile(r"[A-Za-z0-9_.]*")  # names: they become source code of the graph
OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!from_file)\w+\.\w+|torch\.sym_\w+|math\.(ceil|floor|trunc|sqrt)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|getitem|and_|or_)"
)
SYMBOL = r"'[su]\d+'"
WORDS = (
    r"[su]\d+|True|False|Symbol|integer|positive|nonnegative|Integer|Rational|Float|Add|Mul|Pow|Max|Min|Mod"
    r"|PythonMod|FloorDiv|CleanDiv|CeilDiv|IntTrueDiv|FloatTrueDiv|PowByNatural|FloatPow|ToFloat|CeilToInt"
    r"|FloorToInt|TruncToInt|RoundToInt|Where|ModularIndexing|Eq|Ne|Lt|Le|Gt|Ge|Equality|Unequality|And|Or|Not"
    r"|LessThan|GreaterThan|StrictLessThan|StrictGreaterThan|evaluate"
)
EXPRESSION = re.compile(rf"(?:{SYMBOL}|\b(?:{WORDS})\b|\b\d+(?:\.\d+)?\b|[-+*/%(),<>=& ])*")
CONTAINERS = ("builtins.tuple", "builtins.list", "builtins.dict", None)
VERSION = re.compile(r"[\w.+-]*")
TEXT = re.compile(r"[\w., >-]*")  # an argument such as "floor" or an einsum's equation


def open_program(data: bytes, name: str) -> ExportedProgram:
    """The program in the bytes of a `.pt2` file, on the CPU. `name` is the file's, for messages.

    Raises `WeightsError` for anything but one exported program of plain tensors and ATen operators.
    """
    try:
        return torch.export.load(io.BytesIO(_copied(data)))
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error
    except Exception as error:  # a damaged archive surfaces in a dozen ways
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise WeightsError(f"{name} is not a readable program of torch.export: {reason}") from error


def _copied(data: bytes) -> bytes:
    """What of the archive is needed, in an archive of our own."""
    reader = PT2ArchiveReader(io.BytesIO(data))
    members = set(reader.get_file_names())
    if PROGRAM not in members:
        raise WeightsError("it holds no program: save it with `torch.export.save(program, 'model.pt2')`")
    buffer = io.BytesIO()
    with PT2ArchiveWriter(buffer) as writer:
        writer.write_string(PROGRAM, json.dumps(_checked_program(json.loads(reader.read_bytes(PROGRAM)))))
        writer.write_bytes(SAMPLES, b"")  # a pickle, and not needed
        for folder in TENSORS:
            config_name = folder + CONFIG.format(folder.split("/")[1])
            if config_name not in members:
                raise WeightsError("it was saved by an old PyTorch: save it again with a current one")
            config = json.loads(reader.read_bytes(config_name))
            writer.write_string(config_name, json.dumps(config | {"config": _on_cpu(config["config"])}))
            for member in sorted({_plain_tensor(*entry) for entry in config["config"].items()}):
                writer.write_bytes(folder + member, reader.read_bytes(folder + member))
    return buffer.getvalue()


def _plain_tensor(tensor: str, facts: dict[str, Any]) -> str:
    """The member that holds the raw values of `tensor`."""
    member = str(facts["path_name"])
    if facts["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", member):
        raise WeightsError(
            f"{tensor!r} is stored as a pickled object, which runs code when it is opened, so it is refused; "
            "programs with plain tensors only are taken"
        )
    return member


def _checked_program(program: dict[str, Any]) -> dict[str, Any]:
    """`program` on the CPU, without its guards and notes; every string in it is harmless."""
    content: dict[str, Any] = _on_cpu(program | {"guards_code": []})
    for key, text in _strings(content):
        allowed = {
            "operator": OPERATOR, "expr_str": EXPRESSION, "as_string": TEXT, "torch_version": VERSION,
        }.get(key, PLAIN)  # fmt: skip
        if key in ("in_spec", "out_spec"):
            _check_containers(json.loads(text)[1])
        elif not allowed.fullmatch(text):
            what = "operator" if key == "operator" else f"text in {key or 'the graph'}"
            raise WeightsError(f"it holds the {what} {text[:80]!r}, which is not taken")
    return content


def _on_cpu(node: Any) -> Any:
    """`node` with every device the CPU, so that what was exported on a GPU opens anywhere; without
    metadata (where each line of the network stood)."""
    if isinstance(node, dict):
        if set(node) == {"type", "index"}:
            return {"type": "cpu", "index": None}
        return {key: {} if key == "metadata" else _on_cpu(value) for key, value in node.items()}
    return [_on_cpu(value) for value in node] if isinstance(node, list) else node


def _strings(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string under `node` with the key it stands under; the targets of operators as "operator"."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield "", name
            operator = name == "target" and "inputs" in node
            yield from _strings(value, "operator" if operator else name)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value, key)
    elif isinstance(node, str):
        yield key, node


def _check_containers(spec: dict[str, Any]) -> None:
    """How arguments are packed: tuples, lists and dicts; other types would be imported by name."""
    if spec["type"] not in CONTAINERS or "__enum__" in str(spec["context"]):
        raise WeightsError(f"its arguments are packed as {spec['type']!r}; a classifier takes one tensor")
    for child in spec["children_spec"]:
        _check_containers(child)
