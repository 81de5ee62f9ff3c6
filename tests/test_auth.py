"""Who is let in, and that nobody else is, whatever they send."""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from functools import partial

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from app.auth import (
    TICKET_MAX_CHARS,
    Ticket,
    TicketOffice,
    TicketUse,
    TwilioSignatures,
    constant_time_equal,
)
from app.carriers.authorization import Authorization, Proof, Purpose
from app.errors import (
    SignatureInvalid,
    SignatureMissing,
    TicketExpired,
    TicketInvalid,
    TicketMissing,
)

Params = Sequence[tuple[str, str]]

# The example of twilio.com/docs/usage/security.
OFFICIAL_PARAMS = [
    ("CallSid", "CA1234567890ABCDE"),
    ("Caller", "+14158675310"),
    ("Digits", "1234"),
    ("From", "+14158675310"),
    ("To", "+18005551212"),
]
OFFICIAL_SIGNATURE = "L/OH5YylLD5NRKLltdqwSvS0BnU="

TOKEN = "the-current-token"
OLD_TOKEN = "an-older-token"
HOST = "bridge.example.com"
SIGNATURES = TwilioSignatures([TOKEN, OLD_TOKEN], f"https://{HOST}", f"wss://{HOST}")
VOICE = f"https://{HOST}/twilio-voice"
MEDIA = f"wss://{HOST}/twilio-media"


def signed(url: str, params: Params = (), token: str = TOKEN) -> str:
    """Sign as Twilio's documentation says, and not as the code under test does."""
    text = url + "".join(name + value for name, value in sorted(params))
    digest = hmac.digest(token.encode(), text.encode(), hashlib.sha1)
    return base64.b64encode(digest).decode()


# --------------------------------------------------------------------- webhooks


def test_the_official_example_passes() -> None:
    signatures = TwilioSignatures(["12345"], "https://example.com", "wss://example.com")
    query = "foo=1&bar=2"
    good = [OFFICIAL_SIGNATURE]
    assert signatures.check_webhook("/myapp.php", query, OFFICIAL_PARAMS, good) == 0
    with pytest.raises(SignatureInvalid):
        signatures.check_webhook("/myapp.php", query, OFFICIAL_PARAMS[1:], good)


def test_the_token_that_signed_is_named() -> None:
    params = [("CallSid", "CA1")]
    for index, token in enumerate([TOKEN, OLD_TOKEN]):
        signature = signed(VOICE, params, token)
        assert SIGNATURES.check_webhook("/twilio-voice", "", params, [signature]) == index


@pytest.mark.parametrize(
    "params",
    [
        [],
        [("CallerZip", "")],
        [("A", "1"), ("a", "2"), ("B", "3")],
        [("name", "Zoë 👋"), ("city", "a&b=c d")],
        [("Media", "1"), ("Media", "2")],
        [("unknown-field", "x" * 1_000_000)],
    ],
    ids=["none", "blank", "case", "unicode", "repeated", "long"],
)
def test_every_field_of_the_form_is_part_of_what_is_signed(params: Params) -> None:
    signature = signed(VOICE, params)
    assert SIGNATURES.check_webhook("/twilio-voice", "", params, [signature]) == 0
    with pytest.raises(SignatureInvalid):
        SIGNATURES.check_webhook("/twilio-voice", "", [*params, ("Extra", "1")], [signature])


def test_a_field_that_is_repeated_as_it_was_counts_once_as_in_twilios_library() -> None:
    params = [("Media", "1"), ("Media", "1")]
    signature = RequestValidator(TOKEN).compute_signature(VOICE, {"Media": "1"})
    assert SIGNATURES.check_webhook("/twilio-voice", "", params, [signature]) == 0


def test_the_query_is_signed_byte_for_byte() -> None:
    query = "businessId=b-1&x=%2b&y=+"
    signature = signed(f"{VOICE}?{query}")
    assert SIGNATURES.check_webhook("/twilio-voice", query, [], [signature]) == 0
    for other in ("", "businessId=b-1&x=%2B&y=+", "businessId=b-1&x=+&y=+", query + "&"):
        with pytest.raises(SignatureInvalid):
            SIGNATURES.check_webhook("/twilio-voice", other, [], [signature])


