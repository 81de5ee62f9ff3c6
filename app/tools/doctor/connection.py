"""The way to the host: its name, its port, its certificate."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from app.diagnosis.causes import CAUSES
from app.diagnosis.findings import Finding, skipped, well
from app.hosts import is_address, is_public
from app.tools.doctor.address import Address

DAY_SECONDS = 86_400
SOON_DAYS = 14
# OpenSSL, x509_vfy.h: why a certificate was refused.
_REFUSED = {
    9: ("certificate_not_yet_valid", "Its certificate is not valid yet."),
    10: ("certificate_expired", "Its certificate has expired."),
    18: ("certificate_self_signed", "Its certificate is signed by itself."),
    19: ("certificate_self_signed", "Its certificate is of an authority that nobody knows."),
    20: ("certificate_chain_incomplete", "It does not send who signed its certificate."),
    21: ("certificate_chain_incomplete", "It sends its own certificate alone."),
    62: ("certificate_wrong_name", "Its certificate is for another name."),
    64: ("certificate_wrong_name", "Its certificate is for another address."),
}


@dataclass(frozen=True, slots=True)
class Connection:
    """How a host is reached. `context` knows the authorities; `wall_clock` gives Unix seconds."""

    address: Address
    context: ssl.SSLContext
    wall_clock: Callable[[], float]

    async def dns(self) -> Sequence[Finding]:
        """Look the name up."""
        host = self.address.host
        if is_address(host):
            return [skipped("dns", f"{host} is an address.")]
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, self.address.port, type=socket.SOCK_STREAM)
        except OSError as error:
            return [CAUSES["dns_no_such_host"].finding(f"{_words(error)}: {host}.", host=host)]
        addresses = sorted({str(one[4][0]) for one in found})
        if is_public(host) and not any(is_public(one) for one in addresses):
            said = f"{host} leads to {', '.join(addresses[:3])}, which is not public."
            return [CAUSES["dns_private"].finding(said, host=host)]
        return [well("dns", f"{host} leads to {', '.join(addresses[:3])}.")]

    async def tcp(self) -> Sequence[Finding]:
        """Connect to the port, and leave."""
        host, port = self.address.host, self.address.port
        try:
            _, writer = await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            said = f"{host} refuses connections to port {port}."
            return [CAUSES["tcp_refused"].finding(said)]
        except OSError as error:
            return [CAUSES["tcp_no_answer"].finding(f"{_words(error)}: {host}.", port=port)]
        writer.close()
        return [well("tcp", f"{host} takes connections to port {port}.")]

    async def tls(self) -> Sequence[Finding]:
        """Shake hands as Twilio does, and look at the certificate."""
        if not self.address.is_tls:
            return [skipped("tls", "It is called by http://, without a certificate.")]
        host, port = self.address.host, self.address.port
        names: dict[str, Any] = {"host": host, "port": port}
        try:
            _, writer = await asyncio.open_connection(
                host, port, ssl=self.context, server_hostname=host
            )
        except ssl.SSLCertVerificationError as error:
            cause, said = _REFUSED.get(
                error.verify_code, ("tls_failed", f"Its certificate is refused: {error.reason}.")
            )
            return [CAUSES[cause].finding(f"{said} ({error.verify_message})", **names)]
        except ssl.SSLError as error:
            return [_no_tls(error, names)]
        except OSError as error:
            said = f"The connection breaks off while TLS begins: {_words(error)}."
            return [CAUSES["tls_failed"].finding(said, **names)]
        days = self._days_left(writer.get_extra_info("peercert"))
        writer.close()
        if days is not None and days < SOON_DAYS:
            said = f"The certificate ends in {days:.0f} days."
            return [CAUSES["certificate_ends_soon"].finding(said, host=host)]
        return [well("tls", "The certificate is good for this host.")]

    def _days_left(self, certificate: dict[str, Any] | None) -> float | None:
        ends = (certificate or {}).get("notAfter")
        if not isinstance(ends, str):
            return None
        return (ssl.cert_time_to_seconds(ends) - self.wall_clock()) / DAY_SECONDS


def _no_tls(error: ssl.SSLError, names: dict[str, Any]) -> Finding:
    # What plain HTTP, or any text, looks like to OpenSSL.
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"):
        return CAUSES["tls_not_spoken"].finding("What answers on this port is not TLS.", **names)
    return CAUSES["tls_failed"].finding(f"No TLS comes about: {error.reason}.", **names)


def _words(error: OSError) -> str:
    return error.strerror or type(error).__name__
