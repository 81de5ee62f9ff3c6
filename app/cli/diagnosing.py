"""`doctor` and `twilio`: whether a deployment works, and a number set to call it."""

import argparse
import asyncio
import sys
from collections.abc import Mapping

import httpx

from app import twilio_api
from app.cli.arguments import Commands, environment_beside, environment_of, secrets_read
from app.cli.target import admin_token_of
from app.diagnosis.causes import CAUSES
from app.diagnosis.deployment import Deployment
from app.diagnosis.findings import Finding, skipped, worst
from app.diagnosis.settings_checks import settings_findings
from app.errors import SettingsError
from app.main.examined import deployment_of, exposed_files
from app.settings import Settings
from app.tools.connecting import connect_number, webhooks_of
from app.tools.doctor.address import Address, read_address
from app.tools.doctor.consult import Consultation, consult
from app.tools.doctor.report import STATUS, as_json, lines_of, summary_of
from app.twilio_api.account import TwilioAccount

# Whoever has one of these runs the service here, or looks with its environment.
_OF_SERVICE = ("PUBLIC_URL", "REDIS_URL")
_OF_TWILIO = (
    "PUBLIC_URL",
    "TWILIO_ACCOUNT_SID",
    "TWILIO_AUTH_TOKEN",
    "TWILIO_API_URL",
    "TWILIO_MONITOR_URL",
)


def add_to(commands: Commands) -> None:
    """Add `doctor` and `twilio`."""
    doctor = commands.add_parser("doctor", help="find out why a deployment does not work")
    doctor.add_argument("url", nargs="?", default="", metavar="URL", help="default: PUBLIC_URL")
    doctor.add_argument("--business", default="", metavar="ID", help="whom the test call calls")
    doctor.add_argument("--no-call", action="store_true", help="place no test call")
    doctor.add_argument("--exotel", action="store_true", help="Exotel's calls are to come too")
    doctor.add_argument("--json", action="store_true", help="one JSON object, for programs")
    doctor.set_defaults(run=_doctor)
    twilio = commands.add_parser("twilio", help="set where a number's calls go")
    twilio.add_argument("action", choices=("connect",), help="let it call this service")
    twilio.add_argument("number", metavar="NUMBER", help="a number of the account: +1…")
    twilio.add_argument("--yes", action="store_true", help="do not ask")
    twilio.set_defaults(run=_twilio)


def _doctor(parsed: argparse.Namespace) -> int:
    environment = environment_beside(parsed.env_file)
    url = parsed.url or environment.get("PUBLIC_URL", "") or _local(environment)
    address, form = read_address(url, is_setting=not parsed.url)
    deployment, seen = _deployment(environment, address, parsed)
    asked = Consultation(
        address,
        deployment,
        [*form, *seen],
        httpx.create_ssl_context(),
        admin_token_of(environment),
        parsed.business,
        not parsed.no_call,
        parsed.exotel,
    )

    def tell(finding: Finding) -> None:
        if not parsed.json:
            print("\n".join(lines_of(finding)), flush=True)

    findings = asyncio.run(consult(asked, tell))
    print(as_json(url, findings) if parsed.json else summary_of(findings))
    return STATUS[worst(findings)]


def _local(environment: Mapping[str, str]) -> str:
    """Give where `make run` serves; nothing where no local use is meant."""
    port = environment.get("PORT", "8000")
    return f"http://localhost:{port}" if environment.get("ALLOW_UNSIGNED") else ""


def _deployment(
    environment: Mapping[str, str], address: Address | None, parsed: argparse.Namespace
) -> tuple[Deployment, list[Finding]]:
    """Read the environment; where it cannot be read, or is not the service's, the token alone."""
    alone = Deployment(
        public_url=address.origin if address else "",
        auth_token=environment.get("TWILIO_AUTH_TOKEN", "").partition(",")[0].strip(),
    )
    # REDIS_URL can be that of `make run`, which commands find by themselves.
    given = secrets_read(environment_of(parsed.env_file))
    if not any(given.get(name) for name in _OF_SERVICE):
        said = "Neither PUBLIC_URL nor REDIS_URL is set: this is not the service's environment."
        return alone, [skipped("settings", said)]
    filled = dict(environment)
    if not filled.get("PUBLIC_URL") and address is not None:
        filled["PUBLIC_URL"] = address.origin
    try:
        settings = Settings.load(filled)
    except SettingsError as error:
        if error.variable == "PUBLIC_URL" and not parsed.url:
            return alone, [skipped("settings", "Not looked at before public_url is well.")]
        found = CAUSES["setting_unusable"].finding(
            f"{error.variable} {error.problem}.",
            variable=error.variable,
            example=f"{error.variable}={error.example}",
        )
        return alone, [found]
    exposed = exposed_files(environment_of(parsed.env_file), parsed.env_file)
    deployment = deployment_of(settings, environment, exposed)
    return deployment, settings_findings(deployment)


def _twilio(parsed: argparse.Namespace) -> int:
    environment = secrets_read(environment_of(parsed.env_file))
    # No call is taken here: of all settings, these are needed.
    needed = {name: environment.get(name, "") for name in _OF_TWILIO}
    settings = Settings.load({**needed, "ALLOW_UNSIGNED": "public", "PUBSUB_ADAPTER": "memory"})
    if settings.public_url is None or not settings.public_url.is_public:
        problem = "is not a public https:// URL, and Twilio reaches no other"
        raise SettingsError("PUBLIC_URL", problem, "https://bridge.example.com")
    if missing := settings.twilio_api_lacks:
        raise SettingsError(missing, "is not set", "see Twilio's console")
    credentials = twilio_api.Credentials(
        settings.twilio_account_sid, settings.twilio_auth_token[0].reveal()
    )
    wanted = webhooks_of(settings.public_url.http_base)

    async def connect() -> bool:
        async with twilio_api.client() as client:
            account = TwilioAccount(
                client, settings.twilio_api_url, settings.twilio_monitor_url, credentials
            )
            return await connect_number(
                account, parsed.number, wanted, print, lambda: parsed.yes or _agrees()
            )

    return 0 if asyncio.run(connect()) else 1


def _agrees() -> bool:
    print("Set it so? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
