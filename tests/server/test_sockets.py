"""Who is counted, for whom, and who gives way."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import TooManyFromAddress, TooManySockets
from app.server.sockets import Connections, UnadmittedSockets, counted_address

PROXIES = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))


class Line:
    """A connection by name, which notes that it gave way."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.gone = False

    def give_way(self) -> None:
        self.gone = True


def lines(count: int) -> list[Line]:
    return [Line(str(number)) for number in range(count)]


def test_who_has_waited_longest_gives_way() -> None:
    room = Connections(3)
    first, second, third, fourth, fifth = lines(5)
    for line in (first, second, third, fourth):
        assert room.add(line)
    assert [line.gone for line in (first, second, third, fourth)] == [True, False, False, False]
    room.serve(second)
    room.wait(second)
    assert room.add(fifth)
    assert (third.gone, second.gone) == (True, False)
    assert len(room) == 3


def test_a_connection_that_is_served_never_gives_way() -> None:
    room = Connections(2)
    first, second, third, fourth = lines(4)
    for line in (first, second):
        room.add(line)
        room.serve(line)
    assert not room.add(third)
    assert [first.gone, second.gone] == [False, False]
    room.wait(first)
    assert room.add(fourth)
    assert first.gone


@given(st.lists(st.tuples(st.sampled_from(["add", "serve", "wait", "remove"]), st.integers(0, 9))))
def test_there_are_never_more_connections_than_may_be(steps: list[tuple[str, int]]) -> None:
    room = Connections(4)
    known = lines(10)
    inside: set[Line] = set()
    for step, number in steps:
        line = known[number]
        if step == "add" and line not in inside:
            line.gone = False
            if room.add(line):
                inside.add(line)
        elif step == "serve":
            room.serve(line)
        elif step == "wait":
            room.wait(line)
        elif step == "remove":
            room.remove(line)
            inside.discard(line)
        inside = {line for line in inside if not line.gone}
        assert len(room) == len(inside) <= 4


def test_sockets_are_bounded_in_all_and_by_address() -> None:
    sockets = UnadmittedSockets(3, 2)
    sockets.enter("a")
    sockets.enter("a")
    with pytest.raises(TooManyFromAddress):
        sockets.enter("a")
    sockets.enter("b")
    with pytest.raises(TooManySockets):
        sockets.enter("c")
    sockets.leave("a")
    sockets.enter("a")
    assert len(sockets) == 3


def test_a_business_has_as_many_sockets_as_are_free_for_others() -> None:
    sockets = UnadmittedSockets(10, 100)

    def open_all(business_id: str) -> int:
        """Open sockets of a business until one is refused, and return how many are open."""
        opened = 0
        while True:
            sockets.enter("")
            try:
                sockets.assign(business_id)
            except TooManySockets:
                sockets.leave("")
                return opened
            opened += 1

    assert [open_all(business_id) for business_id in "abc"] == [5, 3, 1]
    assert open_all("a") == 0
    for _ in range(3):
        sockets.leave("", "a")
    assert open_all("a") == 1
    for business_id, count in {"a": 3, "b": 3, "c": 1}.items():
        for _ in range(count):
            sockets.leave("", business_id)
    assert len(sockets) == 0
    assert open_all("d") == 5


def test_one_business_may_use_the_only_socket() -> None:
    sockets = UnadmittedSockets(1, 1)
    sockets.enter("a")
    sockets.assign("a")


def test_an_address_that_tells_nothing_is_bounded_in_all_alone() -> None:
    sockets = UnadmittedSockets(5, 1)
    for _ in range(5):
        sockets.enter("")
    with pytest.raises(TooManySockets):
        sockets.enter("")
    sockets.leave("")
    sockets.enter("a")


@pytest.mark.parametrize(
    ("peer", "forwarded", "counted"),
    [
        ("8.8.8.8", [], "8.8.8.8"),
        ("8.8.8.8", ["1.1.1.1"], "8.8.8.8"),
        ("10.1.1.1", ["1.1.1.1"], "1.1.1.1"),
        ("10.1.1.1", ["6.6.6.6, 1.1.1.1, 10.2.2.2"], "1.1.1.1"),
        ("10.1.1.1", ["192.168.7.7"], "192.168.7.7"),
        ("10.1.1.1", [], ""),
        ("10.1.1.1", ["rubbish"], ""),
        ("127.0.0.1", [], ""),
        ("192.168.1.1", ["1.1.1.1"], ""),
        ("100.64.0.3", [], ""),
        ("2a00:1450::1", [], "2a00:1450::/64"),
        ("2a00:1450::ffff:1", [], "2a00:1450::/64"),
        ("::ffff:8.8.8.8", [], "8.8.8.8"),
        ("2001:db8::1", ["2a00:1450:0:1::5"], "2a00:1450:0:1::/64"),
        ("", [], ""),
    ],
)
def test_whom_a_socket_is_counted_for(peer: str, forwarded: list[str], counted: str) -> None:
    assert counted_address(peer, forwarded, PROXIES) == counted
