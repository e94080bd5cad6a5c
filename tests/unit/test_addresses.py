"""Which URLs and addresses a notification may be sent to."""

# ruff: noqa: RUF001, S104 - look-alikes and special addresses are what it is about

import ipaddress

import pytest

from app.core.urls import AllowList, UrlRejected, check_addresses, is_public, parse_target

NOBODY = AllowList()
SPECIAL = (
    *("0.0.0.0", "0.1.2.3", "255.255.255.255"),  # unspecified, broadcast
    *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),  # private
    *("127.0.0.1", "127.255.255.254"),
    *("169.254.169.254", "169.254.170.2"),  # link-local, with the metadata of clouds
    *("100.64.0.1", "100.100.100.200"),  # shared by carriers
    *("168.63.129.16", "192.0.0.192"),  # Azure and Oracle
    *("192.0.0.1", "192.0.0.170", "192.0.2.1", "198.51.100.1", "203.0.113.1", "192.88.99.1", "192.31.196.1"),
    *("192.52.193.1", "192.175.48.1", "198.18.0.1", "198.19.255.255"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1"),  # multicast, reserved
    *("::", "::1", "fe80::1", "febf::1", "fec0::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254"),
    *("ff02::1", "ff0e::1", "100::1", "100:0:0:1::1", "5f00::1", "4000::1"),
    *("::ffff:8.8.8.8", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "::127.0.0.1", "::8.8.8.8"),  # mapped, compatible
    *("64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::a00:1"),  # NAT64
    *("2002:7f00:1::1", "2002:a00:1::", "2002:808:808::1"),  # 6to4
    *("2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),  # Teredo
    *("2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "3fff::1", "2620:4f:8000::1"),
    *("2606:4700::5efe:a00:1", "2606:4700::200:5efe:7f00:1"),  # ISATAP
)


@pytest.mark.parametrize("address", SPECIAL)
def test_a_special_address_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", SPECIAL)
def test_a_url_with_a_special_address_is_rejected(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(UrlRejected, match="must lead to a public address") as error:
        parse_target(f"https://{host}/hook", NOBODY)
    assert (error.value.status, error.value.code) == (400, "webhook_url_rejected")


@pytest.mark.parametrize("address", SPECIAL)
def test_a_name_with_one_special_address_among_its_addresses_is_rejected(address: str) -> None:
    target = parse_target("https://shop.example.com/hook", NOBODY)
    addresses = [ipaddress.ip_address(one) for one in ("8.8.8.8", address)]
    with pytest.raises(UrlRejected):
        check_addresses(target, addresses, NOBODY)


@pytest.mark.parametrize("address", ["8.8.8.8", "168.63.129.15", "172.32.0.1", "2606:4700::1111", "2001:4860::8888"])
def test_an_ordinary_address_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
    host = f"[{address}]" if ":" in address else address
    assert parse_target(f"https://{host}", NOBODY).address == ipaddress.ip_address(address)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "127.1",
            "0177.0.0.1",
            "127.0.0.01",
            "1.2.3.4.5",
            "256.1.1.1",
            "example.1",
        ),
        *("0x", "example.0x", "１２７.1"),
    ],
)
def test_a_host_that_some_programs_read_as_another_address_is_rejected(host: str) -> None:
    with pytest.raises(UrlRejected, match="four decimal numbers"):
        parse_target(f"https://{host}/", AllowList.parse("127.0.0.0/8"))


@pytest.mark.parametrize("host", ["127.0.0.1.", "１２７.０.０.１", "127。0。0。1", "①②⑦.0.0.1"])
def test_a_private_address_in_other_characters_is_still_private(host: str) -> None:
    with pytest.raises(UrlRejected, match="must lead to a public address"):
        parse_target(f"https://{host}/", NOBODY)


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("https://shop.example.com", "shop.example.com", 443, "/", "shop.example.com"),
        ("HTTPS://Shop.Example.com.:443/a?b=c", "shop.example.com", 443, "/a?b=c", "shop.example.com"),
        ("https://shop.example.com:8443?x", "shop.example.com", 8443, "/?x", "shop.example.com:8443"),
        ("https://[2606:4700:0::1111]:8443/", "2606:4700::1111", 8443, "/", "[2606:4700::1111]:8443"),
        ("https://bücher.example/", "xn--bcher-kva.example", 443, "/", "xn--bcher-kva.example"),
        ("https://faß.example/", "xn--fa-hia.example", 443, "/", "xn--fa-hia.example"),
        ("https://my_shop.example.com/ä", "my_shop.example.com", 443, "/ä", "my_shop.example.com"),
    ],
)
def test_a_public_url_is_taken_apart(url: str, host: str, port: int, path: str, authority: str) -> None:
    target = parse_target(url, NOBODY)
    assert (target.host, target.port, target.path, target.authority) == (host, port, path, authority)
    assert target.address is None or ":" in host


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://shop.example.com/", "must use https"),
        ("http://8.8.8.8/", "must use https"),
        ("ftp://shop.example.com/", "must be absolute"),
        ("file:///etc/passwd", "must be absolute"),
        ("//shop.example.com/", "must be absolute"),
        ("shop.example.com", "must be absolute"),
        ("https://", "must be absolute"),
        ("https://:443/", "must be absolute"),
        ("https://shop.example.com:0/", "must be absolute"),
        ("https://shop.example.com:65536/", "must be absolute"),
        ("https://shop.example.com:x/", "must be absolute"),
        ("https://[::1/", "must be absolute"),
        ("https://user@shop.example.com/", "credentials or a fragment"),
        ("https://user:pass@shop.example.com/", "credentials or a fragment"),
        ("https://@shop.example.com/", "credentials or a fragment"),
        ("https://shop.example.com/#", "credentials or a fragment"),
        ("https://shop.example.com/#part", "credentials or a fragment"),
        ("https://shop.example.com/ a", "spaces, control"),
        (" https://shop.example.com/", "spaces, control"),
        ("https://shop.example.com/\n", "spaces, control"),
        ("https://shop.exa\tmple.com/", "spaces, control"),
        ("https://shop.example.com\\@evil.example/", "spaces, control"),
        ("https://shop.example.com/\u2028", "spaces, control"),
        ("https://shop.example.com/" + "a" * 2048, "2048 characters"),
        ("https://%31%32%37.0.0.1/", "must name a host"),
        ("https://shop..example.com/", "must name a host"),
        ("https://-shop.example.com/", "must name a host"),
        ("https://shop.example.com../", "must name a host"),
        ("https://sh\u2488op.example.com/", "must name a host"),
        (f"https://{'a' * 64}.example.com/", "must name a host"),
        (f"https://{'a.' * 127}example/", "must name a host"),
        ("https://[fe80::1%25eth0]/", "without a zone"),
        ("https://[fe80::1%eth0]/", "without a zone"),
        ("https://localhost/", "must lead to a public address"),
        ("https://shop.localhost/", "must lead to a public address"),
        ("https://inventory:8080/", "must lead to a public address"),
        ("https://metadata.google.internal/", "must lead to a public address"),
        ("https://printer.local/", "must lead to a public address"),
    ],
)
def test_a_url_that_names_nothing_public_is_rejected(url: str, reason: str) -> None:
    with pytest.raises(UrlRejected, match=reason):
        parse_target(url, NOBODY)


