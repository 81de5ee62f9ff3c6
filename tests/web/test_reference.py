"""`/docs` and `/redoc`: everything they load is this service's own."""

import re
from hashlib import sha256

import httpx
import pytest

from app.web.admin.pages import POLICY
from app.web.api.reference import STATIC
from tests.service import Service


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_loads_its_own_files_alone_under_the_pages_policy(
    service: Service, path: str
) -> None:
    async with httpx.AsyncClient(base_url=service.url) as client:
        page = await client.get(path)
        loaded = re.findall(r'(?:src|href)="([^"]*)"', page.text)
        assert len(loaded) == 4
        for one in loaded:
            assert one.startswith(("/docs/static/", "/admin/static/"))
            answer = await client.get(one)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
    policy = page.headers["content-security-policy"]
    assert policy.replace("img-src 'self' data:", "img-src 'self'") == POLICY
    assert "<script>" not in page.text
    assert " style=" not in page.text


@pytest.mark.parametrize(
    "name", ["README.md", "LICENSE.swagger-ui.txt", "nothing.js", "..%2freference.py"]
)
async def test_serves_no_other_file(service: Service, name: str) -> None:
    async with httpx.AsyncClient(base_url=service.url) as client:
        assert (await client.get(f"/docs/static/{name}")).status_code == 404


def test_the_files_are_the_versions_that_the_table_names() -> None:
    table = (STATIC / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\S+)` \|.* ([0-9a-f]{64}) \|$", table, re.M))
    own = {"swagger.js"}
    shipped = {path.name for path in STATIC.iterdir() if path.suffix in (".js", ".css")}
    assert set(listed) == shipped - own
    for name, digest in listed.items():
        assert sha256((STATIC / name).read_bytes()).hexdigest() == digest
