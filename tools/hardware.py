"""`python -m tools.hardware`: a page that compares machines by benchmark records, at prices that readers type in.

Whoever has measured another machine names its benchmark.json too.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leanface.catalog import RUNTIMES, runtime_title, variant_title
from leanface.cli import guarded
from leanface.errors import ArtifactError
from leanface.files import atomic_write, read_json
from leanface.report.templates import render

PAGE = Path("docs/results/hardware.html")

RECORDS = (
    "docs/results/h200/benchmark.json",
    "docs/results/h100/benchmark.json",
    "docs/results/h100/benchmark_cpu.json",
)

OLD_NAMES = {"original_fp32": "teacher_fp32", "original_fp16": "teacher_fp16"}
"""Of LeanFace 0.1."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the fastest runtime's row of each network, batch size and number of streams, in the record's order.

    On a GPU times are with the copies from and to host memory; memory and energy are of the network alone.

    Raises:
        ArtifactError: it is missing, or no benchmark's record.
    """
    record = read_json(path)
    try:
        device, rows = record["device"], record["rows"]
        size = record.get("image_size") or read_json(path.parent / "summary.json")["image_size"]
        gpus = [gpu["name"] for gpu in device["gpus"]]
        alone = {_key(row): row for row in rows if not row["copies"]}
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for row in rows:
            if row["runtime"] not in RUNTIMES:  # of an earlier version, and never the fastest
                continue
            on_gpu = RUNTIMES[row["runtime"]].on_gpu
            latency_ms = row["latency"]["value"] if row.get("latency") else row.get("p50_ms")
            if latency_ms is None or row["copies"] != on_gpu:
                continue
            network = alone.get(_key(row), row)
            key = row["variant"], row["batch"], row["streams"]
            new = {
                "device": gpus[0] if on_gpu else f"{device['cpu']}, {device['cores']} cores",
                "size": size,
                "network": variant_title(str(OLD_NAMES.get(row["variant"], row["variant"]))),
                "runtime": runtime_title(row["runtime"]),
                "batch": row["batch"],
                "streams": row["streams"],
                "per_second": row["images_per_second"],
                "ms": latency_ms,
                "p99": row["p99_ms"],
                "mb": network.get("device_memory_mb") if on_gpu else network.get("memory_mb"),
                "mj": network.get("energy_mj"),
            }
            if key not in found or new["per_second"] > found[key]["per_second"]:
                found[key] = new
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is no record of stage benchmark ({type(error).__name__}: {error}).") from None
    return list(found.values())


def write_page(records: Sequence[Path], page: Path) -> None:
    """Write the page whole or not at all.

    Raises:
        ArtifactError: a record is missing, or no benchmark's record.
    """
    rows = [row for record in records for row in read_rows(record)]
    devices = list(dict.fromkeys(row["device"] for row in rows))
    numbers = json.dumps(rows).replace("<", "\\u003c")
    atomic_write(page, render("hardware.html.j2", package="tools", rows=rows, devices=devices, numbers=numbers))


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["variant"], row["runtime"], row["batch"], row["streams"]


def _main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.hardware", description=__doc__)
    parser.add_argument(
        "records", nargs="*", type=Path, metavar="benchmark.json", help="others' (default: those in docs/results)"
    )
    parser.add_argument("--output", type=Path, default=PAGE, metavar="FILE.html", help=f"(default: {PAGE})")
    arguments = parser.parse_args(argv)
    write_page([*map(Path, RECORDS), *arguments.records], arguments.output)
    print(arguments.output)


if __name__ == "__main__":
    sys.exit(guarded(_main, sys.argv[1:]))
