"""Each platform's file: what the platform documents, and what a live call needs of it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dockerfile
import jsonschema_rs
import pytest
import yaml

from app.settings import Settings
from tests.npm import installed
from tests.redis_process import fixed_port
from tests.service import Service

ROOT = Path(__file__).parent.parent
# What every platform runs. A plain uvicorn would cut live calls at the first signal.
START = "python -m app serve"
HEALTH = "/health"
# From the end of the drain to the kill: the last audio, receipts and events.
MARGIN_SECONDS = 30
LONGEST_OF_RENDER = 300


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def an_object(required: str = "", **properties: object) -> dict[str, object]:
    """Make the schema of an object that has these fields and no others."""
    known = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**known, "required": required.split()}


TEXT = {"type": "string", "minLength": 1}
SECONDS = {"type": "string", "pattern": "^[0-9]+$"}
# The fields that we use, as the page "Config as Code Reference" of Railway's
# documentation has them; it shows the last two as strings.
RAILWAY = an_object(
    "$schema build deploy",
    **{"$schema": {"const": "https://railway.com/railway.schema.json"}},
    build=an_object(builder={"enum": ["RAILPACK", "DOCKERFILE"]}, dockerfilePath=TEXT),
    deploy=an_object(
        "startCommand healthcheckPath restartPolicyType drainingSeconds overlapSeconds",
        startCommand=TEXT,
        healthcheckPath=TEXT,
        healthcheckTimeout={"type": "integer", "minimum": 1},
        restartPolicyType={"enum": ["ON_FAILURE", "ALWAYS", "NEVER"]},
        restartPolicyMaxRetries={"type": "integer", "minimum": 1},
        overlapSeconds=SECONDS,
        drainingSeconds=SECONDS,
    ),
)
VARIABLE = {
    "oneOf": [
        an_object("key value", key=TEXT, value=TEXT),
        an_object("key sync", key=TEXT, sync={"const": False}),
        an_object("key generateValue", key=TEXT, generateValue={"const": True}),
        an_object(
            "key fromService",
            key=TEXT,
            fromService=an_object(
                "type name property",
                type={"enum": ["web", "pserv", "keyvalue"]},
                name=TEXT,
                property={"enum": ["host", "port", "hostport", "connectionString"]},
            ),
        ),
    ]
}
# The fields that we use, as Render's "Blueprint YAML Reference" has them.
RENDER = an_object(
    "services",
    services={
        "type": "array",
        "items": {
            "oneOf": [
                an_object(
                    "type name runtime healthCheckPath maxShutdownDelaySeconds envVars",
                    type={"const": "web"},
                    name=TEXT,
                    runtime={"enum": ["docker", "python"]},
                    dockerfilePath=TEXT,
                    healthCheckPath=TEXT,
                    maxShutdownDelaySeconds={
                        "type": "integer",
                        "minimum": 1,
                        "maximum": LONGEST_OF_RENDER,
                    },
                    envVars={"type": "array", "items": VARIABLE},
                ),
                an_object(
                    "type name ipAllowList",
                    type={"const": "keyvalue"},
                    name=TEXT,
                    ipAllowList={"type": "array"},
                    maxmemoryPolicy={"enum": ["noeviction", "allkeys-lru", "volatile-lru"]},
                ),
            ]
        },
    },
)
SECRETS = {"SECRET_KEY", "ADMIN_TOKEN", "METRICS_TOKEN", "TWILIO_AUTH_TOKEN"}
# Render's own: 256 random bits in base64.
GENERATED = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA="


def drains_within(seconds: int, drain: str) -> bool:
    return int(drain) >= Settings(public_url=None).drain_seconds and (
        seconds >= int(drain) + MARGIN_SECONDS
    )


# -------------------------------------------------------------- what is wrong with each


def faults_of_procfile(text: str) -> list[str]:
    return [] if text == f"web: {START}\n" else ["starts something else"]


def faults_of_railway_json(text: str) -> list[str]:
    """Judge railway.json, which services from before Infrastructure as Code still read."""
    document = json.loads(text)
    found = [str(one) for one in jsonschema_rs.validator_for(RAILWAY).iter_errors(document)]
    if found:
        return found
    deploy = document["deploy"]
    if deploy["startCommand"] != START:
        found.append("starts something else")
    if deploy["healthcheckPath"] != HEALTH:
        found.append("asks something else whether it is well")
    # It sets no variables: what it allows must hold for those that railway.ts sets.
    if not drains_within(int(deploy["drainingSeconds"]), railway_variables()["DRAIN_SECONDS"]):
        found.append("kills live calls")
    if (ROOT / "Dockerfile").exists() and document["build"]["builder"] != "DOCKERFILE":
        found.append("names a builder that Railway leaves aside where there is a Dockerfile")
    return found


def railway_variables(text: str | None = None) -> dict[str, str]:
    """Read the plain values of railway.ts."""
    return dict(re.findall(r'^ +(\w+): "([^"]+)",$', text or read(".railway/railway.ts"), re.M))


def faults_of_railway_ts(text: str) -> list[str]:
    """Judge railway.ts by its text; the test below lets Railway's own package read it."""
    given = railway_variables(text)
    found = []
    if (given.get("start"), given.get("healthcheck")) != (START, HEALTH):
        found.append("starts or asks something else")
    window = int(given.get("RAILWAY_DEPLOYMENT_DRAINING_SECONDS", "0"))
    if not drains_within(window, given.get("DRAIN_SECONDS", "30")):
        found.append("kills live calls")
    if not int(given.get("RAILWAY_DEPLOYMENT_OVERLAP_SECONDS", "0")):
        found.append("leaves nobody to take calls while versions change")
    # The edge's own address is the last one in Railway's X-Forwarded-For.
    if (given.get("TRUSTED_PROXIES"), given.get("CLIENT_ADDRESS_HEADER")) != (
        "100.64.0.0/10",
        "X-Real-IP",
    ):
        found.append("counts all clients as one")
    kept = set(re.findall(r"^ +(\w+): preserve\(\),$", text, re.M))
    if not kept >= SECRETS or SECRETS & set(given):
        found.append("holds a secret, or drops one")
    return found