@pytest.mark.parametrize(
    "base",
    ["https://h.example", "https://h.example:443", "https://h.example:8443", "http://[::1]:8000"],
)
@pytest.mark.parametrize("with_port", [True, False])
def test_a_signature_holds_with_and_without_the_port(base: str, with_port: bool) -> None:
    host, _, port = base.removeprefix("https://").removeprefix("http://").rpartition(":")
    if not port.isdigit():
        host, port = "h.example", "443"
    scheme = base.partition(":")[0]
    url = f"{scheme}://{host}" + (f":{port}" if with_port else "") + "/twilio-voice"
    signatures = TwilioSignatures([TOKEN], base, "wss://h.example")
    assert signatures.check_webhook("/twilio-voice", "", [], [signed(url)]) == 0


@pytest.mark.parametrize(
    "url",
    [
        f"http://{HOST}/twilio-voice",
        f"wss://{HOST}/twilio-voice",
        f"https://{HOST}/twilio-voice/",
        f"https://{HOST}/twilio-dial",
        f"https://{HOST}:8443/twilio-voice",
        "https://other.example.com/twilio-voice",
    ],
)
def test_a_signature_of_another_url_is_refused(url: str) -> None:
    with pytest.raises(SignatureInvalid):
        SIGNATURES.check_webhook("/twilio-voice", "", [], [signed(url)])


# ---------------------------------------------------------------------- headers


@pytest.mark.parametrize("signatures", [[], [""], ["", ""]])
def test_a_request_without_a_signature_says_so(signatures: list[str]) -> None:
    with pytest.raises(SignatureMissing):
        SIGNATURES.check_webhook("/twilio-voice", "", [], signatures)
    with pytest.raises(SignatureMissing):
        SIGNATURES.check_handshake("/twilio-media", "", signatures)


GOOD = signed(VOICE)


@pytest.mark.parametrize(
    "signatures",
    [
        [GOOD, GOOD],
        [GOOD, ""],
        [f"{GOOD}, {GOOD}"],
        [GOOD[:-1]],
        [GOOD.lower()],
        [GOOD + " "],
        [" "],
        ["ÄÖÜ"],
        ["\ud800"],
        ["\x00"],
        ["A" * 1_000_000],
        [signed(VOICE, token="a-stranger's")],
    ],
    ids=str.split(
        "two one-and-blank joined cut lower padded space umlauts surrogate nul long stranger"
    ),
)
def test_any_other_signature_is_invalid(signatures: list[str]) -> None:
    assert SIGNATURES.check_webhook("/twilio-voice", "", [], [GOOD]) == 0
    with pytest.raises(SignatureInvalid):
        SIGNATURES.check_webhook("/twilio-voice", "", [], signatures)
    with pytest.raises(SignatureInvalid):
        SIGNATURES.check_handshake("/twilio-media", "", signatures)


@pytest.mark.parametrize(
    ("path", "query", "params"),
    [
        ("/\ud800", "", []),
        ("/twilio-voice", "\ud800", []),
        ("/twilio-voice", "", [("\ud800", "x")]),
        ("/twilio-voice", "", [("x", "\ud800")]),
    ],
)
def test_what_is_not_unicode_cannot_have_been_signed(path: str, query: str, params: Params) -> None:
    with pytest.raises(SignatureInvalid):
        SIGNATURES.check_webhook(path, query, params, [GOOD])


anything = st.text(st.characters())


@given(anything, anything, st.lists(st.tuples(anything, anything)), st.lists(anything))
def test_whatever_a_stranger_sends_is_missing_or_invalid(
    path: str, query: str, params: Params, signatures: list[str]
) -> None:
    expected = SignatureInvalid if any(signatures) else SignatureMissing
    with pytest.raises(expected):
        SIGNATURES.check_webhook(path, query, params, signatures)
    with pytest.raises(expected):
        SIGNATURES.check_handshake(path, query, signatures)


