"""Who keeps what, and when answers of several workers are together one about everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.routing import AddressError, Members, agreed, not_whole, parse_address

GROUP = {
    "http://10.0.0.1:8080": {"slo-partials": [0, 1], "heartbeats": [0, 1]},
    "http://worker-2.example.org:8081": {"slo-partials": [2], "heartbeats": [2]},
    "http://[::1]:8082": {"slo-partials": [], "heartbeats": [3]},
}


@pytest.mark.parametrize("text", ["127.0.0.1:8080", "worker-1.example.org:1", "w:65535", "[::1]:8080", "[fe80::2]:80"])
def test_an_address_is_host_and_port(text: str) -> None:
    assert parse_address(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "host",
            "host:",
            ":80",
            "host:0",
            "host:65536",
            "host:80/path",
            "u@host:80",
            "::1:80",
            "[x]:80",
            "a b:80",
        ),
        *("http://host:80", "host:80?x", "host:80\n", "-host:80", "host:٣"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError, match=r"expected HOST:PORT, such as 10\.0\.0\.7:8080"):
        parse_address(text)


def test_a_partition_is_kept_by_who_has_it_in_the_groups_agreement() -> None:
    members = agreed("10.0.0.1:8080", GROUP)
    assert [members.keeper("slo-partials", partition) for partition in range(4)] == [
        None,
        None,
        "worker-2.example.org:8081",
        None,
    ]
    assert members.keeper("heartbeats", 3) == "[::1]:8082"
    assert members.others("heartbeats") == ("[::1]:8082", "worker-2.example.org:8081")
    assert members.others("slo-partials") == ("worker-2.example.org:8081",)


def test_before_any_agreement_there_is_nobody_to_ask() -> None:
    assert (Members("a:1").keeper("heartbeats", 0), Members("a:1").others("heartbeats")) == (None, ())


def test_an_address_on_port_80_is_known_though_urls_leave_it_out() -> None:
    assert agreed("a:1", {"http://b": {"heartbeats": [0]}}).keeper("heartbeats", 0) == "b:80"


def test_who_says_no_usable_address_is_not_asked() -> None:
    urls = ("http://host:80/elsewhere", "ftp://host", "", "http://user@host:80")
    assert agreed("a:1", {url: {"heartbeats": [0]} for url in urls}).others("heartbeats") == ()


@pytest.mark.parametrize(
    ("shares", "why"),
    [
        ([[0, 1], [2]], None),
        ([[2, 0, 1]], None),
        ([[], [0, 1, 2]], None),
        ([[0, 1]], "no worker answers for partitions [2]"),
        ([], "no worker answers for partitions [0, 1, 2]"),
        ([[0, 1], [1, 2]], "several workers answer for partitions [1]"),
        ([[0, 1], [0, 1]], "no worker answers for partitions [2]"),
        ([[0, 1, 2, 3]], None),
    ],
)
def test_an_answer_is_whole_when_each_partition_is_in_it_once(shares: list[list[int]], why: str | None) -> None:
    assert not_whole(shares, 3) == why


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=5))
def test_nothing_is_whole_but_a_partition_of_the_partitions(shares: list[list[int]]) -> None:
    whole = sorted(partition for share in shares for partition in share) == list(range(6))
    assert (not_whole(shares, 6) is None) == whole
