"""Settings: what is read, what is refused, and how the refusal helps."""

import dataclasses
import hashlib
from collections.abc import Mapping

import pytest

from app.cli.target import admin_token_of
from app.errors import SettingsError
from app.settings import Adapter, PublicUrl, Secret, Settings, Unsigned
from app.settings.readers import split_operator

CANARY = "canary-5f1e0b"
GOOD = {
    "PUBLIC_URL": "https://bridge.example.com",
    "TWILIO_AUTH_TOKEN": "12345",
    "REDIS_URL": "redis://localhost:6379/0",
}
# Variables that are good only beside another.
PARTNERS = {
    "EXOTEL_API_KEY": {"EXOTEL_API_TOKEN": "current-token,older-token"},
    "EXOTEL_API_TOKEN": {"EXOTEL_API_KEY": "current-key,older-key"},
}
LOCAL = {"ALLOW_UNSIGNED": "true", "REDIS_URL": "redis://localhost:6379/0"}


def refused(environ: Mapping[str, str]) -> SettingsError:
    """Load what must be refused; the message is one line that names all three parts."""
    with pytest.raises(SettingsError) as caught:
        Settings.load(environ)
    error = caught.value
    message = str(error)
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    assert message.startswith(f"{error.variable} ")
    assert error.problem in message
    assert f"{error.variable}={error.example}" in message
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    return error


def test_defaults_are_those_of_the_contract() -> None:
    settings = Settings.load(GOOD)
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)
    assert settings.pubsub_adapter is Adapter.REDIS_STREAMS
    assert settings.allow_unsigned is Unsigned.NO
    assert not settings.waives_signatures
    assert (settings.log_format, settings.log_level) == ("console", "INFO")
    assert settings.log_phone_numbers == "masked"
    assert (settings.max_calls, settings.stream_start_timeout_seconds) == (1000, 5.0)
    assert (settings.broker_buffer_seconds, settings.broker_buffer_bytes) == (30.0, 268_435_456)
    assert settings.drain_seconds == 30.0
    assert settings.secret_key == ()
    assert settings.metrics_token == ()
    assert settings.businesses_file is None


@pytest.mark.parametrize("variable", dataclasses.fields(Settings), ids=lambda found: found.name)
def test_every_example_is_itself_accepted(variable: "dataclasses.Field[object]") -> None:
    # An example may be a shell's command, whose output is meant.
    example = variable.metadata["example"].replace("$(openssl rand -hex 32)", "0f" * 32)
    given = {variable.name.upper(): example}
    environ = {**GOOD, **PARTNERS.get(variable.name.upper(), {}), **given}
    if variable.name == "allow_unsigned":
        del environ["PUBLIC_URL"]
    loaded = Settings.load(environ)
    assert getattr(loaded, variable.name) is not None


def test_an_empty_variable_counts_as_unset() -> None:
    names = [variable.name.upper() for variable in dataclasses.fields(Settings)]
    assert Settings.load({**dict.fromkeys(names, ""), **GOOD}) == Settings.load(GOOD)


def test_other_variables_are_left_alone() -> None:
    assert Settings.load({**GOOD, "PORTAL": "x", "port": "1"}) == Settings.load(GOOD)


def test_auth_tokens_stand_in_the_order_given() -> None:
    settings = Settings.load({**GOOD, "TWILIO_AUTH_TOKEN": "new , older,oldest"})
    assert [token.reveal() for token in settings.twilio_auth_token] == ["new", "older", "oldest"]


TOKEN = "a-token-of-more-than-thirty-two-letters"
TOKEN_DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()
ZEROS, ONES = "0" * 64, "1" * 64


@pytest.mark.parametrize(
    ("value", "operators"),
    [
        (TOKEN, {TOKEN_DIGEST: ""}),
        (f"{TOKEN}, sha256-{ZEROS}", {TOKEN_DIGEST: "", ZEROS: ""}),
        (f"alice={TOKEN}", {TOKEN_DIGEST: "alice"}),
        (
            f"alice=sha256-{ZEROS}, Bob.B-2={TOKEN},sha256-{ONES}",
            {ZEROS: "alice", TOKEN_DIGEST: "Bob.B-2", ONES: ""},
        ),
        (f"sha256-{ZEROS},sha256-{ZEROS}", {ZEROS: ""}),
    ],
)
def test_keeps_operators_tokens_as_digests_only(value: str, operators: dict[str, str]) -> None:
    settings = Settings.load({**GOOD, "ADMIN_TOKEN": value})
    assert settings.operators == operators
    assert TOKEN not in repr(settings)
    assert Settings.load(GOOD).operators == {}