def test_without_a_token_nothing_passes() -> None:
    nobody = TwilioSignatures([], f"https://{HOST}", f"wss://{HOST}")
    assert not nobody.configured
    assert SIGNATURES.configured
    for signature in (GOOD, signed(VOICE, token="")):
        with pytest.raises(SignatureInvalid):
            nobody.check_webhook("/twilio-voice", "", [], [signature])
    with pytest.raises(SignatureMissing):
        nobody.check_webhook("/twilio-voice", "", [], [])


# -------------------------------------------------------------------- handshakes


@pytest.mark.parametrize("path", ["/twilio-media", "/twilio-media/", "/twilio-media/shop"])
@pytest.mark.parametrize("slash", [True, False])
@pytest.mark.parametrize("port", ["", ":443"])
def test_a_handshake_is_signed_with_or_without_trailing_slash(
    path: str, slash: bool, port: str
) -> None:
    url = f"wss://{HOST}{port}{path.rstrip('/')}" + "/" * slash
    assert SIGNATURES.check_handshake(path, "", [signed(url)]) == 0


def test_a_handshake_names_the_old_token_too() -> None:
    assert SIGNATURES.check_handshake("/twilio-media", "", [signed(MEDIA, (), OLD_TOKEN)]) == 1


@pytest.mark.parametrize(
    "url",
    [
        f"https://{HOST}/twilio-media",
        f"ws://{HOST}/twilio-media",
        f"wss://{HOST}:80/twilio-media",
        f"{MEDIA}//",
        f"{MEDIA}?businessId=shop",
        f"{MEDIA}/shop",
    ],
)
def test_a_handshake_signed_for_another_url_is_refused(url: str) -> None:
    with pytest.raises(SignatureInvalid):
        SIGNATURES.check_handshake("/twilio-media", "", [signed(url)])


def test_a_handshakes_query_is_part_of_what_is_signed() -> None:
    query = "businessId=shop"
    assert SIGNATURES.check_handshake("/twilio-media", query, [signed(f"{MEDIA}?{query}")]) == 0
    with pytest.raises(SignatureInvalid):
        SIGNATURES.check_handshake("/twilio-media", query, [signed(MEDIA)])


# ----------------------------------------------------------------------- tickets

SECRET = "a secret of more than thirty-two characters"
NOW = 1_700_000_000.0
CALL = "CA0123456789abcdef0123456789abcdef"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


USE = TicketUse.TWILIO_MEDIA


def office(clock: Clock | None = None, *secrets: str) -> TicketOffice:
    return TicketOffice(secrets or (SECRET,), clock or Clock(), lambda: "0123456789abcdefABCDEF")


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def forged(key: bytes, algorithm: str = "HS256", **changed: object) -> str:
    """Make a ticket of our form by hand; a claim that is None is left out (RFC 7515, 3.1)."""
    claims = {"sub": CALL, "biz": "shop", "plan": "premium", "exp": int(NOW) + 60, "jti": "n"}
    changed_claims = {name: value for name, value in (claims | changed).items() if value}
    header = {"typ": "JWT", "alg": algorithm}
    parts = [base64url(json.dumps(part).encode()) for part in (header, changed_claims)]
    digests = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
    signature = b""
    if algorithm in digests:
        signature = hmac.digest(key, ".".join(parts).encode(), digests[algorithm])
    return ".".join([*parts, base64url(signature)])


KEY = hmac.digest(SECRET.encode(), b"stream-ticket", hashlib.sha256)


def test_a_ticket_says_whose_stream_it_admits() -> None:
    ticket = office().issue(CALL, "shop", "premium", USE)
    assert office().check(ticket, CALL, USE) == Ticket(
        CALL, "shop", "premium", "0123456789abcdefABCDEF", int(NOW) + 60
    )


def test_another_replica_with_the_same_secret_accepts_it_and_no_other_does() -> None:
    ticket = office().issue(CALL, "shop", "premium", USE)
    assert office(Clock()).check(ticket, CALL, USE).business_id == "shop"
    with pytest.raises(TicketInvalid):
        office(None, SECRET + "x").check(ticket, CALL, USE)


