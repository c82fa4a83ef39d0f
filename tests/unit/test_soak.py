"""What `bench soak` makes of its samples: whether lag has grown, how much was used, and a picture of it."""

from xml.etree import ElementTree as ET

import polars as pl
import pytest

from tests.bench.plots.lines import Panel, draw
from tests.bench.soak import FLOORS, picture, summary

SENT = {"events_per_s": 99}
PROCESSES = ("worker", "archive", "broker", "fleet")


def samples(archive_lag_s: list[float]) -> pl.DataFrame:
    """Ten seconds apart; a hundred records a second, half a core for each process."""
    rows = []
    for number, lag_s in enumerate(archive_lag_s):
        at_s = 10.0 * number
        row = {"at_s": at_s, "counted": 100 * at_s, "stored": 100 * at_s, "machine_cpu_s": 2 * at_s}
        row |= {"worker_lag_s": 0.5, "archive_lag_s": lag_s}
        for name in PROCESSES:
            row |= {f"{name}_mb": 100.0 + number, f"{name}_cpu_s": 0.5 * at_s}
        rows.append(row)
    return pl.DataFrame(rows)


@pytest.mark.parametrize(
    ("lag_s", "grows"),
    [
        ([1.0] * 30, False),
        ([1.0, 3.0] * 15, False),
        ([0.1 * n for n in range(30)], True),
        ([1.0] * 20 + [2.5] * 10, True),
    ],
)
def test_lag_grows_when_its_last_third_is_longer_than_its_first(lag_s: list[float], *, grows: bool) -> None:
    figures = summary(samples(lag_s), SENT, 100)
    assert (figures["archive_lag_growth_s"] > FLOORS["archive_lag_growth_s"]) is grows
    assert figures["worker_lag_growth_s"] == 0


def test_rates_and_cores_are_those_between_the_first_and_the_last_sample() -> None:
    figures = summary(samples([1.0] * 10), SENT, 100)
    assert (figures["counted_per_s"], figures["stored_per_s"], figures["sent_share"]) == (100, 100, 0.99)
    assert [figures[f"{name}_cores"] for name in (*PROCESSES, "machine")] == [0.5, 0.5, 0.5, 0.5, 2.0]
    assert figures["broker_memory_mb"] == 109


def test_a_picture_has_a_line_for_each_name_inside_its_panel() -> None:
    text = draw(
        "a < b",
        [0.0, 1.0, 2.5],
        [Panel("up", {"x": [0, 5, 10], "y": [1, 1, 1]}, floor=12), Panel("z", {"z": [0, 0, 0]})],
    )
    root = ET.fromstring(text)  # noqa: S314 - our own
    lines = [each for each in root.iter() if each.tag.endswith("polyline")]
    assert len(lines) == 3
    width, height = (float(size) for size in root.attrib["viewBox"].split()[2:])
    for line in lines:
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 < x < width
            assert 0 < y < height
    first = [float(point.split(",")[1]) for point in lines[0].attrib["points"].split()]
    assert first[0] > first[1] > first[2], "more is not higher"


def test_the_picture_of_a_run_shows_all_processes() -> None:
    root = ET.fromstring(picture(samples([1.0] * 20), 2_000_000, 20_000))  # noqa: S314 - our own
    assert len([each for each in root.iter() if each.tag.endswith("polyline")]) == 2 + 2 + 3 + 4
