"""`make pin-image`: the base image's digest, from a registry that serves it."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.markdown import ROOT, read
from tests.redis_process import fixed_port

DOCKERFILE = read("Dockerfile")
TAG = "3.11-slim"
TOKEN = "anonymous-token"


def an_index(*architectures: str) -> bytes:
    manifests = [
        {"digest": f"sha256:{n:064x}", "platform": {"os": "linux", "architecture": one}}
        for n, one in enumerate(architectures)
    ]
    return json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()


INDEX = an_index("amd64", "arm64", "s390x")
DIGEST = f"sha256:{hashlib.sha256(INDEX).hexdigest()}"


@dataclass
class Registry:
    """What a registry serves by tag and by digest, and who asked it for what."""

    by_tag: bytes = INDEX
    by_digest: Mapping[str, bytes] = field(default_factory=lambda: {DIGEST: INDEX})
    gives_tokens: bool = True
    url: str = ""
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving(registry: Registry) -> Iterator[Registry]:
    """Serve the registry's HTTP API, version 2, with anonymous tokens, until the block ends."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            registry.asked.append(self.path)
            parts = urlsplit(self.path)
            if parts.path == "/token":
                scope = parse_qs(parts.query)["scope"]
                given = scope == ["repository:library/python:pull"] and registry.gives_tokens
                self._answer(200 if given else 403, json.dumps({"token": TOKEN}).encode())
            elif self.headers["Authorization"] != f"Bearer {TOKEN}":
                self.send_response(401)
                scope = 'scope="repository:library/python:pull"'
                challenge = f'Bearer realm="{registry.url}/token",service="registry",{scope}'
                self.send_header("WWW-Authenticate", challenge)
                self.end_headers()
            else:
                reference = parts.path.removeprefix("/v2/library/python/manifests/")
                assert "image.index" in self.headers["Accept"]
                found = registry.by_tag if reference == TAG else registry.by_digest.get(reference)
                self._answer(200 if found else 404, found or b"{}")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def dockerfile(tmp_path: Path) -> Path:
    path = tmp_path / "Dockerfile"
    path.write_text(DOCKERFILE, encoding="utf-8")
    return path


def pin(dockerfile: Path, registry: str = "", path: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            *(sys.executable, ROOT / "scripts" / "pin_image.py"),
            *("--registry", registry, "--dockerfile", dockerfile),
        ],
        env={"PATH": path, "no_proxy": "*"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_pins_every_stage_to_the_digest_that_the_registry_serves(dockerfile: Path) -> None:
    with serving(Registry()) as registry:
        done = pin(dockerfile, registry.url)
    image = f"python:{TAG}@{DIGEST}"
    assert (done.returncode, done.stderr) == (0, "")
    assert image in done.stdout
    assert dockerfile.read_text() == DOCKERFILE.replace(f"python:{TAG}", image)
    assert dockerfile.read_text().count(f"FROM {image}") == 2
    assert registry.asked[-1].endswith(DIGEST)


def test_replaces_the_digest_of_an_image_that_was_pinned_before(dockerfile: Path) -> None:
    old = f"python:{TAG}@sha256:{'0' * 64}"
    dockerfile.write_text(DOCKERFILE.replace(f"python:{TAG}", old))
    with serving(Registry()) as registry:
        assert pin(dockerfile, registry.url).returncode == 0
        once = dockerfile.read_text()
        assert pin(dockerfile, registry.url).returncode == 0
    assert once == dockerfile.read_text()
    assert once == DOCKERFILE.replace(f"python:{TAG}", f"python:{TAG}@{DIGEST}")


@pytest.mark.parametrize(
    ("registry", "said"),
    [
        (Registry(by_digest={}), "404"),
        (Registry(by_digest={DIGEST: an_index("amd64", "arm64")}), "another manifest"),
        (Registry(by_tag=an_index("amd64")), "no image for linux/arm64"),
        (Registry(by_tag=b'{"schemaVersion": 2, "layers": []}'), "something else"),
        (Registry(by_tag=b"<html>sign in to this network</html>"), "something else"),
        (Registry(by_tag=b" " * (4 * 1024 * 1024 + 1)), "too large"),
        (Registry(gives_tokens=False), "403"),
    ],
)
def test_changes_nothing_where_the_registry_does_not_vouch_for_the_image(
    dockerfile: Path, registry: Registry, said: str
) -> None:
    with serving(registry):
        done = pin(dockerfile, registry.url)
    assert_unchanged(dockerfile, done, said)


@pytest.mark.parametrize("registry", ["http://registry.example", "file:///etc", "registry"])
def test_refuses_a_registry_without_tls(dockerfile: Path, registry: str) -> None:
    assert_unchanged(dockerfile, pin(dockerfile, registry), "must begin with https://")


def test_changes_nothing_where_no_registry_can_be_reached(dockerfile: Path) -> None:
    done = pin(dockerfile, f"http://127.0.0.1:{fixed_port()}")
    assert_unchanged(dockerfile, done, "cannot be reached")
    assert_unchanged(dockerfile, pin(dockerfile), "neither docker buildx nor skopeo is installed")


@pytest.mark.parametrize("program", ["docker", "skopeo"])
def test_asks_the_program_that_knows_where_images_are(
    dockerfile: Path, tmp_path: Path, program: str
) -> None:
    index = tmp_path / "index"
    index.write_bytes(INDEX)
    tool = tmp_path / "bin" / program
    tool.parent.mkdir()
    # It serves the tag and the one digest, as a registry does.
    tool.write_text(
        "#!/bin/sh\n"
        f'for last; do :; done\ncase "${{last#docker://}}" in\n'
        "  version) exit 0 ;;\n"
        f"  python:{TAG}|python@{DIGEST}) exec /bin/cat {index} ;;\n"
        "esac\necho 'dial tcp: no such host' >&2\nexit 1\n"
    )
    tool.chmod(0o755)
    older = tmp_path / "older"
    older.mkdir()
    (older / "docker").write_text("#!/bin/sh\necho 'docker: no such command: buildx' >&2\nexit 1\n")
    (older / "docker").chmod(0o755)
    assert_unchanged(dockerfile, pin(dockerfile, path=str(older)), "neither docker buildx nor")
    done = pin(dockerfile, path=str(tool.parent))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python:{TAG}@{DIGEST}" in dockerfile.read_text()

    dockerfile.write_text(DOCKERFILE)
    index.write_bytes(INDEX + b"\n")
    assert_unchanged(dockerfile, pin(dockerfile, path=str(tool.parent)), "no such host")


@pytest.mark.parametrize(
    "text",
    [
        "FROM python\n",
        "FROM python:3.11\nFROM debian:12\n",
        "FROM scratch AS x\nFROM python:3.11-slim\n",
        "",
    ],
)
def test_refuses_a_dockerfile_with_another_kind_of_base(dockerfile: Path, text: str) -> None:
    dockerfile.write_text(text)
    with serving(Registry()) as registry:
        done = pin(dockerfile, registry.url)
    assert done.returncode == 1
    assert "one base image" in done.stderr
    assert dockerfile.read_text() == text


def test_the_image_of_the_dockerfile_is_pinned_by_make(tmp_path: Path) -> None:
    shown = subprocess.run(
        ["make", "--dry-run", "pin-image", "REGISTRY=https://registry.example"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert 'scripts/pin_image.py --registry "https://registry.example"' in shown


def assert_unchanged(dockerfile: Path, done: "subprocess.CompletedProcess[str]", said: str) -> None:
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"{dockerfile} is unchanged: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert dockerfile.read_text(encoding="utf-8") == DOCKERFILE
