"""How businesses and plans are read, and what a file may not say."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigurationError
from app.media import Encoding, MediaFormat, Track
from app.plans import (
    AFTER_STREAM,
    E164,
    IDENTIFIER,
    PLAN_NAME,
    Business,
    Plan,
    TrackPlan,
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

        [businesses.business-1]
        name = "Example Business"
        plan = "premium"
        numbers = ["+15005550006", "+442079460000"]
        forward_to = "sip:desk@example.com;transport=tls"
        greeting = "Grüß Gott! 👋"
        busy_message = "Later, please."
        after_stream = ""
        """,
        "businesses.toml",
    )
    assert directory.plans == (
        Plan("premium", 10, 14400, TrackPlan.BOTH, Encoding.MULAW, 16000, 100, 604800, True, 2.5),
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
        ("frame_sm", "20", "is unknown; did you mean 'frame_ms'?"),
        ("colour", "20", "is unknown"),
        ("name", '"p"', "is unknown"),
    ],
)
def test_a_bad_plan_field_is_named_with_its_problem(field: str, bad: str, problem: str) -> None:
    expected = re.escape(f"plans.toml: [plans.p] {field}: {problem}") + "$"
    with pytest.raises(ConfigurationError, match=expected):
        parse_directory(f"[plans.p]\n{field} = {bad}", "plans.toml")


@pytest.mark.parametrize(
    ("field", "bad", "problem"),
    [
        ("name", '""', "must not be empty"),
        ("name", '"  "', "must not be empty"),
        ("name", "5", "must be text in quotes"),
        ("plan", '"premum"', "there is no plan 'premum'; did you mean 'premium'?"),
        ("plan", '"a b"', "must be 1 to 64 of A-Z a-z 0-9 _ . -"),
        ("numbers", '"+12763659195"', 'must be a list, such as ["+15005550006"]'),
        ("numbers", '["12763659195"]', "must be a number in E.164 form, such as +15005550006"),
        ("numbers", '["+0123"]', "must be a number in E.164 form, such as +15005550006"),
        ("numbers", '["+1234567890123456"]', "must be a number in E.164 form"),
        ("numbers", '["+1 276 365 9195"]', "must be a number in E.164 form"),
        ("numbers", '["+١٢٣"]', "must be a number in E.164 form"),
        ("numbers", "[12763659195]", "must be text in quotes"),
        ("numbers", '["+15005550006", "+15005550006"]', "names a number twice"),
        ("forward_to", '"5005550006"', "must be a number such as +15005550006, or sip:"),
        ("forward_to", '"sip:desk"', "must be a number such as +15005550006, or sip:"),
        ("forward_to", '"sip:a@b@c"', "must be a number such as +15005550006, or sip:"),
        ("forward_to", '"http://a@b"', "must be a number such as +15005550006, or sip:"),
        ("forward_to", f'"sip:a@{"b" * 250}"', "must be a number such as +15005550006, or"),
        ("greeting", f'"{"x" * 501}"', "must be at most 500 characters, has 501"),
        ("busy_message", "false", "must be text in quotes"),
        ("after_stream", "[]", "must be text in quotes"),
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

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=500)
numbers = st.from_regex(E164, fullmatch=True)
plans = st.builds(
    Plan,
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
)


@given(plans)
def test_a_plan_is_the_same_after_it_was_stored(plan: Plan) -> None:
    assert Plan.from_fields(plan.as_fields()) == plan


@given(businesses)
def test_a_business_is_the_same_after_it_was_stored(business: Business) -> None:
    assert Business.from_fields(business.as_fields()) == business


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
