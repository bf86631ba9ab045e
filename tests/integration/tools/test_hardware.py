"""The page that compares machines: it is what its command writes, and computes what a million faces cost."""

import json
from pathlib import Path

import pytest

from leanface.catalog import DASH
from leanface.errors import ArtifactError
from tests.browsers import running_chromium
from tools.hardware import PAGE, RECORDS, read_rows, write_page

ROOT = Path(__file__).parents[3]


def test_the_committed_page_is_what_the_command_writes(tmp_path: Path) -> None:
    write_page([ROOT / record for record in RECORDS], tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == (ROOT / PAGE).read_text()


def test_times_on_a_gpu_are_with_copies_and_the_fastest_runtime_stands_for_a_network() -> None:
    rows = json.loads((ROOT / RECORDS[0]).read_bytes())["rows"]
    (shown,) = [
        row
        for row in read_rows(ROOT / RECORDS[0])
        if (row["network"], row["batch"], row["streams"]) == ("Light INT8", 256, 1)
    ]
    own = [row for row in rows if (row["variant"], row["batch"], row["streams"]) == ("quantized_int8", 256, 1)]
    assert shown["per_second"] == max(row["images_per_second"] or 0 for row in own if row["copies"])
    assert shown["mj"] == next(row["energy_mj"] for row in own if not row["copies"] and row["energy_mj"])


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "benchmark.json").write_text('{"image_size": 64, "device": {}, "rows": [{}]}')
    with pytest.raises(ArtifactError, match="no record of stage benchmark"):
        read_rows(tmp_path / "benchmark.json")


def test_a_typed_price_gives_the_cost_of_a_million_faces(tmp_path: Path) -> None:
    row = next(row for row in read_rows(ROOT / RECORDS[0]) if row["mj"] and row["batch"] == 256)
    with running_chromium(tmp_path) as browser:
        page = browser.new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.goto((ROOT / PAGE).as_uri())
        page.get_by_label("Network").select_option(row["network"])
        line = page.locator("tbody tr", has_text=row["device"]).filter(has_text=row["runtime"]).first
        assert line.locator("td").last.text_content() == DASH
        page.get_by_label(f"Price of {row['device']} per hour").fill("3.6")
        page.get_by_label("Price of electricity per kWh").fill("0.5")
        page.get_by_role("button", name="Per million").click()
        costs = page.evaluate(
            "rows.filter(row => row.cost !== null).map(row => [row.network, row.batch, row.streams, row.cost])"
        )
        found = {(network, batch, streams): cost for network, batch, streams, cost in costs}
    expected = 3.6 * 1e6 / row["per_second"] / 3600 + row["mj"] * 1e3 / 3.6e6 * 0.5
    assert found[row["network"], row["batch"], row["streams"]] == pytest.approx(expected)
    assert not problems