@pytest.mark.parametrize(
    "token",
    [
        "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=",
        "QUJDREVGR0hJSktMTU5PUFFSU1RVVlc=",  # 31 characters before the "="
        "QUJDREVGR0hJSktMTU5PUFFSU1RVVg==",
        "QUJDREVGR0hJSktMTU5PUFFSU1RVVlctLQ==",
        f"=={TOKEN}",
        f"2fa={TOKEN}",
        f"two words={TOKEN}",
        f"{'n' * 32}={TOKEN}",
    ],
)
def test_token_with_equals_sign_and_no_name_is_a_plain_token(token: str) -> None:
    digest = hashlib.sha256(token.encode()).hexdigest()
    assert Settings.load({**GOOD, "ADMIN_TOKEN": token}).operators == {digest: ""}
    assert split_operator(token) == ("", token)


def test_command_line_shows_a_named_operator_s_token_without_the_name() -> None:
    assert admin_token_of({"ADMIN_TOKEN": f"alice={TOKEN},bob=sha256-{ZEROS}"}) == TOKEN
    assert admin_token_of({"ADMIN_TOKEN": f"{TOKEN}="}) == f"{TOKEN}="
    assert admin_token_of({"ADMIN_TOKEN": f"bob=sha256-{ZEROS}"}) == ""


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (f"alice={TOKEN},alice=sha256-{ZEROS}", "'alice' twice"),
        (f"Alice={TOKEN},alice=sha256-{ZEROS}", "'alice' twice"),
        (f"alice={TOKEN},bob={TOKEN}", "one token under two names"),
        (f"alice={TOKEN},{TOKEN}", "one token under two names"),
        ("alice=short", "the one of alice"),
        (f"alice={'é' * 32}", "the one of alice"),
        ("alice=sha256-12", "sha256- and 64 hexadecimal digits"),
    ],
)
def test_unclear_operators_stop_the_start(value: str, words: str) -> None:
    error = refused({**GOOD, "ADMIN_TOKEN": value})
    assert words in str(error)
    assert TOKEN not in str(error)


LONG, LONGER = "a" * 32, "b" * 40


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        (LONG, [LONG]),
        (f" {LONG} ", [f" {LONG} "]),
        # The last is the text as version 0.1 reads it: one key.
        (f"{LONG},{LONGER}", [LONG, LONGER, f"{LONG},{LONGER}"]),
        (f"{LONG} , {LONGER}", [LONG, LONGER, f"{LONG} , {LONGER}"]),
        (f"{LONG},{LONG}", [LONG, f"{LONG},{LONG}"]),
        (f"pass\\,{LONG}", [f"pass,{LONG}", f"pass\\,{LONG}"]),
    ],
)
def test_secret_keys_are_separated_by_commas(value: str, keys: list[str]) -> None:
    settings = Settings.load({**GOOD, "SECRET_KEY": value})
    assert [key.reveal() for key in settings.secret_key] == keys


@pytest.mark.parametrize("value", [f"pass,{LONG}", f"{LONG},", f"{LONG},,{LONGER}"])
def test_a_comma_beside_a_short_key_stops_the_start_and_says_how_to_write_it(value: str) -> None:
    error = refused({**GOOD, "SECRET_KEY": value})
    assert error.variable == "SECRET_KEY"
    assert "written \\," in error.problem


