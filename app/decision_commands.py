"""`triggerwall decisions …`: what was decided, as a file."""

import json
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from app.client import GatewayClient
from app.terminal import DEFAULT_URL, Key, Url, console, told_plainly

__all__ = ["commands"]

commands = typer.Typer(no_args_is_help=True, help="What was decided and kept.")
ROWS = 10_000  # in one Parquet row group
DETECTION = ("detector", "score", "threshold", "p_value", "suspicious", "exact")
FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M%z", "%Y-%m-%dT%H:%M:%S%z"]
Time = Annotated[
    datetime | None,
    typer.Option(help="Local time, or with an offset: 2026-01-31T12:00+00:00.", formats=FORMATS),
]


@commands.command()
def export(
    file: Annotated[Path, typer.Argument(help="Where the decisions go.")],
    format: Annotated[
        Literal["jsonl", "parquet"], typer.Option(help="JSON Lines, or Parquet (needs pyarrow).")
    ] = "jsonl",
    since: Time = None,
    until: Time = None,
    verdict: Annotated[
        str | None, typer.Option(help="accepted, rejected or flagged; all by default.")
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: Key = None,
) -> None:
    """Save stored decisions, the oldest first, one row per image. The file appears when it is complete."""
    times = {"since": since, "until": until}
    asked = {name: at.astimezone().isoformat() for name, at in times.items() if at is not None}
    asked |= {"verdict": verdict} if verdict is not None else {}
    unfinished = file.with_name(file.name + ".part")
    with told_plainly(), GatewayClient(url, api_key) as gateway:
        write = _write_parquet if format == "parquet" else _write_lines
        try:
            count = write(unfinished, gateway.decisions(asked))
            unfinished.replace(file)
        except OSError as error:
            raise ValueError(f"{file} cannot be written: {error.strerror}") from error
        finally:
            unfinished.unlink(missing_ok=True)
    console.print(f"{file}: {count} decisions", markup=False)


def _write_lines(path: Path, lines: Iterator[str]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(line + "\n")
            count += 1
    return count


def _write_parquet(path: Path, lines: Iterator[str]) -> int:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError("Parquet needs pyarrow: pip install 'triggerwall[parquet]'") from error
    number, text, real, flag = pa.int64(), pa.string(), pa.float64(), pa.bool_()
    detection = pa.struct(list(zip(DETECTION, (text, real, real, real, flag, flag), strict=True)))
    schema = pa.schema(
        {
            "id": number, "at": pa.timestamp("us", "UTC"), "request_id": text, "place": number,
            "image_sha256": text, "label": number, "confidence": real, "verdict": text, "mode": text,
            "calibration": text, "detections": pa.list_(detection),
        }
    )  # fmt: skip
    count = 0
    with parquet.ParquetWriter(path, schema) as writer:
        while rows := [_typed(line) for line in islice(lines, ROWS)]:
            writer.write_table(pa.Table.from_pylist(rows, schema))
            count += len(rows)
    return count


def _typed(line: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(line)
    return {**row, "id": int(row["id"]), "at": datetime.fromisoformat(row["at"])}
