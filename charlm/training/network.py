"""Addresses and network interfaces through which the processes of a training connect.

IPv4 is preferred, as in torch; IPv6 works too, also on machines that have nothing else.
"""

import contextlib
import ipaddress
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from charlm.errors import EnvironmentFailure

VARIABLE = "GLOO_SOCKET_IFNAME"
"""Environment variable of torch: the network interface through which processes connect."""
HOSTS = ("127.0.0.1", "::1")
"""Addresses of this machine in itself."""
SIOCGIFADDR = 0x8915
"""Request of Linux for the IPv4 address of a network interface."""
IPV6_ADDRESSES = Path("/proc/net/if_inet6")
"""File of Linux: the IPv6 addresses, each with its network interface in the last column."""


def loopback() -> str:
    """Return the name of the loopback interface on Linux or macOS, or "" elsewhere.

    A service that is not allowed to list the interfaces can still train.
    """
    usual = "lo" if sys.platform == "linux" else ""
    with contextlib.suppress(OSError):
        return next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), usual)
    return usual


LOOPBACK = loopback()
"""Network interface for processes of one machine; unlike others, it never goes away. If it is "",
gloo takes the one that the name of the machine leads to."""


def listening_socket() -> tuple[str, socket.socket]:
    """Return an address that only this machine reaches, and a socket that listens there.

    Raises EnvironmentFailure if it has none.
    """
    problem = OSError()
    for host in HOSTS:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return host, socket.create_server((host, 0), family=family)
        except OSError as error:
            problem = error
    raise EnvironmentFailure(
        f"processes cannot connect on this machine: {problem.strerror or problem}; expected the "
        f"address {' or '.join(HOSTS)} of its loopback interface. Enable that, or use one process"
    )


def network_of(store: Any) -> str:
    """Return the name of the network interface through which machines connect, or "".

    gloo would take the one that the name of this machine leads to, which may be the machine itself:
    Debian writes so. Then the first machine takes the one by which the last process reaches it. If
    that is the same machine, all use the loopback interface.
    """
    place = os.environ["MASTER_ADDR"]
    if int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1:
        store.set("first", _reached(place)[0])
    seen = store.get("first").decode()
    if os.environ.get(VARIABLE):
        return ""
    if _is_loopback(seen):
        return LOOPBACK
    return interface(place) or interface(seen)


def interface(place: str) -> str:
    """Return the name of the network interface that leads to another machine, or ""."""
    own = _reached(place)[1]
    if not own or _is_loopback(own) or sys.platform != "linux":
        return ""
    if ":" in own:
        return _interface_of_ipv6(own)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        names = [name for _, name in socket.if_nameindex()]
        return next((name for name in names if _address(end, name) == own), "")


def _reached(place: str) -> tuple[str, str]:
    """Return the address of a machine, and that of this one by which it reaches it; "" for none."""
    found: list[Any] = []
    with contextlib.suppress(OSError, UnicodeError):
        found = socket.getaddrinfo(place or None, 9, type=socket.SOCK_DGRAM) if place else []
    for family, kind, _, _, address in sorted(found, key=lambda each: each[0] != socket.AF_INET):
        with contextlib.suppress(OSError), socket.socket(family, kind) as end:
            end.connect(address)  # sends nothing
            return str(end.getpeername()[0]), str(end.getsockname()[0])
    return "", ""


def _is_loopback(address: str) -> bool:
    return bool(address) and ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _address(end: socket.socket, name: str) -> str:
    """Return the IPv4 address of a network interface of Linux, or ""."""
    import fcntl

    with contextlib.suppress(OSError):
        entry = fcntl.ioctl(end, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
        return socket.inet_ntoa(entry[20:24])
    return ""


def _interface_of_ipv6(own: str) -> str:
    """Return the name of the network interface of Linux that has an IPv6 address, or ""."""
    digits = ipaddress.IPv6Address(own.partition("%")[0]).packed.hex()
    with contextlib.suppress(OSError):
        for line in IPV6_ADDRESSES.read_text(encoding="ascii").splitlines():
            if line.startswith(digits):
                return line.split()[-1]
    return ""
