"""The ids under which streams are published: one business's each."""

import hashlib
import itertools

import pytest

from app.carriers.stream_ids import CARRIERS, stream_id

BUSINESSES = ("biz", "biz.dot", "biz-b", "biz.dot.K", "MZ" + "0" * 32)
NAMES = ("K", "dot.K", "biz-b.int-1", "int-1", "MZ" + "0" * 32, "exotel-" + "0" * 32)


@pytest.mark.parametrize("name", ["MZ" + "0a" * 16, "MZ" + "0A" * 16, "MZ1", "MZ"])
def test_keeps_twilio_ids_on_twilio_sockets(name: str) -> None:
    assert stream_id("twilio", "biz", name) == name


@pytest.mark.parametrize("carrier", ["exotel", "client"])
def test_never_returns_a_twilio_id_for_another_carrier(carrier: str) -> None:
    name = "MZ" + "0a" * 16
    assert stream_id(carrier, "biz", name).startswith(f"{carrier}-")
    assert name not in stream_id(carrier, "biz", name)


def test_derives_the_documented_id() -> None:
    digest = hashlib.sha256(b"client\nbiz-b\nint-1").hexdigest()
    assert stream_id("client", "biz-b", "int-1") == f"client-{digest[:32]}"


def test_returns_the_same_id_for_the_same_stream_each_time() -> None:
    assert stream_id("exotel", "biz", "s1") == stream_id("exotel", "biz", "s1")


def test_no_two_carriers_businesses_and_names_share_an_id() -> None:
    every = list(itertools.product(("exotel", "client"), BUSINESSES, NAMES))
    assert len({stream_id(*one) for one in every}) == len(every)


def test_a_twilio_socket_cannot_name_a_derived_id() -> None:
    """A socket that sends another business's derived id gets an id of its own."""
    derived = stream_id("client", "biz-b", "int-1")
    again = stream_id("twilio", "biz-a", derived)
    assert again != derived
    assert again.startswith("twilio-")


def test_a_peer_cannot_name_the_id_that_0_1_gave_to_another_business() -> None:
    assert stream_id("exotel", "biz-a", "biz-b.int-1") != "biz-b.int-1"


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("name", ["", "a b", "a\nb", "é", "a" * 129, "{a}", "a/b"])
def test_rejects_what_cannot_be_part_of_a_key(carrier: str, name: str) -> None:
    with pytest.raises(ValueError, match="is not of the form"):
        stream_id(carrier, "biz", name)
    with pytest.raises(ValueError, match="is not of the form"):
        stream_id(carrier, name, "stream")
