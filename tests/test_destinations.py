"""Where calls may be forwarded and transferred: numbers, SIP addresses, and TwiML."""

from dataclasses import replace

import phonenumbers
import pytest
from phonenumbers import PhoneNumber, PhoneNumberFormat, PhoneNumberType

from app.businesses.destinations import (
    NOWHERE,
    DialRules,
    check_forwarding,
    dial_rules,
    problem_of_destination,
)
from app.businesses.twiml_destinations import problem_of_twiml
from app.businesses.warnings import MOST, warnings_of
from app.errors import DestinationNotAllowed, FieldsInvalid
from app.plans import Business, Directory, Plan, make_plan

US, GB, IN, IT = "+12763659195", "+442079460000", "+918047112345", "+390612345678"
PLAN = Plan("premium")


def rules_of(
    *numbers: str, allowed: tuple[str, ...] = ("own", "sip"), country: str = ""
) -> DialRules:
    plan = replace(PLAN, allowed_destinations=allowed)
    return dial_rules(plan, Business("b", "B", "premium", numbers, country=country))


@pytest.mark.parametrize(
    ("own", "to"),
    [
        (US, "+14155550100"),
        (US, "+18005550100"),  # toll-free
        (GB, "+442079460001"),
        (GB, "+447400123456"),
        (GB, "+443001234567"),  # 03, at the price of a geographic number
        (IN, "+919876543210"),
        (IT, "+390612345678"),
        (IT, "+393123456789"),
        ("+16045550100", "+18005550100"),  # Canada shares its toll-free numbers
        ("+15005550006", "+14155550100"),
    ],
)
def test_allows_ordinary_numbers_of_the_business_own_countries(own: str, to: str) -> None:
    assert problem_of_destination(to, rules_of(own)) == ""


@pytest.mark.parametrize(
    ("own", "to", "why"),
    [
        (US, "+18765551234", "JM"),
        (US, "+12423651234", "BS"),
        (US, "+16045550100", "CA"),
        (US, "+442079460000", "GB"),
        (GB, "+447781123456", "GG"),
        (GB, "+441534123456", "JE"),
        (GB, "+441624756789", "IM"),
        (IT, "+390669812345", "VA"),
        ("+79161234567", "+77012345678", "KZ"),
        (US, "+80012345678", "international"),
    ],
)
def test_refuses_numbers_of_other_countries(own: str, to: str, why: str) -> None:
    assert f"is in {why}" in problem_of_destination(to, rules_of(own)).replace("an inter", "inter")


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("+19005551234", "premium-rate"),
        ("+18005550100x", "E.164"),
        ("+449012345678", "premium-rate"),
        ("+449098790123", "premium-rate"),
        ("+499001234567", "premium-rate"),
        ("+39899123456", "premium-rate"),
        ("+870773111632", "+870"),
        ("+881612345678", "+881"),
        ("+882161234567", "+882"),
        ("+883510012345", "+883"),
        ("+979123456789", "+979"),
        ("+97912345678", "+979"),
        ("+80812345678", "+808"),
        ("+44999", "E.164"),
        ("+112", "E.164"),
        ("+1911", "E.164"),
        ("+396123456789012", "E.164"),
        ("+999123456789", "E.164"),
        ("14155550100", "E.164"),
        ("+1415555٠100", "E.164"),
        ("+1415555010,,9", "E.164"),
        ("", "E.164"),
    ],
)
@pytest.mark.parametrize(
    "allowed", [("any",), ("any", "+1900", "+8816"), ("own", "GB", "DE", "IT")]
)
def test_refuses_under_every_plan_what_nobody_should_pay_for(
    to: str, why: str, allowed: tuple[str, ...]
) -> None:
    assert why in problem_of_destination(to, rules_of(US, allowed=allowed))


@pytest.mark.parametrize("country", sorted(phonenumbers.SUPPORTED_REGIONS))
def test_knows_the_premium_and_the_ordinary_numbers_of_each_country(country: str) -> None:
    rules = rules_of(allowed=("any",), country=country)
    costly = phonenumbers.example_number_for_type(country, PhoneNumberType.PREMIUM_RATE)
    if costly is not None:
        assert "premium-rate" in problem_of_destination(e164(costly), rules)
    ordinary = phonenumbers.example_number_for_type(country, PhoneNumberType.FIXED_LINE)
    assert ordinary is not None
    assert problem_of_destination(e164(ordinary), rules_of(e164(ordinary))) == ""


def e164(number: PhoneNumber) -> str:
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


