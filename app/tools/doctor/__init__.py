"""The doctor: looks at a deployment from outside, as Twilio and Exotel do."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from app.diagnosis.causes import CAUSES
from app.diagnosis.findings import Finding
from app.diagnosis.steps import Step
from app.tools.doctor.address import Address
from app.tools.doctor.asking import Asker
from app.tools.doctor.connection import Connection
from app.tools.doctor.service import ServiceChecks
from app.tools.doctor.signing import SigningChecks
from app.tools.doctor.trial import TrialCall
from app.tools.doctor.upgrade import UpgradeChecks
from app.tools.doctor.witness import Witness

# A test call lasts a second, is waited for, and its receipt too.
CALL_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks: with which authorities, what they may show, and whom they know.

    `exotel_pair` is `KEY:TOKEN`, or empty; `wall_clock` gives Unix seconds; the test
    call goes to `business_id`, or to the first that the witness knows.
    """

    asker: Asker
    context: ssl.SSLContext
    wall_clock: Callable[[], float]
    witness: Witness
    exotel_pair: str = ""
    exotel_wanted: bool = False
    business_id: str = ""


def outside_steps(address: Address, visitor: Visitor) -> list[Step]:
    """Give every check from outside, in the order in which one needs the other."""
    way = Connection(address, visitor.context, visitor.wall_clock)
    service = ServiceChecks(address, visitor.asker, visitor.wall_clock)
    signing = SigningChecks(address, visitor.asker)
    sockets = UpgradeChecks(
        address, visitor.asker, visitor.context, visitor.exotel_pair, visitor.exotel_wanted
    )
    trial = TrialCall(address, visitor.asker, visitor.context, visitor.witness, visitor.business_id)

    def late(cause: str) -> Finding:
        return CAUSES[cause].finding(
            f"{address.host} does not answer in time.",
            host=address.host,
            port=address.port,
            url=address.origin,
            path="/twilio-media",
            status="with nothing",
            call_sid="of the test call",
        )

    return [
        Step("dns", way.dns, late("dns_no_such_host")),
        Step("tcp", way.tcp, late("tcp_no_answer"), ("dns",)),
        Step("tls", way.tls, late("tls_failed"), ("tcp",)),
        Step("redirect", service.redirect, late("no_http_answer"), ("tls",)),
        Step("health", service.health, late("no_http_answer"), ("redirect",)),
        Step("ready", service.ready, late("no_http_answer"), ("health",)),
        Step("clock", service.clock, late("no_http_answer"), ("health",)),
        Step("signature", signing.signature, late("webhook_unreachable"), ("health",)),
        Step("twilio_socket", sockets.twilio, late("socket_refused"), ("signature",), 10.0),
        Step("ingest_socket", sockets.ingest, late("ingest_upgrade_failed"), ("health",), 10.0),
        Step("twiml", trial.twiml, late("webhook_unreachable"), ("signature", "twilio_socket")),
        Step("test_call", trial.call, late("call_cut"), ("twiml",), CALL_SECONDS),
    ]