def test_a_ticket_lives_for_a_minute_by_the_given_clock() -> None:
    clock = Clock()
    ticket = office(clock).issue(CALL, "shop", "premium", USE)
    clock.now = NOW + 59.999
    assert office(clock).check(ticket, CALL, USE)
    clock.now = NOW + 60
    with pytest.raises(TicketExpired):
        office(clock).check(ticket, CALL, USE)
    clock.now = NOW + 61
    with pytest.raises(TicketExpired):
        office(clock).check(ticket, CALL, USE)


def test_each_key_of_a_rotation_verifies_and_the_first_signs() -> None:
    by_old, by_new = office(None, "old" * 12), office(None, "new" * 12, "old" * 12)
    assert by_new.check(by_old.issue(CALL, "shop", "premium", USE), CALL, USE)
    ticket = by_new.issue(CALL, "shop", "premium", USE)
    assert office(None, "new" * 12).check(ticket, CALL, USE)
    with pytest.raises(TicketInvalid):
        by_old.check(ticket, CALL, USE)


@pytest.mark.parametrize("issued_for", TicketUse)
@pytest.mark.parametrize("shown_at", TicketUse)
def test_a_ticket_is_good_at_its_endpoint_alone(issued_for: TicketUse, shown_at: TicketUse) -> None:
    ticket = office().issue(CALL, "shop", "premium", issued_for)
    if shown_at is issued_for:
        assert office().check(ticket, CALL, shown_at)
        assert office().read(ticket, shown_at)
    else:
        for read in (partial(office().check, ticket, CALL), partial(office().read, ticket)):
            with pytest.raises(TicketInvalid, match="another endpoint"):
                read(shown_at)


@pytest.mark.parametrize("use", ["", "stream-url", ["twilio"], 7, None, True])
def test_a_ticket_for_an_unknown_use_is_refused(use: object) -> None:
    key = hmac.digest(SECRET.encode(), b"stream-ticket", hashlib.sha256)
    claims = {"sub": CALL, "biz": "shop", "plan": "p", "exp": int(NOW) + 60, "jti": "n"}
    ticket = jwt.encode({**claims, "use": use}, key, algorithm="HS256")
    for shown_at in TicketUse:
        with pytest.raises(TicketInvalid):
            office().check(ticket, CALL, shown_at)


@pytest.mark.parametrize("shown_at", TicketUse)
def test_a_ticket_of_version_0_1_opens_a_stream_at_either_endpoint(shown_at: TicketUse) -> None:
    assert office().check(forged(KEY), CALL, shown_at)


@pytest.mark.parametrize("use", TicketUse)
@pytest.mark.parametrize("call_sid", [CALL, "url-0123"])
def test_version_0_1_reads_a_ticket_of_this_version(use: TicketUse, call_sid: str) -> None:
    """It decodes in this way (app/auth.py of commit 52a9209), and compares `sub` itself."""
    required = ["sub", "biz", "plan", "exp", "jti"]
    claims = jwt.decode(
        office().issue(call_sid, "shop", "premium", use),
        KEY,
        algorithms=["HS256"],
        options={"require": required, "verify_exp": False},
    )
    assert {name: claims[name] for name in required} == {
        **{"sub": call_sid, "biz": "shop", "plan": "premium"},
        **{"exp": int(NOW) + 60, "jti": "0123456789abcdefABCDEF"},
    }


def test_a_ticket_without_a_calls_id_is_for_any_call_at_ingest_alone() -> None:
    made_up = office().issue("url-1", "shop", "premium", TicketUse.INGEST)
    found = office().check(made_up, CALL, TicketUse.INGEST)
    assert found.authorization == Authorization(Proof.TICKET, Purpose.OPEN_STREAM, "shop")
    at_twilio = office().issue("url-1", "shop", "premium", TicketUse.TWILIO_MEDIA)
    with pytest.raises(TicketInvalid, match="another call"):
        office().check(at_twilio, CALL, TicketUse.TWILIO_MEDIA)


@pytest.mark.parametrize("use", TicketUse)
def test_a_ticket_permits_one_call_of_its_business(use: TicketUse) -> None:
    found = office().read(office().issue(CALL, "shop", "premium", use), use)
    permits = Authorization(Proof.TICKET, Purpose.OPEN_STREAM, "shop", CALL)
    assert found.authorization == permits


