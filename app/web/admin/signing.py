"""Signing in and out, and the files that pages need."""

from urllib.parse import unquote, urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from app.errors import (
    BridgeError,
    FormExpired,
    InsecureSignIn,
    KeyExpired,
    SignInRequired,
    StoreUnavailable,
    TooManyAttempts,
    TooOften,
)
from app.web.admin.entry import SIGN_IN, Entry, Visit, problem, see
from app.web.admin.pages import HEADERS, SAID, STATIC, STATIC_TYPES, page
from app.web.admin.submitted import Submitted, read_form
from app.web.visitors import Visitors

HOME = "/admin"
IN_THE_CLEAR = (
    "This connection is not encrypted: a token or key that is typed here could be read on the "
    "way. Open this page by https."
)
# A file's URL changes with its content.
_KEEP = {"Cache-Control": "public, max-age=31536000, immutable"}
_FILES = frozenset(path.name for path in STATIC.iterdir() if path.suffix in STATIC_TYPES)


def add_signing(router: APIRouter, entry: Entry, visitors: Visitors) -> None:
    """Add the sign-in form, the sign-out button, and the files."""

    @router.get("/admin/static/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        if name not in _FILES:
            return Response(status_code=404, headers=HEADERS)
        path = STATIC / name
        headers = {**HEADERS, **_KEEP}
        return FileResponse(path, media_type=STATIC_TYPES[path.suffix], headers=headers)

    @router.get(SIGN_IN, include_in_schema=False)
    async def form(request: Request) -> Response:
        said = request.query_params.get("said", "")
        onward = request.query_params.get("next", "")
        problem = "" if visitors.may_be_encrypted(request) else IN_THE_CLEAR
        return _form(onward, problem, said=said if said in SAID else "", is_closed=bool(problem))

    @router.post(SIGN_IN, include_in_schema=False)
    async def sign_in(request: Request) -> Response:
        sent = Submitted()
        try:
            sent = await read_form(request)
            answer = see(_own(sent.text("next")))
            await visitors.sign_in(request, sent.text("key"), answer)
        except KeyExpired:
            words = "This access key has expired. Ask an operator for a new one."
            return _form(sent.text("next"), words, 401)
        except InsecureSignIn as error:
            return _form(sent.text("next"), IN_THE_CLEAR, error.http_status, is_closed=True)
        except SignInRequired:
            shown = sent.text("key").strip()
            words = "is not known here, or was revoked" if shown else "is missing"
            return _form(sent.text("next"), f"This token or key {words}.", 401)
        except TooManyAttempts as error:
            words = "Too many wrong keys came from here. Wait five minutes, then try again."
            answer = _form(sent.text("next"), words, error.http_status)
            answer.headers["Retry-After"] = "300"
        except TooOften as error:
            words = "This key has signed in too often. Wait a minute, then try again."
            answer = _form(sent.text("next"), words, error.http_status)
            answer.headers["Retry-After"] = str(error.retry_seconds)
        except StoreUnavailable as error:
            words = "Redis cannot be reached, so that nobody can sign in. Try again in a moment."
            return _form(sent.text("next"), words, error.http_status)
        except FormExpired as error:
            return _form("", "This form did not come from this page. Try again.", error.http_status)
        except BridgeError as error:
            return problem(None, error)
        return answer

    @entry.post("/admin/sign-out")
    async def sign_out(visit: Visit) -> Response:
        answer = see(SIGN_IN, "signed-out")
        await visitors.sign_out(visit.signed_in, answer)
        return answer

    def _form(
        onward: str, words: str = "", status: int = 200, said: str = "", *, is_closed: bool = False
    ) -> Response:
        return page(
            "sign_in.html",
            None,
            status=status,
            said=said,
            next=_own(onward),
            problem=words,
            is_closed=is_closed,
            has_operators=visitors.gate.has_operator,
        )


def _own(path: str) -> str:
    """Give a path of ours to go on to; that of the overview for anything else."""
    try:
        parts = urlsplit(path)
    except ValueError:
        return HOME
    ours = parts.path == HOME or parts.path.startswith(f"{HOME}/")
    is_plain = path.isascii() and path.isprintable() and "\\" not in path
    # A browser takes these out, and would leave our pages by them.
    is_plain = is_plain and ".." not in unquote(parts.path)
    # It reads what follows two slashes or more as a host; urlsplit does after two alone.
    is_plain = is_plain and path.startswith("/") and not path.startswith("//")
    return path if ours and is_plain and not parts.scheme and not parts.netloc else HOME