@pytest.mark.parametrize(
    ("url", "http_base", "ws_base"),
    [
        ("https://a.example.com", "https://a.example.com", "wss://a.example.com"),
        ("HTTPS://A.Example.com", "https://a.example.com", "wss://a.example.com"),
        ("https://a.example.com:8443", "https://a.example.com:8443", "wss://a.example.com:8443"),
        ("http://localhost:8000", "http://localhost:8000", "ws://localhost:8000"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", "ws://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000", "ws://[::1]:8000"),
        ("http://192.168.1.7", "http://192.168.1.7", "ws://192.168.1.7"),
        ("http://bridge", "http://bridge", "ws://bridge"),
        ("http://media_bridge:8000", "http://media_bridge:8000", "ws://media_bridge:8000"),
        ("http://box.local", "http://box.local", "ws://box.local"),
        ("http://a.railway.internal", "http://a.railway.internal", "ws://a.railway.internal"),
    ],
)
def test_a_public_url_gives_both_bases(url: str, http_base: str, ws_base: str) -> None:
    public = Settings.load({**GOOD, "PUBLIC_URL": url}).public_url
    assert (public.http_base, public.ws_base) == (http_base, ws_base)


@pytest.mark.parametrize(
    ("url", "example"),
    [
        ("https://a.example.com/", "https://a.example.com"),
        ("https://a.example.com/voice", "https://a.example.com"),
        ("https://a.example.com:8443/x/", "https://a.example.com:8443"),
        ("https://a.example.com?x=1", "https://a.example.com"),
        ("https://a.example.com#x", "https://a.example.com"),
        ("https://me:word@a.example.com", "https://a.example.com"),
        ("https://me@a.example.com", "https://a.example.com"),
        ("http://a.example.com", "https://a.example.com"),
        ("http://8.8.8.8", "https://8.8.8.8"),
        ("http://[2606:4700::1111]", "https://[2606:4700::1111]"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("wss://a.example.com", "https://a.example.com"),
        ("ftp://a.example.com", "https://a.example.com"),
        ("a.example.com", "https://bridge.example.com"),
        ("https://", "https://bridge.example.com"),
        ("https://:8443", "https://bridge.example.com"),
        ("https://a.example.com:x", "https://bridge.example.com"),
        ("https://a.example.com:99999", "https://bridge.example.com"),
        ("https://[::1", "https://bridge.example.com"),
        ("https://a b.example.com", "https://bridge.example.com"),
        ("https://a\x1b[31m.example.com", "https://bridge.example.com"),
        ("https://a\u2028b.example.com", "https://bridge.example.com"),
        ("https://b\u00fcro.example.com", "https://bridge.example.com"),
        ("https://-a.example.com", "https://bridge.example.com"),
        ("https://a..example.com", "https://bridge.example.com"),
    ],
)
def test_a_wrong_public_url_is_answered_with_what_to_write(url: str, example: str) -> None:
    error = refused({**GOOD, "PUBLIC_URL": url})
    assert (error.variable, error.example) == ("PUBLIC_URL", example)


@pytest.mark.parametrize(
    ("base", "public"),
    [
        ("https://a.example.com", True),
        ("https://8.8.8.8", True),
        ("https://[2606:4700::1111]", True),
        ("https://localhost", False),
        ("https://127.0.0.1:8000", False),
        ("https://10.1.2.3", False),
        ("https://172.16.0.1", False),
        ("https://169.254.1.1", False),
        ("https://100.64.0.1", False),
        ("https://[::1]", False),
        ("https://[fd00::1]", False),
        ("https://bridge", False),
        ("https://box.local", False),
        ("https://box.local.", False),
        ("https://a.test", False),
        ("https://a.internal", False),
        ("https://notlocal.example", True),
    ],
)
def test_a_host_that_strangers_reach_is_public(base: str, public: bool) -> None:
    assert PublicUrl(base).is_public is public


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HOST", "0.0.0.0 8000"),
        ("HOST", "http://0.0.0.0"),
        ("CLIENT_ADDRESS_HEADER", "X-Real-IP, X-Forwarded-For"),
        ("CLIENT_ADDRESS_HEADER", "X Real IP"),
        ("CLIENT_ADDRESS_HEADER", "-"),
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("PORT", "80a"),
        ("PORT", "8_000"),
        ("PORT", "1.5"),
        ("PORT", "9" * 5000),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "http://localhost"),
        ("REDIS_URL", "redis+sentinel://localhost"),
        ("REDIS_URL", "redis://"),
        ("REDIS_URL", "redis://:6379"),
        ("REDIS_URL", "redis://localhost:99999"),
        ("REDIS_URL", "redis://localhost/first"),
        ("REDIS_URL", "redis://:pa#ss@localhost"),
        ("REDIS_URL", "redis://localhost/0#x"),
        ("REDIS_URL", "redis://:pa/ss@localhost"),
        ("REDIS_URL", "unix://"),
        ("PUBSUB_ADAPTER", "kafka"),
        ("TWILIO_ACCOUNT_SID", "AC123"),
        ("TWILIO_ACCOUNT_SID", "AC" + "0" * 31 + "G"),
        ("TWILIO_ACCOUNT_SID", "AC" + "0" * 32 + "\n"),
        ("TWILIO_ACCOUNT_SID", "SK" + "0" * 32),
        ("TWILIO_AUTH_TOKEN", ","),
        ("TWILIO_AUTH_TOKEN", "12345,"),
        ("TWILIO_AUTH_TOKEN", "12345,,67890"),
        ("SECRET_KEY", "k" * 31),
        ("METRICS_TOKEN", "m" * 32 + ","),
        ("JWT_SECRET", "j" * 31),
        ("ADMIN_TOKEN", "t" * 31),
        ("ADMIN_TOKEN", "t" * 32 + ","),
        ("ADMIN_TOKEN", "t" * 32 + ",short"),
        ("ADMIN_TOKEN", "é" * 32),
        ("ADMIN_TOKEN", "sha256-" + "0" * 63),
        ("ADMIN_TOKEN", "sha256-" + "G" * 64),
        ("ALLOW_UNSIGNED", "yes"),
        ("ALLOW_UNSIGNED", "1"),
        ("MAX_CALLS", "0"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "TRACE"),
        ("LOG_PHONE_NUMBERS", "none"),
        ("STREAM_START_TIMEOUT_SECONDS", "0"),
        ("STREAM_START_TIMEOUT_SECONDS", "61"),
        ("STREAM_START_TIMEOUT_SECONDS", "nan"),
        ("STREAM_START_TIMEOUT_SECONDS", "5s"),
        ("BROKER_BUFFER_SECONDS", "0.5"),
        ("BROKER_BUFFER_SECONDS", "601"),
        ("BROKER_BUFFER_SECONDS", "inf"),
        ("BROKER_BUFFER_BYTES", "1048575"),
        ("DRAIN_SECONDS", "-1"),
        ("DRAIN_SECONDS", "14401"),
        ("MEDIA_IDLE_SECONDS", "0.9"),
        ("MEDIA_IDLE_SECONDS", "3601"),
        ("JWT_JWKS_URL", "https://[::1"),
        ("JWT_JWKS_URL", "https://a.example.com:99999/jwks"),
        ("JWT_JWKS_URL", "https://a b.example.com/jwks"),
        ("JWT_JWKS_URL", "http://a.example.com/jwks"),
        ("TWILIO_API_URL", "http://api.twilio.com"),
        ("TWILIO_API_URL", "api.twilio.com"),
        ("TWILIO_API_URL", "https://api.twilio.com?x=1"),
        ("TWILIO_API_URL", "https://api.twilio.com#x"),
        ("TWILIO_API_URL", "https://me:word@api.twilio.com"),
    ],
)
def test_a_bad_value_stops_the_start_with_one_line(variable: str, value: str) -> None:
    assert refused({**GOOD, variable: value}).variable == variable


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost:6379/0",
        "redis://user:p%23ss@redis.example.com:6380/1",
        "rediss://:pass@redis.example.com:6380?ssl_cert_reqs=none",
        "redis://[::1]:6379",
        "unix:///run/redis.sock?db=1",
        "unix://user:pass@/run/redis.sock",
        "redis+sentinel://user:pass@one:26379,two:26379/mymaster/0",
        "rediss+cluster://:pass@one:6379,two:6379",
    ],
)
def test_a_redis_url_is_kept_as_written(url: str) -> None:
    loaded = Settings.load({**GOOD, "REDIS_URL": url})
    assert loaded.redis_url is not None
    assert loaded.redis_url.reveal() == url


