"""The files around the code say what the code says."""

import dataclasses
import io
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.cli import main
from app.main import VERSION
from app.plans import BUSINESS_FIELDS, PLAN_FIELDS, TrackPlan, parse_directory
from app.settings import SECRET_NAMES, SUFFIX, Settings

ROOT = Path(__file__).parent.parent
VARIABLES = {field.name.upper(): field for field in dataclasses.fields(Settings)}
UNITS = {"_SECONDS": "econds", "_BYTES": "ytes"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def default_of(name: str) -> Any:
    return VARIABLES[name].default


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(read("pyproject.toml"))["project"]
    return found


# -------------------------------------------------------------------- .env.example


def documented() -> dict[str, tuple[str, str]]:
    """Read .env.example: each variable's line as dotenv reads it, and its comment."""
    found: dict[str, tuple[str, str]] = {}
    for block in read(".env.example").split("\n\n"):
        *comment, last = block.strip().splitlines() or [""]
        line = re.fullmatch(r"#?([A-Z_]+)=(.*)", last)
        if line:
            assert all(text.startswith("# ") for text in comment)
            assert line[1] not in found
            found[line[1]] = (line[2], "\n".join(comment))
    return found


def test_the_example_environment_shows_every_setting_and_nothing_else() -> None:
    files = {name + SUFFIX for name in SECRET_NAMES}
    assert set(documented()) == set(VARIABLES) | files


@pytest.mark.parametrize("name", VARIABLES)
def test_the_example_environment_explains_a_setting(name: str) -> None:
    _, comment = documented()[name]
    said = re.search(r"Default: ([^\s.,;]+)", comment)
    assert said, "its default must be said"
    default = default_of(name)
    if default not in (None, "", ()):
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        shown = shown.lower() if isinstance(default, bool) else shown
        assert comment.split("Default: ")[1].startswith(shown)
    for ending, unit in UNITS.items():
        assert unit in comment or not name.endswith(ending)


SHOWN = [name for name, (value, _) in documented().items() if value and name in VARIABLES]


@pytest.mark.parametrize("name", SHOWN)
def test_the_value_that_the_example_environment_shows_is_good(name: str) -> None:
    partners = {one: documented()[one][0] for one in ("EXOTEL_API_KEY", "EXOTEL_API_TOKEN")}
    environ = {"REDIS_URL": "redis://localhost", **partners, name: documented()[name][0]}
    Settings.load({**environ, "ALLOW_UNSIGNED": "public"})


def test_the_example_environment_serves_this_machine_as_it_is() -> None:
    environ = dotenv_values(stream=io.StringIO(read(".env.example")))
    settings = Settings.load({**environ, "REDIS_URL": "redis://localhost:6379/0"})  # type: ignore[dict-item]
    assert settings.waives_signatures
    assert settings.host == "127.0.0.1"
    assert settings.public_url is not None
    assert settings.public_url.http_base == "http://localhost:8000"
    assert settings.businesses_file is not None
    assert (ROOT / settings.businesses_file).is_file()


def test_the_shipped_businesses_are_those_of_the_guides() -> None:
    directory = parse_directory(read("businesses.toml"), "businesses.toml")
    plans = {plan.name: plan for plan in directory.plans}
    businesses = {business.id: business for business in directory.businesses}
    assert businesses["business-1"].plan == "premium"
    assert businesses["business-1"].numbers == ("+15005550006",)
    assert plans["premium"].tracks is TrackPlan.BOTH
    assert set(tomllib.loads(read("businesses.toml"))["plans"]["premium"]) == set(PLAN_FIELDS)
    for field in BUSINESS_FIELDS:
        assert f"{field} = " in read("businesses.toml")


# -------------------------------------------------------------------- dependencies


def pins() -> dict[str, str]:
    found = [line.split("==") for line in read("constraints.txt").splitlines()]
    return {canonicalize_name(name): version for name, version in found}


def closure(dependencies: list[str]) -> set[str]:
    """Name all that these need, on this machine."""
    seen: set[str] = set()
    waiting = [Requirement(text) for text in dependencies]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in seen and (
            not requirement.marker or requirement.marker.evaluate({"extra": ""})
        ):
            seen.add(name)
            further = [Requirement(text) for text in requires(name) or ()]
            extras = ["", *requirement.extras]
            waiting += [
                found
                for found in further
                if not found.marker or any(found.marker.evaluate({"extra": e}) for e in extras)
            ]
    return seen


def test_constraints_are_names_and_exact_versions_and_nothing_else() -> None:
    lines = read("constraints.txt").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert len(pins()) == len(lines)


def test_constraints_pin_everything_that_is_installed() -> None:
    dependencies = [*project()["dependencies"], *project()["optional-dependencies"]["dev"]]
    assert closure(dependencies) - set(pins()) == set()


def test_each_dependency_allows_its_pin() -> None:
    extras = project()["optional-dependencies"].values()
    dependencies = [*project()["dependencies"], *(one for extra in extras for one in extra)]
    for requirement in map(Requirement, dependencies):
        assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def locked() -> dict[str, tuple[Requirement, list[str]]]:
    """Read requirements.txt: each requirement, and the hashes of its files."""
    found = {}
    for line in read("requirements.txt").replace("\\\n", " ").splitlines():
        if not line.startswith("#"):
            text, *hashes = line.split(" --hash=")
            requirement = Requirement(text)
            name = canonicalize_name(requirement.name)
            assert name not in found
            found[name] = requirement, [one.strip() for one in hashes]
    return found


def test_platforms_install_what_we_tested() -> None:
    # Railpack installs from this file alone, before it copies the project.
    here = {
        name: str(one.specifier)
        for name, (one, _) in locked().items()
        if one.marker is None or one.marker.evaluate()
    }
    assert here == {name: f"=={pins()[name]}" for name in closure(project()["dependencies"])}
    for name, (one, _) in locked().items():
        assert str(one.specifier) == f"=={pins()[name]}"


def test_requirements_have_the_hash_of_each_file_and_name_no_index() -> None:
    for _, hashes in locked().values():
        assert hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes)
    assert "://" not in read("requirements.txt")
    assert not re.search(r"^\s*-(?!-hash)", read("requirements.txt"), re.MULTILINE)


