"""Addresses and network interfaces of the processes of a training."""

import socket
import sys
from pathlib import Path

import pytest
import torch

from charlm.errors import EnvironmentFailure
from charlm.training import network

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for addresses")


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


IPV6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@LINUX
def test_an_interface_is_named_only_if_it_leads_to_another_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A name of the machine that leads to itself, as Debian writes it, broke the connections."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        assert network._address(end, "lo") == "127.0.0.1"
        assert network._address(end, "none-such") == ""
    assert [network.interface(place) for place in ("127.0.0.1", "", "::1", "no such")] == [""] * 4
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0"), (3, "ib0")])
    monkeypatch.setattr(network, "_address", lambda _, name: f"10.0.0.{len(name)}")
    addresses = tmp_path / "if_inet6"
    addresses.write_text(
        "fe800000000000001486ecfffe03bfee 0c 40 20 c0      ib0\n"
        "fd000000000000000000000000000001 0c 40 00 82     eth7\n"
    )
    monkeypatch.setattr(network, "IPV6_ADDRESSES", addresses)
    for own, name in {
        "10.0.0.3": "ib0", "10.0.0.9": "", "fd00::1": "eth7", "fd00::2": "",
        "fe80::1486:ecff:fe03:bfee%ib0": "ib0",
    }.items():  # fmt: skip
        monkeypatch.setattr(network, "_reached", lambda _, own=own: ("head", own))
        assert network.interface("head") == name


def test_the_loopback_interface_is_found_or_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service without netlink sockets cannot list interfaces: it could not train."""

    def forbidden() -> list[tuple[int, str]]:
        raise OSError(97, "Address family not supported by protocol")

    for names, name in {("lo", "eth0"): "lo", ("en0", "lo0"): "lo0"}.items():
        monkeypatch.setattr(socket, "if_nameindex", lambda names=names: list(enumerate(names, 1)))
        assert network.loopback() == name
    monkeypatch.setattr(socket, "if_nameindex", forbidden)
    for system, name in {"linux": "lo", "darwin": "", "win32": ""}.items():
        monkeypatch.setattr(sys, "platform", system)
        assert network.loopback() == name


def test_a_machine_reaches_itself_by_its_own_address() -> None:
    assert network._reached("127.0.0.1") == ("127.0.0.1", "127.0.0.1")
    assert network._reached("") == network._reached("no such") == ("", "")


@IPV6
def test_a_machine_reaches_itself_over_ipv6() -> None:
    assert network._reached("::1") == ("::1", "::1")


def test_the_first_machine_takes_the_interface_by_which_others_reach_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On Debian its own name leads to itself: no other machine could connect with it."""
    store = torch.distributed.HashStore()
    monkeypatch.delenv(network.VARIABLE, raising=False)
    for name, value in {"MASTER_ADDR": "head", "WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    interfaces = {"head": "eth1", "10.0.0.1": "eth0"}
    monkeypatch.setattr(network, "interface", lambda place: interfaces[place])
    monkeypatch.setattr(network, "_reached", {"head": ("10.0.0.1", "10.0.0.2")}.__getitem__)
    assert network.network_of(store) == "eth1"
    monkeypatch.setenv("RANK", "0")
    interfaces["head"] = ""  # 127.0.1.1
    assert network.network_of(store) == "eth0"
    monkeypatch.setenv(network.VARIABLE, "ib0")
    assert network.network_of(store) == ""


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.1.1", "::1"])
def test_processes_of_one_machine_use_its_loopback_interface(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gloo took 127.0.0.1 for a machine without a name, also if it had only IPv6."""
    store = torch.distributed.HashStore()
    monkeypatch.delenv(network.VARIABLE, raising=False)
    monkeypatch.setattr(network, "_reached", lambda _: (address, address))
    for name, value in {"MASTER_ADDR": address, "WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert network.network_of(store) == network.LOOPBACK


@IPV6
def test_a_machine_without_ipv4_listens_on_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "HOSTS", ("192.0.2.1", "::1"))  # the first is of no machine
    host, server = network.listening_socket()
    with server, socket.create_connection((host, server.getsockname()[1])):
        assert (host, server.family) == ("::1", socket.AF_INET6)


def test_a_machine_without_a_loopback_interface_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network, "HOSTS", ("192.0.2.1",))
    with pytest.raises(EnvironmentFailure, match=r"the address 192\.0\.2\.1 of its loopback"):
        network.listening_socket()