def render_variables(document: Any) -> dict[str, Mapping[str, Any]]:
    return {one["key"]: one for one in document["services"][0]["envVars"]}


def faults_of_render(text: str) -> list[str]:
    document = yaml.safe_load(text)
    found = [str(one) for one in jsonschema_rs.validator_for(RENDER).iter_errors(document)]
    if found:
        return found
    web, store = document["services"]
    given = render_variables(document)
    if web["runtime"] != "docker":
        found.append("does not start the image, whose command is the one of the others")
    if web["healthCheckPath"] != HEALTH:
        found.append("restarts while Redis is away")
    drain = given["DRAIN_SECONDS"]["value"] if "DRAIN_SECONDS" in given else "30"
    if not drains_within(web["maxShutdownDelaySeconds"], drain):
        found.append("kills live calls")
    proxies, header = (given.get(n, {}) for n in ("TRUSTED_PROXIES", "CLIENT_ADDRESS_HEADER"))
    if (proxies.get("value"), header.get("value")) != ("10.0.0.0/8", "CF-Connecting-IP"):
        found.append("counts all clients as one")
    if any("value" in given.get(name, {"value": ""}) for name in SECRETS):
        found.append("holds a secret, or lacks one")
    if given["REDIS_URL"]["fromService"]["name"] != store["name"]:
        found.append("has no Redis")
    if store["maxmemoryPolicy"] != "noeviction" or store["ipAllowList"]:
        found.append("lets go of what is stored, or lets others in")
    return found


def faults_of_dockerfile(text: str) -> list[str]:
    """Judge the Dockerfile, as the parser of Docker's own builder reads it."""
    try:
        commands = dockerfile.parse_string(text)
    except dockerfile.GoParseError as error:
        return [str(error)]
    last = max(i for i, one in enumerate(commands) if one.cmd == "FROM")
    stage = {one.cmd: one for one in commands[last:]}
    found = []
    entry, command = stage.get("ENTRYPOINT"), stage.get("CMD")
    if not (entry and entry.json and entry.value == ("tini", "--")):
        found.append("has no init")
    # In the other form a shell is between, which passes no signal on.
    if not (command and command.json and " ".join(command.value) == START):
        found.append("starts something else")
    if "USER" not in stage or stage["USER"].value[0] in {"root", "0"}:
        found.append("runs as root")
    if "STOPSIGNAL" not in stage or stage["STOPSIGNAL"].value != ("SIGTERM",):
        found.append("does not say how it is stopped")
    if "HEALTHCHECK" not in stage or HEALTH + "'" not in " ".join(stage["HEALTHCHECK"].value):
        found.append("does not say whether it is well")
    installed = [one.value[0] for one in commands if one.cmd == "RUN" and "pip" in one.value[0]]
    if not installed or any("requirements.txt" not in one for one in installed):
        found.append("installs what is not pinned")
    if any("--require-hashes" not in one for one in installed):
        found.append("installs files that nobody has checked")
    if {one.value[0].partition("-")[0] for one in commands if one.cmd == "FROM"} != {
        f"python:{read('.python-version').strip()}"
    }:
        found.append("has another Python than the other platforms")
    return found