def test_requirements_serve_each_supported_python() -> None:
    """On newer ones `audioop` is a package."""
    environment = {"python_full_version": "3.13.1", "python_version": "3.13"}
    audioop, hashes = locked()["audioop-lts"]
    assert audioop.marker is not None
    assert audioop.marker.evaluate(environment)
    assert len(hashes) > 10


@pytest.mark.parametrize("verb", ["lock", "sbom"])
def test_what_a_release_is_made_with_is_pinned(verb: str) -> None:
    shown = make(ROOT, "--dry-run", "--always-make", verb).stdout
    assert "-c constraints.txt -e '.[release]'" in shown
    hashed = "--generate-hashes" if verb == "lock" else "--require-hashes"
    assert hashed in shown
    needed = [Requirement(text) for text in project()["optional-dependencies"]["release"]]
    for one in needed:
        assert one.specifier.contains(pins()[canonicalize_name(one.name)])


# ------------------------------------------------------------------------- project


def test_the_version_is_one() -> None:
    assert project()["version"] == VERSION


def test_the_console_script_is_the_command_line() -> None:
    module, _, name = project()["scripts"]["media-bridge"].partition(":")
    assert (module, name) == (main.__module__, main.__name__)


def test_ci_runs_what_a_person_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "set -euo pipefail" in script.read_text()
    assert {"make test", "make lint", "make types"} <= set(script.read_text().splitlines())


@pytest.mark.parametrize("name", [".env", "data/", ".venv/", "demo.wav", "build/", "sbom.json"])
def test_what_a_run_leaves_behind_is_not_committed(name: str) -> None:
    assert name in read(".gitignore").splitlines()


# ------------------------------------------------------------------------ Makefile


def make(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environ: Mapping[str, str] = {"PATH": os.environ["PATH"]}
    return subprocess.run(
        ["make", f"PYTHON={sys.executable}", *arguments],
        cwd=directory,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", ".env.example", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_make_help_explains_every_verb(checkout: Path) -> None:
    shown = {line.split()[0] for line in make(checkout, "help").stdout.splitlines()}
    verbs = re.search(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)
    assert verbs is not None
    assert shown == set(verbs[1].split())
    assert {"run", "test", "demo", "bench", "lint", "types", "check", "clean"} <= shown


def test_a_first_run_writes_an_environment_with_a_key_of_its_own(checkout: Path) -> None:
    assert make(checkout, ".env").returncode == 0
    written = checkout / ".env"
    environ = dotenv_values(written)
    settings = Settings.load({**environ, "REDIS_URL": "redis://localhost"})  # type: ignore[dict-item]
    assert len(settings.secret_key) == 1
    assert len(settings.admin_token) == 1
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    written.unlink()
    make(checkout, ".env")
    for name in ("SECRET_KEY", "ADMIN_TOKEN"):
        assert dotenv_values(written)[name] != environ[name]


def test_an_environment_that_is_there_is_never_overwritten(checkout: Path) -> None:
    (checkout / ".env").write_text("PORT=8123\n")
    os.utime(checkout / ".env", (1, 1))
    assert make(checkout, ".env").returncode == 0
    assert (checkout / ".env").read_text() == "PORT=8123\n"


def test_an_old_python_is_refused_in_a_sentence(checkout: Path) -> None:
    old = checkout / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = make(checkout, f"PYTHON={old}", ".venv/ready")
    assert done.returncode != 0
    assert "Python 3.11 or later is needed" in done.stdout
    assert not (checkout / ".venv").exists()


def test_run_starts_the_service_with_a_redis_of_its_own(checkout: Path) -> None:
    shown = make(checkout, "--dry-run", "run").stdout
    assert ".venv/bin/python -m app --env-file .env serve --embedded-redis data" in shown
