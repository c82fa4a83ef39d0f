"""URLs of probes: what is checked is what is asked for, or the URL is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.probes.url import Url, follow, parse_url

BASE = parse_url("https://shop.example:8443/a/b?c=d")


@pytest.mark.parametrize(
    ("text", "url", "authority"),
    [
        ("http://127.0.0.1", Url("http", "127.0.0.1", 80, "/"), "127.0.0.1"),
        ("HTTPS://Shop.Example/a?b#c", Url("https", "shop.example", 443, "/a?b"), "shop.example"),
        ("http://[::1]:8080/?q", Url("http", "::1", 8080, "/?q"), "[::1]:8080"),
        ("http://[0:0::1]/", Url("http", "::1", 80, "/"), "[::1]"),
        ("https://a.b:443/x", Url("https", "a.b", 443, "/x"), "a.b"),
        ("http://a_b-c.d./", Url("http", "a_b-c.d.", 80, "/"), "a_b-c.d."),
    ],
)
def test_a_url_is_taken_apart(text: str, url: Url, authority: str) -> None:
    assert parse_url(text) == url
    assert url.authority == authority


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ftp://a/", "scheme 'ftp'; expected http or https"),
        ("//a/", "scheme ''; expected http or https"),
        ("http:///a", "host missing"),
        ("http://:80/", "host missing"),
        ("http://user:password@a/", "credentials in the URL"),
        ("http://user@a/", "credentials in the URL"),
        ("http://a\\@b/", "printable ASCII"),
        ("http://a/\r\nHost: b", "printable ASCII"),
        ("http://a b/", "printable ASCII"),
        ("http://exämple/", "printable ASCII"),
        ("http://a/" + "x" * 5_000, "1 to 4096"),
        ("http://a:99999/", "out of range"),
        ("http://a%2eb/", "zone"),
        ("http://[fe80::1%25eth0]/", "zone"),
        ("http://a..b/", "expected a host name"),
        ("http://-.-_-!/", "expected a host name"),
    ],
)
def test_a_url_that_could_mean_two_things_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        parse_url(text)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "there"),
    [
        ("/x", "https://shop.example:8443/x"),
        ("x", "https://shop.example:8443/a/x"),
        ("?q=1", "https://shop.example:8443/a/b?q=1"),
        ("//other.example/x", "https://other.example/x"),
        ("http://other.example", "http://other.example/"),
        ("  /x  ", "https://shop.example:8443/x"),
        ("/\xc3\xa4 b", "https://shop.example:8443/%C3%A4%20b"),
        ("/%C3%A4", "https://shop.example:8443/%C3%A4"),
    ],
)
def test_a_location_is_followed_as_browsers_do(location: str, there: str) -> None:
    assert follow(BASE, location) == parse_url(there)


def test_what_is_shown_has_no_query() -> None:
    assert BASE.shown == "https://shop.example:8443/a/b"


@given(st.text())
def test_any_text_is_a_url_or_a_value_error(text: str) -> None:
    for attempt in (text, f"http://{text}", f"http://127.0.0.1/{text}"):
        try:
            url = parse_url(attempt)
        except ValueError:
            continue
        assert url.target.isascii()
        assert url.target.isprintable()
        assert " " not in url.target


@given(st.text(st.characters(max_codepoint=255)))
def test_any_location_is_a_url_or_a_value_error(location: str) -> None:
    try:
        url = follow(BASE, location)
    except ValueError:
        return
    assert parse_url(f"{url.scheme}://{url.authority}{url.target}") == url
