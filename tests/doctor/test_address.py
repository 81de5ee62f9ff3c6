"""What the form of a URL shows."""

import pytest

from app.diagnosis.findings import Level, worst
from app.tools.doctor.address import read_address


@pytest.mark.parametrize(
    ("text", "origin", "cause"),
    [
        ("https://bridge.example.com", "https://bridge.example.com", ""),
        ("  https://Bridge.Example.com:443 ", "https://bridge.example.com", ""),
        ("wss://bridge.example.com", "https://bridge.example.com", ""),
        ("https://bridge.example.com:8443", "https://bridge.example.com:8443", "public_url_port"),
        ("https://[2606:4700::1111]", "https://[2606:4700::1111]", ""),
        ("http://localhost:8000", "http://localhost:8000", "public_url_local"),
        ("https://10.0.0.7", "https://10.0.0.7", "public_url_local"),
        ("http://bridge.example.com", "http://bridge.example.com", "public_url_http"),
        ("https://bridge.example.com/", "https://bridge.example.com", "public_url_slash"),
        ("https://bridge.example.com/a/b", "https://bridge.example.com", "public_url_path"),
        ("https://bridge.example.com?a=b", "https://bridge.example.com", "public_url_path"),
        ("https://bridge.example.com/#x", "https://bridge.example.com", "public_url_path"),
        ("https://u:p@bridge.example.com", "https://bridge.example.com", "public_url_user"),
        ("", None, "public_url_missing"),
        ("   ", None, "public_url_missing"),
        ("bridge.example.com", None, "public_url_scheme_missing"),
        ("bridge.example.com:8000/x", None, "public_url_scheme_missing"),
        ("//bridge.example.com", None, "public_url_scheme_missing"),
        ("ftp://bridge.example.com", None, "public_url_unreadable"),
        ("https://", None, "public_url_unreadable"),
        ("https://bridge_example..com", None, "public_url_unreadable"),
        ("https://brücke.example", None, "public_url_unreadable"),
        ("https://bridge.example.com:99999", None, "public_url_unreadable"),
        ("https://[::1", None, "public_url_unreadable"),
        ("\x00", None, "public_url_unreadable"),
    ],
)
def test_a_url_is_read_and_its_form_judged(text: str, origin: str | None, cause: str) -> None:
    address, findings = read_address(text, is_setting=True)
    assert (address.origin if address else None) == origin
    assert [finding.cause for finding in findings] == [cause]


def test_a_slash_is_a_copy_from_a_browser_unless_it_is_the_setting() -> None:
    _, typed = read_address("https://bridge.example.com/", is_setting=False)
    _, setting = read_address("https://bridge.example.com/", is_setting=True)
    assert (worst(typed), worst(setting)) == (Level.WARNING, Level.FAILED)
    assert "PUBLIC_URL=https://bridge.example.com," in setting[0].fix


def test_a_fix_keeps_http_where_it_is_local() -> None:
    _, [slash, *_] = read_address("http://localhost:8000/", is_setting=True)
    assert "PUBLIC_URL=http://localhost:8000," in slash.fix
    _, [http, *_] = read_address("http://bridge.example.com", is_setting=True)
    assert "PUBLIC_URL=https://bridge.example.com" in http.fix


def test_the_same_place_for_websockets_has_the_same_host() -> None:
    address, _ = read_address("https://bridge.example.com:8443", is_setting=True)
    assert address is not None
    assert (address.ws_origin, address.port) == ("wss://bridge.example.com:8443", 8443)
