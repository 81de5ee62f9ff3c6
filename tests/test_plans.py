"""How businesses and plans are read, and what a file may not say."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigurationError, FieldsInvalid
from app.media import Encoding, MediaFormat, Track
from app.plans import (
    AFTER_STREAM,
    BUSINESS_FIELDS,
    E164,
    IDENTIFIER,
    PLAN_FIELDS,
    PLAN_NAME,
    Business,
    Field,
    Plan,
    TrackPlan,
    from_texts,
    make_business,
    make_plan,
    parse_directory,
)

PLAN = "[plans.premium]\nmax_concurrent_calls = 5\n"
BUSINESS = '[businesses.shop]\nname = "Shop"\nplan = "premium"\nnumbers = ["+12763659195"]\n'


def test_a_whole_file_is_read() -> None:
    directory = parse_directory(
        """
        [plans.premium]
        max_concurrent_calls = 10
        max_call_seconds = 14400
        tracks = "both"
        encoding = "mulaw"
        sample_rate = 16000
        frame_ms = 100
        retention_seconds = 604800
        return_audio = true
        max_calls_per_second = 2.5
        calls_per_month_soft = 900
        calls_per_month_hard = 1000
        minutes_per_month_soft = 4500
        minutes_per_month_hard = 5000
        allowed_destinations = ["own", "CA"]

        [businesses.business-1]
        name = "Example Business"
        plan = "premium"
        numbers = ["+15005550006", "+442079460000"]
        forward_to = "sip:desk@example.com;transport=tls"
        greeting = "Grüß Gott! 👋"
        busy_message = "Later, please."
        after_stream = ""
        country = "IN"
        consent_notice = "This call is recorded."
        not_answered = "Nobody is here."
        usage_webhook_url = "https://example.com/usage?of=business-1"
        twilio_account_sid = "AC0123456789abcdef0123456789abcdef"
        capture_calls = true
        """,
        "businesses.toml",
    )
    assert directory.plans == (
        Plan(
            *("premium", 10, 14400, TrackPlan.BOTH, Encoding.MULAW, 16000, 100, 604800, True, 2.5),
            *(900, 1000, 4500, 5000),
            allowed_destinations=("own", "CA"),
        ),
    )
    assert directory.businesses == (
        Business(
            "business-1",
            "Example Business",
            "premium",
            ("+15005550006", "+442079460000"),
            "sip:desk@example.com;transport=tls",
            "Grüß Gott! 👋",
            "Later, please.",
            "",
            "IN",
            consent_notice="This call is recorded.",
            not_answered="Nobody is here.",
            usage_webhook_url="https://example.com/usage?of=business-1",
            twilio_account_sid="AC0123456789abcdef0123456789abcdef",
            capture_calls=True,
        ),
    )


def test_what_is_left_out_has_a_default() -> None:
    directory = parse_directory("[plans.premium]\n" + BUSINESS, "f")
    assert directory.plans == (
        Plan(
            "premium", 10, 3600, TrackPlan.INBOUND, Encoding.PCM16, 8000, 20, 3600, False, math.inf
        ),
    )
    assert directory.businesses == (
        Business("shop", "Shop", "premium", ("+12763659195",), "", "", "", AFTER_STREAM),
    )


def test_an_empty_file_names_nobody() -> None:
    directory = parse_directory("", "f")
    assert (directory.plans, directory.businesses) == ((), ())


def test_the_shipped_example_is_read() -> None:
    path = Path(__file__).parent.parent / "businesses.toml"
    directory = parse_directory(path.read_text(encoding="utf-8"), path.name)
    assert {"business-1": "premium"}.items() <= {
        business.id: business.plan for business in directory.businesses
    }.items()


@pytest.mark.parametrize(
    ("field", "good"),
    [
        ("max_concurrent_calls", ["1", "100000"]),
        ("max_call_seconds", ["1", "14400"]),
        ("tracks", ['"inbound"', '"both"']),
        ("encoding", ['"pcm16"', '"mulaw"']),
        ("sample_rate", ["8000", "16000", "24000"]),
        ("frame_ms", ["20", "1000"]),
        ("retention_seconds", ["1", "604800"]),
        ("return_audio", ["true", "false"]),
        ("max_calls_per_second", ["0.01", "2.5", "1000", "inf"]),
        ("calls_per_month_soft", ["1", "1000000000", "inf"]),
        ("calls_per_month_hard", ["1", "1000000000", "inf"]),
        ("minutes_per_month_soft", ["1", "1000000000", "inf"]),
        ("minutes_per_month_hard", ["1", "1000000000", "inf"]),
    ],
)
def test_each_plan_field_takes_its_range(field: str, good: list[str]) -> None:
    for value in good:
        (plan,) = parse_directory(f"[plans.p]\n{field} = {value}", "f").plans
        assert plan.as_fields()[field] == value.strip('"')


@pytest.mark.parametrize(
    ("field", "bad", "problem"),
    [
        ("max_concurrent_calls", "0", "must be 1 to 100000, is 0"),
        ("max_concurrent_calls", "100001", "must be 1 to 100000, is 100001"),
        ("max_concurrent_calls", "-1", "must be 1 to 100000, is -1"),
        ("max_concurrent_calls", '"5"', "must be a whole number"),
        ("max_concurrent_calls", "5.0", "must be a whole number"),
        ("max_concurrent_calls", "true", "must be a whole number"),
        ("max_call_seconds", "14401", "must be 1 to 14400, is 14401"),
        ("tracks", '"outbound"', "must be one of: inbound, both"),
        ("tracks", '["inbound"]', "must be one of: inbound, both"),
        ("encoding", '"PCM16"', "must be one of: pcm16, mulaw"),
        ("sample_rate", "44100", "must be one of: 8000, 16000, 24000 (Hz)"),
        ("sample_rate", "8000.0", "must be one of: 8000, 16000, 24000 (Hz)"),
        ("frame_ms", "19", "must be 20 to 1000, is 19"),
        ("frame_ms", "1001", "must be 20 to 1000, is 1001"),
        ("retention_seconds", "604801", "must be 1 to 604800, is 604801"),
        ("return_audio", "1", "must be true or false"),
        ("max_calls_per_second", "0", "must be 0.01 to 1000, or inf, is 0"),
        ("max_calls_per_second", "-inf", "must be 0.01 to 1000, or inf, is -inf"),
        ("max_calls_per_second", "nan", "must be 0.01 to 1000, or inf, is nan"),
        ("max_calls_per_second", "1001", "must be 0.01 to 1000, or inf, is 1001"),
        ("max_calls_per_second", '"5"', "must be a number"),
        ("max_calls_per_second", "true", "must be a number"),
        ("calls_per_month_hard", "0", "must be 1 to 1000000000, or inf for no limit, is 0"),
        ("calls_per_month_soft", "1000000001", "must be 1 to 1000000000, or inf for no limit, is"),
        ("calls_per_month_soft", f"1{'0' * 30}", "must be 1 to 1000000000, or inf for no"),
        ("minutes_per_month_hard", "2.5", "must be a whole number, or inf for no limit"),
        ("minutes_per_month_hard", "-inf", "must be a whole number, or inf for no limit"),
        ("minutes_per_month_soft", "nan", "must be a whole number, or inf for no limit"),
        ("minutes_per_month_soft", "true", "must be a whole number, or inf for no limit"),
        ("frame_sm", "20", "is unknown; did you mean 'frame_ms'?"),
        ("colour", "20", "is unknown"),
        ("name", '"p"', "is unknown"),
    ],
)
def test_a_bad_plan_field_is_named_with_its_problem(field: str, bad: str, problem: str) -> None:
    expected = re.escape(f"plans.toml: [plans.p] {field}: {problem}")
    with pytest.raises(ConfigurationError, match=expected):
        parse_directory(f"[plans.p]\n{field} = {bad}", "plans.toml")


@pytest.mark.parametrize(
    ("field", "bad", "problem"),
    [
        ("name", '""', "must not be empty"),
        ("name", '"  "', "must not be empty"),
        ("name", "5", "must be text"),
        ("plan", '"premum"', "there is no plan 'premum'; did you mean 'premium'?"),
        ("plan", '"a b"', "must be 1 to 64 of A-Z a-z 0-9 _ . -"),
        ("numbers", '"+12763659195"', 'must be a list, such as ["+15005550006"]'),
        ("numbers", '["12763659195"]', "must be a number in E.164 form, such as +15005550006"),
        ("numbers", '["+0123"]', "must be a number in E.164 form, such as +15005550006"),
        ("numbers", '["+1234567890123456"]', "must be a number in E.164 form"),
        ("numbers", '["+1 276 365 9195"]', "must be a number in E.164 form"),
        ("numbers", '["+١٢٣"]', "must be a number in E.164 form"),
        ("numbers", "[12763659195]", "must be text"),
        ("numbers", '["+15005550006", "+15005550006"]', "names a number twice"),
        ("forward_to", '"5005550006"', "must be a number such as +15005550006, or sip:"),
        ("forward_to", '"sip:desk"', "must be a number such as +15005550006, or sip:"),
        ("forward_to", '"sip:a@b@c"', "must be a number such as +15005550006, or sip:"),
        ("forward_to", '"http://a@b"', "must be a number such as +15005550006, or sip:"),
        ("forward_to", f'"sip:a@{"b" * 250}"', "must be a number such as +15005550006, or"),
        ("greeting", f'"{"x" * 501}"', "must be at most 500 characters, has 501"),
        ("busy_message", "false", "must be text"),
        ("after_stream", "[]", "must be text"),
        ("consent_notice", f'"{"x" * 501}"', "must be at most 500 characters, has 501"),
        ("not_answered", "5", "must be text"),
        ("greeting", r'"Hello\nworld"', "must be one line without control characters"),
        ("consent_notice", r'"Hello\u0000"', "must be one line without control characters"),
        ("consent_notice", r'"Hello\u0085world"', "must be one line without control characters"),
        ("busy_message", r'"Hello\u2028world"', "must be one line without control characters"),
        ("not_answered", r'"Hello\u202Edlrow"', "must not hold marks that change the direction"),
        ("name", r'"Shop\u200F"', "must not hold marks that change the direction"),
        ("name", r'"Shop\u2066"', "must not hold marks that change the direction"),
        ("usage_webhook_url", '"http://example.com/"', "must be an https URL"),
        ("usage_webhook_url", '"https://"', "must be an https URL"),
        ("usage_webhook_url", '"https://user:word@example.com/"', "must be an https URL"),
        ("usage_webhook_url", '"https://example.com/#part"', "must be an https URL"),
        ("usage_webhook_url", '"https://example.com:port/"', "must be an https URL"),
        ("usage_webhook_url", '"https://exa mple.com/"', "must be an https URL"),
        ("usage_webhook_url", '"https://exämple.com/"', "must be an https URL"),
        ("usage_webhook_url", r'"https://example.com/\nx"', "must be an https URL"),
        ("usage_webhook_url", '"https://[::1/"', "must be an https URL"),
        ("usage_webhook_url", f'"https://e.com/{"x" * 500}"', "must be at most 500 characters"),
        ("capture_calls", '"yes"', "must be true or false"),
        ("capture_calls", "1", "must be true or false"),
        ("twilio_account_sid", '"AC123"', "must be AC and 32 of 0-9 a-f"),
        ("twilio_account_sid", f'"SK{"0" * 32}"', "must be AC and 32 of 0-9 a-f"),
        ("country", '"in"', "must be two capital letters of a country"),
        ("exotel_pairs", '["key"]', "must hold pairs of the form KEY:TOKEN"),
        ("exotel_pairs", r'["key:to\nken"]', "must hold pairs of the form KEY:TOKEN"),
        ("numbers", str([f"+1500555{n:04}" for n in range(501)]), "must be at most 500 numbers"),
        ("greting", '"Hello"', "is unknown; did you mean 'greeting'?"),
        ("id", '"shop"', "is unknown"),
    ],
)
def test_a_bad_business_field_is_named_with_its_problem(field: str, bad: str, problem: str) -> None:
    table = {"name": '"Shop"', "plan": '"premium"', "numbers": "[]", field: bad}
    lines = "\n".join(f"{key} = {value}" for key, value in table.items())
    expected = re.escape(f"b.toml: [businesses.shop] {field}: {problem}")
    with pytest.raises(ConfigurationError, match=expected):
        parse_directory(f"{PLAN}[businesses.shop]\n{lines}\n", "b.toml")


@pytest.mark.parametrize("missing", ["name", "plan", "numbers"])
def test_a_business_must_have_a_name_a_plan_and_numbers(missing: str) -> None:
    text = "\n".join(line for line in BUSINESS.splitlines() if not line.startswith(missing))
    with pytest.raises(ConfigurationError, match=rf"\[businesses.shop\] {missing}: is missing"):
        parse_directory(PLAN + text, "f")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[plans.premium", "is not TOML: "),
        ("a = " + "[" * 5000, "is not TOML: "),
        ("a = " + "9" * 5000, "is not TOML: "),
        ("[plan.premium]", "plan: is unknown; did you mean 'plans'?"),
        ("plans = 5", "plans: must be tables, written [plans.NAME]"),
        ("[plans]\npremium = 5", "[plans] premium: must be a table, written [plans.premium]"),
        ('[plans."a b"]', "[plans.a b] name: must be 1 to 64 of"),
        (f"[plans.{'x' * 65}]", "name: must be 1 to 64 of"),
        (f'{PLAN}[businesses."ü"]\nname = "Ü"\nplan = "premium"\nnumbers = []', "id: must be 1"),
        ('[plans.""]', "[plans.] name: must be 1 to 64 of"),
    ],
)
def test_a_file_of_another_shape_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^file\.toml: .*" + re.escape(problem)):
        parse_directory(text, "file.toml")


def test_a_number_belongs_to_one_business() -> None:
    other = BUSINESS.replace("[businesses.shop]", "[businesses.bank]")
    problem = r"\[businesses.bank\] numbers: \+12763659195 belongs to 'shop' already"
    with pytest.raises(ConfigurationError, match=problem):
        parse_directory(PLAN + BUSINESS + other, "f")


# --------------------------------------------------------------- stored fields

MARKS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters=MARKS),
    max_size=500,
).map(str.strip)
months = st.integers(1, 1_000_000_000)
limits = st.tuples(months | st.just(math.inf), months | st.just(math.inf)).map(sorted)
numbers = st.from_regex(E164, fullmatch=True)
plans = st.builds(
    lambda calls, minutes, **others: Plan(
        calls_per_month_soft=calls[0],
        calls_per_month_hard=calls[1],
        minutes_per_month_soft=minutes[0],
        minutes_per_month_hard=minutes[1],
        **others,
    ),
    calls=limits,
    minutes=limits,
    name=st.from_regex(PLAN_NAME, fullmatch=True),
    max_concurrent_calls=st.integers(1, 100_000),
    max_call_seconds=st.integers(1, 14_400),
    tracks=st.sampled_from(TrackPlan),
    encoding=st.sampled_from(Encoding),
    sample_rate=st.sampled_from([8000, 16000, 24000]),
    frame_ms=st.integers(20, 1000),
    retention_seconds=st.integers(1, 604_800),
    return_audio=st.booleans(),
    max_calls_per_second=st.floats(0.01, 1_000) | st.just(math.inf),
)
businesses = st.builds(
    Business,
    id=st.from_regex(IDENTIFIER, fullmatch=True),
    name=texts.filter(str.strip),
    plan=st.from_regex(PLAN_NAME, fullmatch=True),
    numbers=st.lists(numbers, unique=True, max_size=5).map(tuple),
    forward_to=st.just("") | numbers | st.just("sip:desk@example.com"),
    greeting=texts,
    busy_message=texts,
    after_stream=texts,
    country=st.sampled_from(["", "IN", "US"]),
    consent_notice=texts,
    not_answered=texts,
    usage_webhook_url=st.sampled_from(["", "https://example.com:8443/a?b=c", "https://[::1]/"]),
    twilio_account_sid=st.just("") | st.from_regex(r"AC[0-9a-f]{32}", fullmatch=True),
    capture_calls=st.booleans(),
    exotel_pairs=st.lists(
        st.from_regex(r"[0-9a-f]{64}", fullmatch=True), unique=True, max_size=3
    ).map(tuple),
)


@given(plans)
def test_a_plan_is_the_same_after_it_was_stored(plan: Plan) -> None:
    assert Plan.from_fields(plan.as_fields()) == plan


@given(businesses)
def test_a_business_is_the_same_after_it_was_stored(business: Business) -> None:
    assert Business.from_fields(business.as_fields()) == business


def test_stored_text_that_an_earlier_version_took_is_cleaned() -> None:
    stored = {**Business("shop", "Shop", "p").as_fields(), "greeting": " Good\nday\u202e!\x00"}
    assert Business.from_fields(stored).greeting == "Good day!"


def test_stored_fields_of_an_earlier_version_have_the_defaults_of_the_new_ones() -> None:
    plan, business = Plan("premium"), Business("shop", "Shop", "premium")
    new = {"calls_per_month_hard", "minutes_per_month_soft", "consent_notice", "not_answered"}
    for record in (plan, business):
        old = {name: text for name, text in record.as_fields().items() if name not in new}
        assert type(record).from_fields(old) == record


def test_stored_fields_of_a_later_version_are_ignored() -> None:
    plan = Plan("premium")
    assert Plan.from_fields({**plan.as_fields(), "colour": "yellow"}) == plan


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("name", ""),
        ("max_concurrent_calls", "many"),
        ("max_concurrent_calls", "9" * 5000),
        ("frame_ms", "19"),
        ("return_audio", "True"),
        ("tracks", ""),
    ],
)
def test_a_stored_plan_that_cannot_be_is_refused(field: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f" {field}: "):
        Plan.from_fields({**Plan("premium").as_fields(), field: text})


@pytest.mark.parametrize(
    ("field", "text"), [("id", "a b"), ("name", ""), ("numbers", "+1,"), ("greeting", "\ud800")]
)
def test_a_stored_business_that_cannot_be_is_refused(field: str, text: str) -> None:
    stored = {**Business("shop", "Shop", "premium").as_fields(), field: text}
    with pytest.raises(ConfigurationError, match=f" {field}: "):
        Business.from_fields(stored)


# ------------------------------------------------------------- what an admin sends


def test_every_problem_of_a_plan_is_told_at_once() -> None:
    with pytest.raises(FieldsInvalid) as refused:
        make_plan("a b", {"frame_ms": 19, "encoding": None, "colour": 1, "sample_rate": 8000})
    assert refused.value.problems == {
        "colour": "is unknown",
        "encoding": "must be one of: pcm16, mulaw",
        "frame_ms": "must be 20 to 1000, is 19",
        "name": "must be 1 to 64 of A-Z a-z 0-9 _ . -",
    }


def test_every_problem_of_a_business_is_told_at_once() -> None:
    with pytest.raises(FieldsInvalid) as refused:
        make_business(5, {"name": " ", "numbers": ["+1"], "greting": "Hello"})
    assert refused.value.problems == {
        "greting": "is unknown; did you mean 'greeting'?",
        "plan": "is missing",
        "name": "must not be empty",
        "numbers": "must be a number in E.164 form, such as +15005550006",
        "id": "must be text",
    }


@pytest.mark.parametrize("what", ["calls", "minutes"])
def test_a_soft_limit_is_not_above_the_hard_one(what: str) -> None:
    soft, hard = f"{what}_per_month_soft", f"{what}_per_month_hard"
    with pytest.raises(FieldsInvalid) as refused:
        make_plan("p", {soft: 101, hard: 100})
    assert refused.value.problems == {soft: f"must be at most {hard}, which is 100, or inf"}
    for good in ({soft: 100, hard: 100}, {soft: math.inf, hard: 100}, {soft: 9}, {hard: 9}):
        make_plan("p", good)


def test_text_around_which_there_is_space_is_trimmed() -> None:
    sid = f"AC{'0' * 32}"
    business = make_business(
        "shop",
        {
            **{"name": " Shop ", "plan": "p", "numbers": [], "greeting": "\tHello \n"},
            **{"usage_webhook_url": " https://a.b/ ", "twilio_account_sid": f" {sid}\n"},
        },
    )
    assert (business.name, business.greeting) == ("Shop", "Hello")
    assert (business.usage_webhook_url, business.twilio_account_sid) == ("https://a.b/", sid)


@pytest.mark.parametrize(
    ("record", "known"), [(Plan("p"), PLAN_FIELDS), (Business("b", "B", "p"), BUSINESS_FIELDS)]
)
def test_each_field_of_a_record_says_its_effect_in_a_sentence(
    record: Plan | Business, known: Mapping[str, Field]
) -> None:
    key = "name" if isinstance(record, Plan) else "id"
    assert {*known, key} == set(record.as_fields())
    for field in known.values():
        assert field.effect[0].isupper()
        assert field.effect.endswith(".")


def test_what_a_form_cannot_be_read_as_is_refused_by_its_check() -> None:
    form = {"max_concurrent_calls": "many", "return_audio": "yes", "calls_per_month_hard": "inf"}
    with pytest.raises(FieldsInvalid) as refused:
        make_plan("p", from_texts(form, PLAN_FIELDS))
    assert refused.value.problems == {
        "max_concurrent_calls": "must be a whole number",
        "return_audio": "must be true or false",
    }


def test_a_number_of_no_country_has_no_national_form() -> None:
    assert Business("b", "B", "p", ("+2105550006",), country="IN").dialled_forms == ("+2105550006",)


# ------------------------------------------------------------- what a plan means


def test_a_plan_names_what_is_published() -> None:
    plan = Plan("p", encoding=Encoding.MULAW, sample_rate=16000)
    assert plan.published_format == MediaFormat(Encoding.MULAW, 16000, 1)
    assert plan.published_tracks == (Track.INBOUND,)
    both = replace(plan, tracks=TrackPlan.BOTH)
    assert both.published_tracks == (Track.INBOUND, Track.OUTBOUND)


@pytest.mark.parametrize(
    ("frame_ms", "retention_seconds", "tracks", "entries"),
    [
        (20, 3600, TrackPlan.INBOUND, 180_000),
        (20, 3600, TrackPlan.BOTH, 360_000),
        (100, 60, TrackPlan.INBOUND, 600),
        (1000, 1, TrackPlan.BOTH, 2),
        # Two carrier frames of 20 ms fit into 50 ms.
        (50, 1, TrackPlan.INBOUND, 25),
        # Rounded up: 3 entries of 300 ms would hold less than a second.
        (300, 1, TrackPlan.INBOUND, 4),
    ],
)
def test_a_stream_is_long_enough_for_its_retention(
    frame_ms: int, retention_seconds: int, tracks: TrackPlan, entries: int
) -> None:
    plan = Plan("p", frame_ms=frame_ms, retention_seconds=retention_seconds, tracks=tracks)
    assert plan.max_entries == entries
