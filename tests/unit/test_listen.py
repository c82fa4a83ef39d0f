"""Where servers may listen: on loopback, until there is authentication."""

import pytest

from schemas.listen import ListenAddress, ListenError, parse_listen


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8123", ListenAddress("127.0.0.1", 8123)),
        ("[::1]:0", ListenAddress("::1", 0)),
        ("localhost:1", ListenAddress("localhost", 1)),
    ],
)
def test_loopback_addresses_and_their_text(text: str, address: ListenAddress) -> None:
    assert parse_listen(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["0.0.0.0:8123", "10.0.0.1:8123", "[::]:80", "example.org:80"])
def test_other_hosts_are_refused_and_told_why(text: str) -> None:
    with pytest.raises(ListenError, match="nobody logs in"):
        parse_listen(text)


@pytest.mark.parametrize("text", [":8123", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", ""])
def test_what_is_no_address_is_named_with_its_option(text: str) -> None:
    with pytest.raises(ListenError, match=f"--metrics: value {text!r}: expected HOST:PORT"):
        parse_listen(text, "--metrics")
