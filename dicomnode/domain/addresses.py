"""IP addresses and networks, compared as a person means them. No name is ever looked up."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_address(text: str) -> Address:
    """Return an address in the form in which it is compared.

    An IPv4 address that a socket for both families shows as IPv6 (::ffff:10.1.2.3) is IPv4, and
    the zone of a link-local address (fe80::1%eth0) is left out: it names our own interface.

    Raises:
        ValueError: it is none.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse_network(text: str) -> Network:
    """Return the network that an address or a CIDR names.

    Raises:
        ValueError: it is none; names of hosts are none either.
    """
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            meant = ipaddress.ip_network(text, strict=False)
            raise ValueError(f"{text!r} has host bits set; the network is {meant}") from error
        raise ValueError(f"{text!r} is no IP address and no network such as 10.1.2.0/24") from error
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def is_within(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address lies in one of the networks; what is no address lies in none."""
    try:
        found = parse_address(address)
    except ValueError:
        return False
    return any(found in network for network in networks)
