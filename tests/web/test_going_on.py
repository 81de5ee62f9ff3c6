"""Where the sign-in form sends a browser on to: a page of this service, never another host."""

import pytest

from app.web.admin.signing import _own

HOME = "/admin"


@pytest.mark.parametrize(
    "path",
    ["/admin", "/admin/", "/admin/calls", "/admin/calls?business=b-1&state=live", "/admin?x=//y"],
)
def test_goes_on_to_a_page_of_its_own(path: str) -> None:
    assert _own(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "//evil.example",
        "//evil.example/admin",
        "///admin",
        "///admin/x",
        "////admin",
        "/\\admin",
        "\\\\admin",
        "/\\/admin",
        "/\t/admin",
        "/\n/admin",
        "\t//admin",
        " //admin",
        "https://evil.example/admin",
        "https:/admin",
        "https:///admin",
        "javascript:/admin",
        "admin",
        "/admin/../../evil",
        "/admin/%2e%2e/%2e%2e",
        "/administrator",
        "//admin@evil.example/admin",
        "http://[",
    ],
)
def test_goes_home_instead_of_to_what_a_browser_reads_as_another_place(path: str) -> None:
    assert _own(path) == HOME
