"""Pin the base image of the Dockerfile to the digest that its registry serves now.

    make pin-image                      by docker buildx or skopeo, whichever is installed
    make pin-image REGISTRY=https://…   by HTTPS, from a registry that serves the image

The digest is computed from the manifest that was fetched, and the registry must serve that
manifest by the digest too. On any failure the Dockerfile stays as it is.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

SECONDS = 30
MOST_BYTES = 4 * 1024 * 1024
PLATFORMS = {"linux/amd64", "linux/arm64"}
MEDIA_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
FROM = re.compile(
    r"^FROM (?P<name>[a-z0-9/._-]+):(?P<tag>[\w.-]+)"
    r"(?:@sha256:[0-9a-f]{64})?(?P<rest>(?: AS \w+)?)$",
    re.MULTILINE,
)

# Fetch the raw manifest of a name, at a tag (`:3.11-slim`) or a digest (`@sha256:…`).
Fetch = Callable[[str, str], bytes]


class PinError(Exception):
    """The image cannot be pinned; says why, and what to do."""


def pinned(dockerfile: str, fetch: Fetch) -> tuple[str, str]:
    """Return the Dockerfile with its image pinned, and the image with its digest.

    Raises:
        PinError: the Dockerfile or the manifest is not what it must be.
    """
    images = {(one["name"], one["tag"]) for one in FROM.finditer(dockerfile)}
    stages = re.findall(r"^\s*FROM\b", dockerfile, re.MULTILINE | re.IGNORECASE)
    if len(images) != 1 or len(FROM.findall(dockerfile)) != len(stages):
        raise PinError("the Dockerfile must have one base image, as FROM NAME:TAG")
    [(name, tag)] = images
    manifest = fetch(name, f":{tag}")
    missing = PLATFORMS - platforms_of(manifest)
    if missing:
        raise PinError(f"{name}:{tag} has no image for {', '.join(sorted(missing))}")
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    if fetch(name, f"@{digest}") != manifest:
        raise PinError(f"the registry serves another manifest as {digest}")
    image = f"{name}:{tag}@{digest}"
    return FROM.sub(lambda one: f"FROM {image}{one['rest']}", dockerfile), image


def platforms_of(manifest: bytes) -> set[str]:
    """Return the platforms that an image index lists.

    Raises:
        PinError: it is no image index.
    """
    try:
        found = json.loads(manifest)["manifests"]
        listed = [one["platform"] for one in found]
        return {f"{one['os']}/{one['architecture']}" for one in listed}
    except (ValueError, KeyError, TypeError) as error:
        raise PinError("the registry answered with something else than an image index") from error


# ------------------------------------------------------------------- ways to a registry


def by_tool(command: list[str]) -> Fetch:
    """Return a way to fetch with a program that knows where images are."""

    def fetch(name: str, reference: str) -> bytes:
        asked = [word.replace("IMAGE", name + reference) for word in command]
        try:
            done = subprocess.run(asked, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise PinError(f"{command[0]} did not answer within {SECONDS} s") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason"]
            raise PinError(f"{command[0]} cannot reach a registry: {said[-1]}")
        return done.stdout

    return fetch


def by_http(registry: str) -> Fetch:
    """Return a way to fetch by HTTP from a registry, with an anonymous token where it wants one."""

    def fetch(name: str, reference: str) -> bytes:
        path = name if "/" in name else f"library/{name}"
        url = f"{registry.rstrip('/')}/v2/{path}/manifests/{reference[1:]}"
        headers = {"Accept": ", ".join(MEDIA_TYPES)}
        try:
            return _get(url, headers)
        except urllib.error.HTTPError as error:
            challenge = error.headers.get("WWW-Authenticate", "")
            if error.code != 401 or not challenge.startswith("Bearer "):
                raise
            token = _token(challenge)
        return _get(url, {**headers, "Authorization": f"Bearer {token}"})

    def told(name: str, reference: str) -> bytes:
        try:
            return fetch(name, reference)
        except (OSError, ValueError, KeyError) as error:
            raise PinError(f"the registry cannot be reached: {error}") from error

    return told


def _token(challenge: str) -> str:
    """Fetch the token that a challenge asks for (Distribution, "Token Authentication")."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = fields.pop("realm")
    answer = json.loads(_get(f"{realm}?{urllib.parse.urlencode(fields)}", {}))
    return str(answer.get("token") or answer["access_token"])


def _get(url: str, headers: dict[str, str]) -> bytes:
    if not url.startswith(("https://", "http://127.0.0.1:")):
        raise ValueError("its URL must begin with https://")
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        body: bytes = answer.read(MOST_BYTES + 1)
    if len(body) > MOST_BYTES:
        raise ValueError("its answer is too large for a manifest")
    return body


def _status(command: list[str]) -> int:
    return subprocess.run(command, capture_output=True, timeout=SECONDS, check=False).returncode


def way_to(registry: str) -> Fetch:
    """Choose how to reach the image's registry.

    Raises:
        PinError: no way is known here.
    """
    if registry:
        return by_http(registry)
    if shutil.which("docker") and not _status(["docker", "buildx", "version"]):
        return by_tool(["docker", "buildx", "imagetools", "inspect", "--raw", "IMAGE"])
    if shutil.which("skopeo"):
        return by_tool(["skopeo", "inspect", "--raw", "docker://IMAGE"])
    raise PinError(
        "neither docker buildx nor skopeo is installed: install one, or name the registry's URL, "
        "make pin-image REGISTRY=https://…"
    )


def main() -> int:
    """Pin the image; return 1 with a sentence where that cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--registry", default="", help="URL of a registry that serves the image")
    parser.add_argument("--dockerfile", type=Path, default=Path("Dockerfile"))
    parsed = parser.parse_args()
    before = parsed.dockerfile.read_text(encoding="utf-8")
    try:
        after, image = pinned(before, way_to(parsed.registry))
    except PinError as error:
        print(f"{parsed.dockerfile} is unchanged: {error}", file=sys.stderr)
        return 1
    parsed.dockerfile.write_text(after, encoding="utf-8")
    print(f"{parsed.dockerfile} now builds from {image}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