@pytest.mark.parametrize("code", ["+35812000", "+8610620000", "+2741348"])
def test_refuses_short_codes_that_are_as_long_as_numbers(code: str) -> None:
    for allowed in (("any",), (code,), ("own",)):
        problem = problem_of_destination(code, rules_of(allowed=allowed, country="FI"))
        assert "short code" in problem


@pytest.mark.parametrize(
    ("to", "kind"),
    [
        ("+447011234567", "personal number"),
        ("+491801234567", "shared cost"),
        ("+611300123456", "shared cost"),
        ("+15005550006", "personal number"),
    ],
)
def test_allows_costly_types_of_numbers_by_their_prefix_only(to: str, kind: str) -> None:
    assert kind in problem_of_destination(to, rules_of(allowed=("any", "GB", "DE", "AU", "US")))
    assert problem_of_destination(to, rules_of(allowed=(to[:6],))) == ""


def test_allows_a_number_in_no_known_range_when_it_is_named_in_full() -> None:
    unknown = "+15551234567"
    assert "known to be in use" in problem_of_destination(unknown, rules_of(US))
    assert "known to be in use" in problem_of_destination(unknown, rules_of(US, allowed=("any",)))
    assert "known" in problem_of_destination(unknown, rules_of(US, allowed=("+1555",)))
    assert problem_of_destination(unknown, rules_of(US, allowed=(unknown,))) == ""


@pytest.mark.parametrize(
    ("allowed", "to", "is_allowed"),
    [
        (("CA",), "+16045550100", True),
        (("CA",), "+14155550100", False),  # what is listed takes the place of `own`
        (("own", "CA"), "+14155550100", True),
        (("any",), "+18765551234", True),
        (("+4420",), "+442079460000", True),
        (("+4420",), "+441619460000", False),
        ((), "+14155550100", False),
        ((), "sip:desk@example.com", False),
        (("own",), "sip:desk@example.com", False),
        (("sip:example.com",), "sip:desk@example.com", True),
        (("sip:example.com",), "sips:desk@EXAMPLE.com:5061;transport=tls", True),
        (("sip:example.com",), "sip:desk@example.com.evil.example", False),
        (("sip:example.com",), "sip:desk@sub.example.com", False),
        (("sip:example.com",), "sip:desk@evil.example?x=@example.com", False),
        (("sip:example.com",), "sip:desk@example.com;maddr=evil.example", False),
        (("sip:example.com",), "sip:desk@example.com?Route=%3Csip:evil.example%3E", False),
        (("any",), "sip:desk@example.com", True),
    ],
)
def test_a_plan_says_where_calls_may_go(
    allowed: tuple[str, ...], to: str, is_allowed: bool
) -> None:
    problem = problem_of_destination(to, rules_of(US, allowed=allowed))
    assert (problem == "") is is_allowed, problem


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("sip:desk@example.com", True),
        ("sip:100@pbx.example.com", True),
        ("sip:+14155550100@pbx.example.com", True),
        ("sip:+881612345678@pbx.example.com", False),
        ("sip:00881612345678@pbx.example.com", False),
        ("sip:011881612345678@pbx.example.com", False),
        ("sip:%2B881612345678@pbx.example.com", False),
        ("sip:+1-900-555-1234@pbx.example.com", False),
        ("sip:19005551234@pbx.example.com;user=phone", False),
        ("sip:19005551234;user=phone@pbx.example.com", False),
        ("sip:+19005551234:secret@pbx.example.com", False),
        ("sip:+14155550100@trunk.pstn.twilio.com", True),
        ("sip:+18765551234@trunk.pstn.twilio.com", False),
        ("sip:desk@trunk.pstn.twilio.com", False),
        ("sip:19005551234@trunk.pstn.ashburn.twilio.com", False),
        ("sip:desk@company.sip.twilio.com", True),
        ("sip:desk", False),
        ("tel:+14155550100", False),
        ("client:desk", False),
    ],
)
def test_a_number_in_a_sip_address_is_checked_as_a_number(address: str, is_allowed: bool) -> None:
    problem = problem_of_destination(address, rules_of(US))
    assert (problem == "") is is_allowed, problem


def test_never_calls_premium_numbers_over_a_sip_host_that_is_allowed() -> None:
    rules = rules_of(US, allowed=("sip:pbx.example.com", "any"))
    assert "premium" in problem_of_destination("sip:+19005551234@pbx.example.com", rules)
    assert problem_of_destination("sip:+18765551234@pbx.example.com", rules) == ""