def test_twilios_api_is_twilios_unless_another_is_named() -> None:
    assert Settings.load(GOOD).twilio_api_url == "https://api.twilio.com"
    named = Settings.load({**GOOD, "TWILIO_API_URL": "http://localhost:8080/stand-in/"})
    assert named.twilio_api_url == "http://localhost:8080/stand-in"


@pytest.mark.parametrize(
    ("given", "lacks"),
    [
        ({}, "TWILIO_ACCOUNT_SID"),
        ({"TWILIO_ACCOUNT_SID": "AC" + "0" * 32}, ""),
        ({"TWILIO_ACCOUNT_SID": "AC" + "0" * 32, "TWILIO_AUTH_TOKEN": ""}, "TWILIO_AUTH_TOKEN"),
    ],
)
def test_what_twilios_api_needs_is_known(given: Mapping[str, str], lacks: str) -> None:
    open_to_all = {"PUBLIC_URL": "http://localhost", "ALLOW_UNSIGNED": "true"}
    assert Settings.load({**GOOD, **open_to_all, **given}).twilio_api_lacks == lacks


@pytest.mark.parametrize("missing", ["PUBLIC_URL", "TWILIO_AUTH_TOKEN", "REDIS_URL"])
def test_what_serving_needs_is_asked_for_by_name(missing: str) -> None:
    assert refused({name: value for name, value in GOOD.items() if name != missing}).variable == (
        missing
    )


def test_a_missing_redis_url_points_at_make_run() -> None:
    error = refused({name: value for name, value in GOOD.items() if name != "REDIS_URL"})
    assert "make run" in error.problem


def test_the_memory_adapter_needs_no_redis() -> None:
    environ = {"ALLOW_UNSIGNED": "true", "PUBSUB_ADAPTER": "memory"}
    assert Settings.load(environ).redis_url is None


