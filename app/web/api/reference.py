"""`/docs` and `/redoc`: the API's document for people, by Swagger UI.

Nothing is loaded from another origin: the page is on the origin whose cookies sign people in
at `/admin`, and has the Content-Security-Policy of its pages. `static/README.md` says which
version the files are, and under which licence.
"""

from functools import cache
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response

from app.web.admin.pages import HEADERS, POLICY, STATIC_TYPES

STATIC = Path(__file__).parent / "static"
# A file's URL changes with its content.
_KEEP = {"Cache-Control": "public, max-age=31536000, immutable"}
_FILES = frozenset(path.name for path in STATIC.iterdir() if path.suffix in STATIC_TYPES)
# Swagger UI's style sheet holds its icons itself. An image runs nothing.
_HEADERS = HEADERS | {
    "Content-Security-Policy": POLICY.replace("img-src 'self'", "img-src 'self' data:")
}
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>API: media bridge</title>
<link rel="icon" href="/admin/static/icon.svg">
<link rel="stylesheet" href="{style}">
</head>
<body>
<div id="reference"></div>
<noscript>This page needs JavaScript. The document itself is at /openapi.json.</noscript>
<script src="{bundle}"></script>
<script src="{start}"></script>
</body>
</html>
"""


def reference_router() -> APIRouter:
    """Create the routes of the page, by both of its names, and of its files."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    @router.get("/redoc")
    async def reference() -> Response:
        made = _PAGE.format(
            style=_static("swagger-ui.css"),
            bundle=_static("swagger-ui-bundle.js"),
            start=_static("swagger.js"),
        )
        return HTMLResponse(made, headers=_HEADERS)

    @router.get("/docs/static/{name}")
    async def file(name: str) -> Response:
        if name not in _FILES:
            return Response(status_code=404, headers=HEADERS)
        path = STATIC / name
        media_type = STATIC_TYPES[path.suffix]
        return FileResponse(path, media_type=media_type, headers={**HEADERS, **_KEEP})

    return router


@cache
def _static(name: str) -> str:
    return f"/docs/static/{name}?{sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"