def test_own_countries_are_those_of_the_numbers_and_of_the_country() -> None:
    assert rules_of(US, GB, country="IN").countries == {"US", "GB", "IN"}
    assert rules_of("+15551234567").countries == {"US"}  # in no known range, connected all the same
    assert rules_of("+883510012345").countries == set()
    assert rules_of().countries == set()


# ----------------------------------------------------------------------------- TwiML


@pytest.mark.parametrize(
    "body",
    [
        "<Say>Wait <break time='1s'/> please</Say><Pause length='2'/><Hangup/>",
        "<Say><prosody rate='slow'>a <emphasis>b</emphasis></prosody></Say>",
        "<Play>https://example.com/a.wav</Play><Play digits='1w2'/>",
        "<Dial>+14155550100</Dial>",
        "<Dial timeout='9'> <Number sendDigits='1'> +14155550100 </Number> </Dial>",
        "<Dial><Sip>sip:desk@example.com</Sip></Dial>",
        "<Dial>+1415<!-- a comment -->5550100</Dial>",
        "<Refer><Sip>sip:desk@example.com</Sip></Refer>",
        "<Gather numDigits='1'><Say>Press one</Say></Gather>",
        "<Connect><Stream url='wss://example.com/media'><Parameter name='a' value='b'/></Stream>"
        "</Connect>",
    ],
)
def test_allows_twiml_that_leads_where_the_plan_allows(body: str) -> None:
    assert problem_of_twiml(f"<Response>{body}</Response>", rules_of(US)) == ""


HIDDEN = [
    "<Redirect>https://example.com/more</Redirect>",
    "<Gather action='https://example.com/more'/>",
    "<Record action='https://example.com/more'/>",
    "<Dial action='https://example.com/more'>+14155550100</Dial>",
    "<Dial><Number url='https://example.com/more'>+14155550100</Number></Dial>",
    "<Dial referUrl='https://example.com/more'><Sip>sip:a@b.example</Sip></Dial>",
    "<Connect action='https://example.com/more'><Stream url='wss://example.com/'/></Connect>",
]
SHARED = [
    "<Dial><Conference>room</Conference></Dial>",
    "<Dial><Client>agent</Client></Dial>",
    "<Dial><Queue>q</Queue></Dial>",
    "<Dial><Application>AP1</Application></Dial>",
    "<Dial><Sim>DE1</Sim></Dial>",
    "<Enqueue>q</Enqueue>",
    "<Connect><Room>r</Room></Connect>",
    "<Pay/>",
    "<Sms to='+14155550100'>hi</Sms>",
    "<Frobnicate/>",
    "<x:Dial xmlns:x='urn:x'>+14155550100</x:Dial>",
]


@pytest.mark.parametrize("body", [*HIDDEN, *SHARED])
def test_refuses_twiml_that_hides_where_it_leads(body: str) -> None:
    document = f"<Response>{body}</Response>"
    assert problem_of_twiml(document, rules_of(US)).startswith("twiml: ")
    assert problem_of_twiml(document, NOWHERE)
    assert problem_of_twiml(document, rules_of(US, allowed=("any",))) == ""


@pytest.mark.parametrize(
    "body",
    [
        "<Dial>+19005551234</Dial>",
        "<Dial>415-555-0100</Dial>",
        "<Dial><Number>+881612345678</Number></Dial>",
        "<Dial><Number>+14155550100</Number><Number>+19005551234</Number></Dial>",
        "<Dial>+1900<Number>+14155550100</Number>5551234</Dial>",
        "<Dial>+1900<!-- -->5551234</Dial>",
        "<Dial><![CDATA[+19005551234]]></Dial>",
        "<Dial>&#43;19005551234</Dial>",
        "<Dial><Sip>sip:+19005551234@trunk.pstn.twilio.com</Sip></Dial>",
        "<Dial><Sip>desk@example.com</Sip></Dial>",
        "<Say>hi<Dial>+19005551234</Dial></Say>",
        "<Say><p><Dial>+19005551234</Dial></p></Say>",
        "<Gather><Say>x</Say><Dial>+19005551234</Dial></Gather>",
        "<Refer><Sip>sip:+19005551234@pbx.example.com</Sip></Refer>",
        "<Sms to='+19005551234'>hi</Sms>",
    ],
)
@pytest.mark.parametrize("allowed", [("own", "sip"), ("any",)])
def test_refuses_twiml_that_calls_premium_numbers(body: str, allowed: tuple[str, ...]) -> None:
    problem = problem_of_twiml(f"<Response>{body}</Response>", rules_of(US, allowed=allowed))
    assert problem.startswith("twiml: ")
    assert "9005551234" not in problem