@pytest.mark.parametrize("call_sid", ["", CALL[:-1], CALL.lower(), "CA" + "0" * 32, "\ud800"])
def test_a_ticket_of_another_call_is_refused(call_sid: str) -> None:
    with pytest.raises(TicketInvalid, match="another call"):
        office().check(office().issue(CALL, "shop", "premium", USE), call_sid, USE)


@pytest.mark.parametrize("ticket", [None, ""])
def test_a_start_without_a_ticket_says_so(ticket: str | None) -> None:
    with pytest.raises(TicketMissing):
        office().check(ticket, CALL, USE)


def nested_header(depth: int) -> str:
    return base64url(b"[" * depth) + ".e30.x"


@pytest.mark.parametrize(
    "ticket",
    [
        "x",
        "a.b.c",
        "..",
        "\ud800",
        "ä" * 100,
        "x" * 100_000,
        nested_header(350),
        nested_header(100_000),
        forged(KEY, biz="b" * 600),
        forged(b"", "none"),
        forged(KEY, "HS384"),
        forged(KEY, "HS512"),
        forged(b"a key that is not ours, but is long enough"),
        forged(SECRET.encode()),
        forged(KEY, exp=None),
        forged(KEY, jti=None),
        forged(KEY, biz=None),
        forged(KEY, plan=None),
        forged(KEY, sub=None),
    ],
    ids=str.split(
        "letter dots-and-letters dots surrogate umlauts 100kB nested nested-deep too-long none "
        "HS384 HS512 other-key secret-as-key no-exp no-jti no-biz no-plan no-sub"
    ),
)
def test_a_forged_ticket_is_refused(ticket: str) -> None:
    assert office().check(forged(KEY), CALL, USE)
    with pytest.raises(TicketInvalid):
        office().check(ticket, CALL, USE)


def test_a_ticket_with_one_letter_changed_or_missing_is_refused() -> None:
    ticket = office().issue(CALL, "shop", "premium", USE)
    signature_at = ticket.rindex(".") + 1
    # The last letter of a signature holds two bits that stand for nothing.
    for at in range(len(ticket) - 1):
        other = "A" if ticket[at] != "A" else "B"
        with pytest.raises(TicketInvalid):
            office().check(ticket[:at] + other + ticket[at + 1 :], CALL, USE)
    for length in range(1, len(ticket)):
        with pytest.raises(TicketInvalid):
            office().check(ticket[:length], CALL, USE)
    claims = json.loads(base64.urlsafe_b64decode(ticket.split(".")[1] + "=="))
    claims["biz"] = "bank"
    altered = base64url(json.dumps(claims).encode())
    header = ticket.split(".")[0]
    with pytest.raises(TicketInvalid):
        office().check(f"{header}.{altered}.{ticket[signature_at:]}", CALL, USE)


@given(anything)
def test_no_text_is_a_ticket(text: str) -> None:
    with pytest.raises((TicketInvalid, TicketMissing)):
        office().check(text, CALL, USE)


def test_the_longest_ticket_fits_into_a_parameter() -> None:
    ticket = office().issue(CALL, "b" * 128, "p" * 64, USE)
    assert len(ticket) <= TICKET_MAX_CHARS
    assert office().check(ticket, CALL, USE).plan == "p" * 64


def test_neither_a_ticket_nor_its_nonce_is_shown() -> None:
    ticket = office().issue(CALL, "shop", "premium", USE)
    assert "0123456789abcdefABCDEF" not in repr(office().check(ticket, CALL, USE))
    with pytest.raises(TicketInvalid) as caught:
        office().check(ticket, "CA", USE)
    assert ticket not in str(caught.value)


# -------------------------------------------------------------------- comparing


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ("token", "token", True),
        ("token", "Token", False),
        ("token", "token ", False),
        ("", "", True),
        ("ä", "ä", True),
        ("ä", "a", False),
        ("\ud800", "\ud800", True),
        ("\ud800", "?", False),
    ],
)
def test_secrets_of_any_characters_compare(a: str, b: str, equal: bool) -> None:
    assert constant_time_equal(a, b) is equal