def test_a_bracketed_host_that_is_no_ipv6_address_is_rejected() -> None:
    with pytest.raises(UrlRejected):
        parse_target("https://[v1.a]/", NOBODY)


@pytest.mark.parametrize(
    ("allowed", "url", "address"),
    [
        ("inventory", "http://inventory:8080/", "172.18.0.4"),
        ("Inventory.", "http://INVENTORY/", "172.18.0.4"),
        ("bücher.example", "http://xn--bcher-kva.example/", "8.8.8.8"),
        ("*.svc.cluster.local", "http://shop.prod.svc.cluster.local/", "10.1.2.3"),
        ("other, *.example.com", "https://a.example.com/", "::1"),
        ("10.0.0.0/8", "http://shop.example.com/", "10.1.2.3"),
        ("fd00::/8", "http://shop.internal/", "fd00::1"),
        ("169.254.0.0/16", "http://shop.internal/", "169.254.169.254"),
        ("0.0.0.0/0", "http://shop.example.com/", "8.8.8.8"),
        ("127.0.0.1", "http://127.0.0.1:8000/", "127.0.0.1"),
        ("10.1.2.3/8", "https://shop.example.com/", "10.9.9.9"),
    ],
)
def test_an_allow_list_opens_hosts_suffixes_and_networks_also_for_plain_http(
    allowed: str, url: str, address: str
) -> None:
    allow = AllowList.parse(allowed)
    check_addresses(parse_target(url, allow), [ipaddress.ip_address(address)], allow)


@pytest.mark.parametrize(
    ("allowed", "url", "address", "reason"),
    [
        ("*.example.com", "http://example.com/", "10.1.2.3", "must use https"),
        ("*.example.com", "http://badexample.com/", "10.1.2.3", "must use https"),
        ("example.com", "http://a.example.com/", "10.1.2.3", "must use https"),
        ("10.0.0.0/8", "https://shop.example.com/", "192.168.1.1", "public address"),
        ("10.0.0.0/8", "http://shop.example.com/", "8.8.8.8", "must use https"),
        ("inventory", "http://inventory/", "169.254.169.254", "public address"),
        ("inventory", "http://inventory/", "100.100.100.200", "public address"),
        ("inventory", "http://inventory/", "fd00:ec2::254", "public address"),
        ("inventory", "http://inventory/", "224.0.0.1", "public address"),
        ("inventory", "http://inventory/", "0.0.0.0", "public address"),
        ("inventory", "http://inventory/", "::ffff:10.0.0.1", "public address"),
    ],
)
def test_an_allow_list_opens_nothing_else(allowed: str, url: str, address: str, reason: str) -> None:
    allow = AllowList.parse(allowed)
    with pytest.raises(UrlRejected, match=reason):
        check_addresses(parse_target(url, allow), [ipaddress.ip_address(address)], allow)


def test_every_address_is_checked_also_where_the_first_is_allowed() -> None:
    allow = AllowList.parse("10.0.0.0/8")
    with pytest.raises(UrlRejected):
        check_addresses(
            parse_target("https://shop.example.com/", allow),
            [ipaddress.ip_address(address) for address in ("10.0.0.1", "127.0.0.1")],
            allow,
        )


@pytest.mark.parametrize("text", ["*", "*.", "a,http://shop", "a,shop:8080", "a,1.2.3", "a,10.0.0.0/33", "a,sh op"])
def test_a_wrong_entry_of_an_allow_list_is_named(text: str) -> None:
    position = 2 if "," in text else 1
    with pytest.raises(ValueError, match=f"entry {position} must be a host"):
        AllowList.parse(text)


def test_an_allow_list_is_shown_as_it_may_be_written() -> None:
    text = "shop,*.example.com,10.0.0.0/8,::1/128"
    assert str(AllowList.parse(text)) == text
    assert AllowList.parse(str(AllowList.parse(text))) == AllowList.parse(text)


def test_an_empty_allow_list_allows_nothing_more() -> None:
    assert AllowList.parse(" , ") == NOBODY
    assert not NOBODY