FAULTS: Mapping[str, Callable[[str], list[str]]] = {
    "Procfile": faults_of_procfile,
    "railway.json": faults_of_railway_json,
    ".railway/railway.ts": faults_of_railway_ts,
    "render.yaml": faults_of_render,
    "Dockerfile": faults_of_dockerfile,
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_for_a_platform_is_right(name: str) -> None:
    assert FAULTS[name](read(name)) == []


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("Procfile", START, "uvicorn app.main:create_app --factory"),
        ("Procfile", "web", "worker"),
        ("railway.json", START, "uvicorn app.main:create_app --factory"),
        ("railway.json", HEALTH, HEALTH + "/ready"),
        ("railway.json", '"330"', '"300"'),
        ("railway.json", '"330"', "330"),
        ("railway.json", "drainingSeconds", "drainSeconds"),
        ("railway.json", "DOCKERFILE", "RAILPACK"),
        ("railway.json", "DOCKERFILE", "NIXPACKS"),
        (".railway/railway.ts", START, "uvicorn app.main:create_app --factory"),
        (".railway/railway.ts", f'"{HEALTH}"', f'"{HEALTH}/ready"'),
        (".railway/railway.ts", '"330"', '"300"'),
        (".railway/railway.ts", 'DRAIN_SECONDS: "300"', 'DRAIN_SECONDS: "5"'),
        (".railway/railway.ts", "RAILWAY_DEPLOYMENT_OVERLAP_SECONDS", "OVERLAP_SECONDS"),
        (".railway/railway.ts", "SECRET_KEY: preserve()", 'SECRET_KEY: "s3cret"'),
        (".railway/railway.ts", "TRUSTED_PROXIES", "PROXIES"),
        (".railway/railway.ts", '"X-Real-IP"', '"X-Forwarded-For"'),
        ("render.yaml", f"healthCheckPath: {HEALTH}\n", f"healthCheckPath: {HEALTH}/ready\n"),
        ("render.yaml", "maxShutdownDelaySeconds: 300", "maxShutdownDelaySeconds: 330"),
        ("render.yaml", "maxShutdownDelaySeconds: 300", "maxShutdownDelaySeconds: 280"),
        ("render.yaml", "maxShutdownDelaySeconds", "shutdownDelaySeconds"),
        ("render.yaml", "runtime: docker", "runtime: python"),
        ("render.yaml", 'value: "10.0.0.0/8"', 'value: "0.0.0.0/0"'),
        ("render.yaml", "CLIENT_ADDRESS_HEADER", "CLIENT_HEADER"),
        ("render.yaml", "noeviction", "allkeys-lru"),
        ("render.yaml", "ipAllowList: []", "ipAllowList: [0.0.0.0/0]"),
        ("render.yaml", "generateValue: true", "value: s3cret"),
        ("render.yaml", "sync: false", "sync: true"),
        ("render.yaml", "name: media-bridge-redis\n    #", "name: another\n    #"),
        ("Dockerfile", 'CMD ["python", "-m", "app", "serve"]', f"CMD {START}"),
        ("Dockerfile", 'ENTRYPOINT ["tini", "--"]', ""),
        ("Dockerfile", "USER 10001", "USER root"),
        ("Dockerfile", "STOPSIGNAL SIGTERM", ""),
        ("Dockerfile", "/health'", "/health/ready'"),
        ("Dockerfile", "--requirement requirements.txt", "fastapi redis"),
        ("Dockerfile", "--require-hashes ", ""),
        ("Dockerfile", "FROM python:3.11-slim\n", "FROM python:3.14-slim\n"),
        ("Dockerfile", "STOPSIGNAL", "STOPSIGNALS"),
    ],
)
def test_a_file_that_would_cut_calls_or_is_not_understood_is_caught(
    name: str, right: str, wrong: str
) -> None:
    text = read(name)
    assert right in text
    assert FAULTS[name](text.replace(right, wrong, 1))


