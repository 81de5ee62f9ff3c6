"""A certificate authority for a test, and loopback servers' certificates from it."""

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)
LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Holder:
    """Whoever has a certificate, and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def sign(self, name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        """Begin a certificate that this one signs."""
        return _certificate(_name(name), self.certificate.subject, key.public_key())

    def server(
        self,
        names: tuple[str, ...] = LOOPBACK,
        *,
        begins: datetime.timedelta = -HOUR,
        ends: datetime.timedelta = 90 * DAY,
    ) -> "Holder":
        """Issue a server's certificate, from and until so long from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _certificate(
            _name(names[-1]), self.certificate.subject, key.public_key(), begins, ends
        ).add_extension(x509.SubjectAlternativeName(list(map(_alternative, names))), critical=False)
        builder = builder.add_extension(self._mark, critical=False)
        return Holder(builder.sign(self.key, hashes.SHA256()), key)

    def authority(self) -> "Holder":
        """Issue the certificate of an authority below this one."""
        key = ec.generate_private_key(ec.SECP256R1())
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        builder = self.sign("authority below", key).add_extension(constraints, critical=True)
        builder = _of_authority(builder, key).add_extension(self._mark, critical=False)
        return Holder(builder.sign(self.key, hashes.SHA256()), key)

    @classmethod
    def root(cls, called: str = "authority") -> Self:
        """Make an authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(called)
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        builder = _certificate(name, name, key.public_key(), ends=90 * DAY)
        builder = _of_authority(builder.add_extension(constraints, critical=True), key)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @property
    def _mark(self) -> x509.AuthorityKeyIdentifier:
        """Name this key in what it signs: from 3.13, Python demands it (RFC 5280, 4.2.1.1)."""
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())

    @property
    def pem(self) -> bytes:
        """Give the certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """Give the key, not encrypted."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def serving(self, directory: Path) -> ssl.SSLContext:
        """Give a server's context that shows this certificate, and no other."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "shown.crt").write_bytes(self.pem)
        (directory / "shown.key").write_bytes(self.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "shown.crt", directory / "shown.key")
        return context


def certificates(directory: Path, name: str = "localhost") -> Path:
    """Write `ca.crt`, `server.crt` and `server.key`, for 127.0.0.1 and `name`; give where."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = Holder.root(f"authority of {name}")
    server = authority.server(("127.0.0.1", name))
    (directory / "ca.crt").write_bytes(authority.pem)
    (directory / "server.crt").write_bytes(server.pem)
    (directory / "server.key").write_bytes(server.key_pem)
    return directory


def _of_authority(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    """Say what an authority's key is for, and its name (RFC 5280, 4.2.1.2 and 4.2.1.3)."""
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
             "key_agreement", "encipher_only", "decipher_only")  # fmt: skip
    usage = x509.KeyUsage(key_cert_sign=True, crl_sign=True, **dict.fromkeys(names, False))
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return builder.add_extension(usage, critical=True).add_extension(identifier, critical=False)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begins: datetime.timedelta = -HOUR,
    ends: datetime.timedelta = DAY,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
    )