def test_allows_further_twiml_from_hosts_that_the_plan_names() -> None:
    rules = rules_of(US, allowed=("own", "https://flows.example.com"))
    for good in ("https://flows.example.com/a", "https://flows.example.com:8443/b?c=d"):
        assert problem_of_twiml(f"<Response><Redirect>{good}</Redirect></Response>", rules) == ""
    for bad in (
        "http://flows.example.com/a",
        "https://flows.example.com.evil.example/",
        "https://flows.example.com@evil.example/",
        "https://evil.example/https://flows.example.com",
        "//flows.example.com/",
        "/relative",
        "",
    ):
        assert problem_of_twiml(f"<Response><Redirect>{bad}</Redirect></Response>", rules)


def test_refuses_a_document_that_another_reader_would_read_otherwise() -> None:
    body = "<Response><Say>hi</Say></Response>"
    utf_8 = '<?xml version="1.0" encoding="UTF-8"?>'
    assert problem_of_twiml(utf_8 + body, rules_of(US)) == ""
    for other in ("utf-7", "UTF-16", "IBM037"):
        declared = f"<?xml version='1.0' encoding='{other}'?>"
        assert "encoding" in problem_of_twiml(declared + body, rules_of(US))


# -------------------------------------------------------------------- the plan's field


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (["own", "sip"], ("own", "sip")),
        ("own, CA,+4420", ("own", "CA", "+4420")),
        ("", ()),
        ([], ()),
        (["any", "any"], ("any",)),
        (
            ["sip:pbx.example.com", "https://a.example"],
            ("sip:pbx.example.com", "https://a.example"),
        ),
        (["+1876"], ("+1876",)),
        (["+91", "+41"], ("+91", "+41")),
    ],
)
def test_a_plan_lists_destinations(given: object, stored: tuple[str, ...]) -> None:
    plan = make_plan("p", {"allowed_destinations": given})
    assert plan.allowed_destinations == stored
    assert Plan.from_fields(plan.as_fields()) == plan


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([1], "text"),
        (7, "list"),
        (["XX"], "country"),
        (["us"], "country"),
        (["+1"], "share"),
        (["+44"], "share"),
        (["+7"], "share"),
        (["+4"], "share"),
        (["+"], "prefix"),
        (["+0"], "prefix"),
        (["+12345678901234567"], "prefix"),
        (["sip:"], "sip:HOST"),
        (["sip:a@b"], "sip:HOST"),
        (["https://a.example/path"], "https://HOST"),
        (["http://a.example"], "https://HOST"),
        (["own"] * 301, "300"),
    ],
)
def test_refuses_what_is_no_destination(given: object, why: str) -> None:
    with pytest.raises(FieldsInvalid, match=why):
        make_plan("p", {"allowed_destinations": given})


def test_a_plan_of_an_earlier_version_allows_own_countries() -> None:
    stored = Plan("p").as_fields()
    del stored["allowed_destinations"]
    assert Plan.from_fields(stored).allowed_destinations == ("own", "sip")


# ------------------------------------------------------------------------ businesses


def test_forwarding_is_checked_by_plan_and_numbers() -> None:
    shop = Business("shop", "Shop", "premium", (US,))
    check_forwarding(PLAN, shop)
    check_forwarding(PLAN, replace(shop, forward_to="+14155550100"))
    with pytest.raises(DestinationNotAllowed, match="forward_to is in GB; the plan allows US, SIP"):
        check_forwarding(PLAN, replace(shop, forward_to=GB))
    check_forwarding(PLAN, replace(shop, forward_to=GB, numbers=(US, GB)))


def test_warns_of_businesses_that_would_not_be_accepted_today() -> None:
    good = Business("good", "Good", "premium", (US,), "+14155550100", exotel_pairs=("c" * 64,))
    bad = replace(good, id="bad", forward_to=GB, exotel_pairs=("a" * 64, "b" * 64))
    found = warnings_of(Directory((PLAN,), (good, bad)), {"b" * 64})
    assert [one.partition(":")[0] for one in found] == ["business bad", "business bad"]
    assert "allowed_destinations of the plan premium" in found[0]
    assert "exotel_pairs" in found[1]
    many = warnings_of(Directory((PLAN,), (bad,) * 30), ())
    assert (len(many), many[-1]) == (MOST + 1, "and 10 more warnings of this kind")