def test_unsigned_and_without_a_public_url_the_port_on_localhost_is_meant() -> None:
    settings = Settings.load({**LOCAL, "PORT": "8123"})
    assert settings.public_url.http_base == "http://localhost:8123"
    assert settings.waives_signatures


@pytest.mark.parametrize("unsigned", ["true", "public"])
def test_unsigned_listens_to_this_machine_alone_unless_a_host_is_named(unsigned: str) -> None:
    local = {**LOCAL, "ALLOW_UNSIGNED": unsigned}
    assert Settings.load(local).host == "127.0.0.1"
    assert Settings.load({**local, "HOST": ""}).host == "127.0.0.1"
    assert Settings.load({**local, "HOST": "0.0.0.0"}).host == "0.0.0.0"
    assert Settings.load({**GOOD, "ALLOW_UNSIGNED": "false"}).host == "0.0.0.0"


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        ("scrape-token-one", ["scrape-token-one"]),
        ("new-token,old-token", ["new-token", "old-token", "new-token,old-token"]),
        ("one\\,token", ["one,token", "one\\,token"]),
    ],
)
def test_metrics_tokens_are_separated_by_commas(value: str, tokens: list[str]) -> None:
    settings = Settings.load({**GOOD, "METRICS_TOKEN": value})
    assert [token.reveal() for token in settings.metrics_token] == tokens


@pytest.mark.parametrize("url", ["https://a.example.com", "https://8.8.8.8"])
def test_unsigned_on_a_public_host_must_be_said_outright(url: str) -> None:
    error = refused({**LOCAL, "PUBLIC_URL": url})
    assert (error.variable, error.example) == ("ALLOW_UNSIGNED", "public")
    outright = Settings.load({**LOCAL, "PUBLIC_URL": url, "ALLOW_UNSIGNED": "public"})
    assert outright.waives_signatures


def test_unsigned_on_a_private_https_host_is_local_use() -> None:
    assert Settings.load({**LOCAL, "PUBLIC_URL": "https://box.local"}).waives_signatures


@pytest.mark.parametrize(
    "given",
    [
        {"PUBLIC_URL": f"https://me:{CANARY}@a.example.com"},
        {"PUBLIC_URL": f"https://a.example.com/?token={CANARY}"},
        {"PUBLIC_URL": f"https://a.example.com:{CANARY}"},
        {"REDIS_URL": f"redis://:{CANARY}@localhost:99999"},
        {"REDIS_URL": f"redis://:{CANARY}#x@localhost"},
        {"REDIS_URL": f"redis://:x#{CANARY}@localhost"},
        {"REDIS_URL": f"redis://:x/{CANARY}@localhost"},
        {"REDIS_URL": f"redis://:x@localhost:{CANARY}"},
        {"REDIS_URL": f"http://:{CANARY}@localhost"},
        {"REDIS_URL": CANARY},
        {"REDIS_URL": f"redis+sentinel://:{CANARY}@localhost"},
        {"REDIS_URL": f"redis+cluster://:{CANARY}@localhost/7"},
        {"TWILIO_AUTH_TOKEN": f"{CANARY},"},
        {"SECRET_KEY": CANARY},
    ],
)
def test_no_refusal_shows_a_secret(given: dict[str, str]) -> None:
    assert CANARY not in str(refused({**GOOD, **given}))


def test_settings_can_be_shown_without_their_secrets() -> None:
    settings = Settings.load(
        {
            **GOOD,
            "REDIS_URL": f"redis://:{CANARY}@localhost",
            "TWILIO_AUTH_TOKEN": f"{CANARY},{CANARY}",
            "SECRET_KEY": CANARY * 4,
            "METRICS_TOKEN": CANARY,
        }
    )
    secret = Secret(CANARY)
    shown = [repr(settings), str(settings), repr(dataclasses.asdict(settings))]
    shown += [repr(secret), str(secret), f"{secret}", f"{secret!r}", "%s" % secret]  # noqa: UP031
    assert not [text for text in shown if CANARY in text]
    assert secret.reveal() == CANARY
    assert (secret == Secret(CANARY), secret == Secret("other")) == (True, False)


def test_settings_do_not_change() -> None:
    settings = Settings.load(GOOD)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]


def test_the_name_of_a_header_may_be_written_in_any_case() -> None:
    assert Settings.load(GOOD).client_address_header == "x-forwarded-for"
    given = Settings.load({**GOOD, "CLIENT_ADDRESS_HEADER": "X-Real-IP"})
    assert given.client_address_header == "x-real-ip"
