"""Which addresses probes refuse, in every form, and that everything else is left alone."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.probes.addresses import literal, refusal

METADATA = int(IPv4Address("169.254.169.254"))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("169.254.0.1", "link-local, where clouds keep their metadata"),
        ("169.254.169.254", "link-local, where clouds keep their metadata"),
        ("169.254.170.2", "link-local, where clouds keep their metadata"),
        ("fe80::1", "link-local"),
        ("febf::1", "link-local"),
        ("100.100.100.200", "metadata of Alibaba Cloud"),
        ("168.63.129.16", "metadata of Azure"),
        ("192.0.0.192", "metadata of Oracle Cloud"),
        ("fd00:ec2::254", "metadata of AWS"),
        ("fd00:ec2::23", "credentials of AWS EKS"),
        ("fd20:ce::254", "metadata of Google Cloud"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "broadcast"),
    ],
)
def test_a_forbidden_address_says_what_it_is(text: str, kind: str) -> None:
    assert refusal(ip_address(text)) == kind


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "127.1.2.3", "::1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "fd12:3456::1", "100.100.100.201",
     "169.253.255.255", "169.255.0.0", "1.1.1.1", "2606:4700::1111", "fec0::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1"],
)  # fmt: skip
def test_loopback_private_and_public_addresses_are_allowed(text: str) -> None:
    assert refusal(ip_address(text)) is None


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(METADATA, id="compatible"),
        pytest.param(0xFFFF << 32 | METADATA, id="mapped"),
        pytest.param(0xFFFF << 48 | METADATA, id="translated"),
        pytest.param(int(IPv6Address("64:ff9b::")) | METADATA, id="NAT64"),
        pytest.param(int(IPv6Address("64:ff9b:1::")) | METADATA, id="NAT64 of one's own"),
        pytest.param(int(IPv6Address("2002::")) | METADATA << 80, id="6to4"),
        pytest.param(int(IPv6Address("2001::")) | METADATA << 64, id="Teredo, its server"),
        pytest.param(int(IPv6Address("2001:0:4136:e378::")) | METADATA ^ 0xFFFFFFFF, id="Teredo, its client"),
    ],
)
def test_an_ipv6_form_of_a_forbidden_address_is_refused(form: int) -> None:
    assert refusal(IPv6Address(form)) == "link-local, where clouds keep their metadata"


@given(st.ip_addresses(v=4, network="169.254.0.0/16"))
def test_every_link_local_address_is_refused_also_mapped(address: IPv4Address) -> None:
    assert refusal(address)
    assert refusal(IPv6Address(f"::ffff:{address}"))


@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_refused_exactly_when_the_plain_one_is(address: IPv4Address) -> None:
    mapped = IPv6Address(f"::ffff:{address}")
    # The loopback block has no other forbidden address in it; 0.0.0.1 mapped is no loopback.
    assert (refusal(mapped) is None) == (refusal(address) is None)


@given(st.ip_addresses())
def test_whatever_the_standard_library_calls_link_local_or_multicast_is_refused(
    address: IPv4Address | IPv6Address,
) -> None:
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        assert refusal(address)


def test_only_the_usual_form_is_an_address() -> None:
    assert literal("127.0.0.1") == IPv4Address("127.0.0.1")
    assert literal("::1") == IPv6Address("::1")
    for name in ("localhost", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "127.1", "127.0.0.01", "", "::1]"):
        assert literal(name) is None


def test_an_address_with_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="link-local"):
        literal("fe80::1%eth0")


def test_the_refused_networks_are_the_documented_ones() -> None:
    assert all(refusal(ip_network(text)[1]) for text in ("169.254.0.0/16", "fe80::/10", "0.0.0.0/8", "ff00::/8"))