def test_the_variables_that_render_sets_are_good_ones() -> None:
    given = render_variables(yaml.safe_load(read("render.yaml")))
    typed = {"PUBLIC_URL": "https://media-bridge.onrender.com", "TWILIO_AUTH_TOKEN": "t" * 32}
    made = {name: GENERATED for name, one in given.items() if "generateValue" in one}
    plain = {name: one["value"] for name, one in given.items() if "value" in one}
    Settings.load({"REDIS_URL": "redis://red-1:6379", **typed, **made, **plain})
    assert {name for name in given if name.lower() not in Settings.__dataclass_fields__} == set()


def test_the_python_of_the_platforms_is_one_that_we_support() -> None:
    oldest = re.search(r'requires-python = ">=([\d.]+)"', read("pyproject.toml"))
    assert oldest is not None
    assert re.fullmatch(r"3\.\d+\n", read(".python-version"))
    assert int(read(".python-version").split(".")[1]) >= int(oldest[1].split(".")[1])


# ------------------------------------------------------------------------ the image


def test_the_image_is_built_from_what_it_needs_and_nothing_else() -> None:
    ignored, *let_in = read(".dockerignore").split("\n*\n")[1].split()
    assert [ignored, *let_in[:-1]] == ["!app", "!businesses.toml", "!requirements.txt"]
    assert let_in[-1] == "**/__pycache__"
    copied = [
        one.value[0].strip("/")
        for one in dockerfile.parse_string(read("Dockerfile"))
        if one.cmd == "COPY" and not one.flags
    ]
    assert {f"!{name}" for name in copied} == {ignored, *let_in[:-1]}


def test_the_images_health_check_tells_a_service_that_is_well_from_none(service: Service) -> None:
    [check] = [
        one for one in dockerfile.parse_string(read("Dockerfile")) if one.cmd == "HEALTHCHECK"
    ]
    kind, program, *arguments = check.value
    assert (kind, program, check.json) == ("CMD", "python", True)

    def asked(port: str) -> int:
        environ = {**os.environ, "PORT": port, "no_proxy": "*"}
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environ, capture_output=True, check=False).returncode

    assert asked(service.url.rpartition(":")[2]) == 0
    assert asked(str(fixed_port())) == 1


# ----------------------------------------------------------------- railway's own package

EVALUATED = """
import * as iac from "railway/iac";
import program from "./.railway/railway.ts";
const context = iac.createRailwayContext({ environment: "production" });
console.log(JSON.stringify(await (program.default ?? program)(context, iac.project)));
"""
STRICT = {
    "compilerOptions": {
        "strict": True,
        "noEmit": True,
        "module": "nodenext",
        "target": "es2022",
        "types": [],
    },
    "files": [".railway/railway.ts"],
}


@pytest.fixture(scope="module")
def railway(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory with railway.ts, Railway's package and a TypeScript compiler."""
    directory = tmp_path_factory.mktemp("railway")
    installed(directory, "railway@3.11.0", "typescript@5.9.3")
    shutil.copytree(ROOT / ".railway", directory / ".railway")
    (directory / "tsconfig.json").write_text(json.dumps(STRICT))
    (directory / "evaluated.mjs").write_text(EVALUATED)
    return directory


def test_railways_package_takes_railway_ts(railway: Path) -> None:
    binaries = railway / "node_modules" / ".bin"
    checked = subprocess.run(
        [binaries / "tsc", "-p", "."], cwd=railway, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout) == (0, "")
    evaluated = subprocess.run(
        [binaries / "tsx", "evaluated.mjs"], cwd=railway, capture_output=True, text=True, check=True
    )
    store, bridge = json.loads(evaluated.stdout)["resources"]
    assert store["engine"] == "redis"
    assert bridge["deploy"]["startCommand"] == START
    assert bridge["deploy"]["healthcheckPath"] == HEALTH
    variables = bridge["variables"]
    assert variables["REDIS_URL"]["resource"] == store["address"]
    assert {name for name in SECRETS if variables[name]["type"] != "preserve"} == set()
    ours = {name for name in variables if not name.startswith("RAILWAY_")}
    assert {name for name in ours if name.lower() not in Settings.__dataclass_fields__} == set()
