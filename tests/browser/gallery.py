"""Every page in the states that matter, made of values alone."""

import math
from collections.abc import Callable
from dataclasses import replace

from fastapi.responses import HTMLResponse

from app.admin.roles import Role
from app.administration.exotel_pairs import IssuedPair
from app.businesses.exotel_pairs import PairInfo
from app.diagnosis.causes import CAUSES
from app.diagnosis.findings import skipped, well
from app.web.admin.access import LIVES, ROLES
from app.web.admin.pages import page
from app.web.admin.signing import IN_THE_CLEAR
from app.web.admin.views import (
    AuditRow,
    BusinessRow,
    CallFilter,
    CallPage,
    CallRow,
    Difference,
    Form,
    Input,
    KeyForm,
    KeyRow,
    MonthRow,
    NamedCallRow,
    Overview,
    PersonView,
    PlanRow,
    SecretRow,
    SessionRow,
    SlotUse,
    Step,
    Viewer,
)
from app.web.admin.waveform import GapMark, TrackPicture, Waveform, outline

OPERATOR = Viewer("operator", "csrf")
ALICE = Viewer("alice", "csrf")
ADMIN = Viewer("Zahnarzt Müller & Söhne", "csrf", Role.ADMIN, "dentist-berlin")
AGENT = Viewer("Zahnarzt Müller & Söhne", "csrf", Role.AGENT, "dentist-berlin")
VIEWER = Viewer("Zahnarzt Müller & Söhne", "csrf", Role.VIEWER, "dentist-berlin")
# What a stranger may send for a name: markup, and text that runs the other way.
HOSTILE = '<img src=x onerror=alert(1)>"\u202eמרפאת שיניים'
AT = 1_795_273_562_000


def _call(n: int, state: str = "ended", lost: int | None = 0, **about: object) -> CallRow:
    row = CallRow(
        call_sid=f"CA{n:032x}",
        business_id="dentist-berlin",
        business="Zahnarzt Müller & Söhne",
        state=state,
        caller=f"+49301234{n:04}",
        dialled="+4930555000",
        at=AT - n * 173_000,
        seconds=60.0 + 17 * n,
        lost=lost,
    )
    return replace(row, **about)  # type: ignore[arg-type]


CALLS = (
    _call(1, "live", None),
    _call(2),
    _call(3, "rejected", None, seconds=0, reason="plan limit reached"),
    _call(4, lost=37),
    _call(5, business=HOSTILE, caller=""),
    _call(6, "lost", 12),
)


def _peaks(track: int) -> list[float]:
    return [
        abs(math.sin(i / 9 + track) * math.sin(i / 61 + track * 2)) ** 1.5
        * (0.2 + 0.8 * (i % 7) / 7)
        for i in range(800)
    ]


WAVEFORM = Waveform(
    94.0,
    (
        TrackPicture(
            "inbound",
            800,
            outline(_peaks(0)),
            (GapMark(300, 14, "0:35 to 0:37: 82 frames, lost by the carrier"),),
        ),
        TrackPicture("outbound", 800, outline(_peaks(1)), ()),
    ),
)
CALL = CallPage(
    _call(4, lost=37),
    (
        ("Plan", "premium"),
        ("Carrier", "twilio"),
        ("Audio", "PCM16, 8,000 Hz"),
        ("DTMF digits", "3"),
    ),
    (
        Step(AT, "Incoming", "slot 3 of 10"),
        Step(AT + 900, "Stream started", "inbound and outbound", "good"),
        Step(AT + 7_000, "DTMF", "a digit was pressed"),
        Step(AT + 35_000, "Gap", "82 frames, lost by the carrier", "warn"),
        Step(AT + 94_000, "Stream ended", "stop"),
        Step(AT + 94_500, "Status", HOSTILE, "bad"),
    ),
    ("9,363 of 9,400 frames delivered.", "37 were dropped: the broker was away. Slowest: 812 ms."),
    waveform=WAVEFORM,
    has_audio=True,
    audio_note="Kept until 22 Nov, 14:56 UTC.",
)
BUSINESS = BusinessRow("dentist-berlin", "Zahnarzt Müller & Söhne", "premium", ("+4930555000",))
PLAN_FORM = Form(
    (
        Input("max_concurrent_calls", "Calls at a time", "One more hears the busy message.", "10",
              "number", group="Limits", was="10"),
        Input("max_call_seconds", "Longest call", "The stream ends then, and the call with it.",
              "3600", "number", unit="seconds", group="Limits", was="3600"),
        Input("tracks", "Who is heard", "Both needs a business that forwards its calls.", "both",
              "choice", (("inbound", "The caller"), ("both", "Both parties")), group="Audio",
              was="both"),
        Input("return_audio", "Workers may speak", "What a worker sends is played to the caller.",
              "true", "flag", group="Audio", was="true"),
    ),
    version=3,
)  # fmt: skip
WRONG_FORM = replace(
    PLAN_FORM,
    inputs=(
        replace(PLAN_FORM.inputs[0], value="many", problem="must be a whole number"),
        *PLAN_FORM.inputs[1:],
    ),
)
MEANWHILE_FORM = replace(
    PLAN_FORM,
    inputs=(replace(PLAN_FORM.inputs[0], value="12", theirs="20", was="20"), *PLAN_FORM.inputs[1:]),
    meanwhile=(
        Difference("Calls at a time", "10", "20", "12"),
        Difference("Greeting", "", HOSTILE, HOSTILE),
    ),
    is_edited_meanwhile=True,
    version=4,
)
BUSINESS_FORM = Form(
    (
        Input("name", "Name", "Shown on these pages.", BUSINESS.name, required=True, was="x"),
        Input("plan", "Plan", "What the business may use.", "premium", "choice",
              (("premium", "premium"),), fixed=True),
        Input("greeting", "Greeting", "Said to the caller first.", HOSTILE, "long", was="x"),
        Input("numbers", "Numbers", "One a line.", "+4930555000\n+4930555001", "lines", fixed=True),
    ),
    version=2,
)  # fmt: skip
SECRETS = (
    SecretRow("twilio_auth_tokens", "Twilio auth tokens", "One, or two for a rotation.", AT, True),
    SecretRow("exotel_pairs", "Exotel keys", "KEY:TOKEN.", problem="must hold pairs KEY:TOKEN"),
)
PAIRS = (PairInfo("a1b2c3d4e5f6", "Support line", AT), PairInfo("b1b2c3d4e5f6", HOSTILE, AT),
         PairInfo("c1b2c3d4e5f6"))  # fmt: skip
DAY = 86_400_000
KEYS = (
    KeyRow("a1b2c3d4e5f6", "Mary at the front desk", "agent", AT, AT, AT + 60 * DAY, is_own=True),
    KeyRow("b1b2c3d4e5f6", HOSTILE, "viewer", AT - 90 * DAY, 0, AT - DAY, is_expired=True),
    KeyRow("c1b2c3d4e5f6", "The dashboard", "admin", AT - 400 * DAY, AT - DAY),
)
SESSIONS = (
    SessionRow("1", "alice", "operator", AT, AT, AT + DAY // 2, "198.51.100.7",
               "Firefox on Windows", is_current=True),
    SessionRow("2", "operator", "operator", AT - 6 * DAY, AT, AT + DAY // 2,
               "2001:db8:1:2::/64", "Safari on iPhone"),
    SessionRow("3", HOSTILE, "agent", AT, AT, AT + DAY // 2, "", "Another browser"),
    SessionRow("4", "The dashboard", "viewer", AT, AT, AT + DAY // 2, "203.0.113.9",
               "Chrome on Android", is_current=True),
)  # fmt: skip
URLS = (("Webhook URL", "https://bridge.example.com/twilio-voice"),)
FULL = Overview(
    7,
    (
        SlotUse("dentist-berlin", BUSINESS.name, "premium", 6, 10),
        SlotUse("other", HOSTILE, "basic", 1, 2),
    ),
    1_204,
    0,
    "ok",
)
FINDINGS = (
    well("redis", "Redis 9.1.2 answers, and takes writes."),
    CAUSES["redis_evicts"].finding("maxmemory-policy is allkeys-lru."),
    CAUSES["number_calls_elsewhere"].finding(HOSTILE, number="+4930555000", good=URLS[0][1]),
    skipped("drain_window", "No platform that is known runs this process."),
)
STATES = (("", "All"), ("live", "Live"), ("ended", "Ended"), ("rejected", "Rejected"))
PERSON_FOUND = PersonView(
    "Where they are named",
    ("2 calls found.", "1 number in the audit log found."),
    (
        NamedCallRow("CA" + "1" * 32, "Zahnarzt Müller & Söhne", "/admin/calls/x", is_live=True),
        NamedCallRow("CA" + "2" * 32, HOSTILE, "/admin/calls/y"),
    ),
    (("Zahnarzt Müller & Söhne", "forward to"),),
    can_erase=True,
)
PERSON_ERASED = PersonView("Erased", ("2 calls erased.", "1 number in the audit log erased."))
_TAB = {"business": BUSINESS, "here": "businesses"}

PAGES: dict[str, Callable[[], HTMLResponse]] = {
    "health": lambda: page("health.html", OPERATOR, here="health", findings=(), worst=""),
    "health-found": lambda: page(
        "health.html", OPERATOR, here="health", findings=FINDINGS, worst="failed"
    ),
    "sign-in": lambda: page(
        "sign_in.html", None, next="", problem="", has_operators=True, is_closed=False
    ),
    "sign-in-insecure": lambda: page(
        "sign_in.html", None, next="", problem=IN_THE_CLEAR, has_operators=True, is_closed=True
    ),
    "sign-in-wrong": lambda: page(
        "sign_in.html", None, next="", problem="That is no key of ours.", has_operators=False,
        is_closed=False,
    ),
    "overview": lambda: page(
        "overview.html", OPERATOR, here="overview", view=FULL, busiest=20, recent=CALLS[:4]
    ),
    "overview-new": lambda: page(
        "overview.html",
        OPERATOR,
        here="overview",
        view=Overview(
            0, (), 0, 3, "away", ("Redis keeps nothing on disk: all would be lost.",), "plan"
        ),
        busiest=20,
        recent=(),
    ),
    "overview-admin": lambda: page(
        "overview.html", ADMIN, here="overview", busiest=20, recent=(),
        view=replace(FULL, slots=FULL.slots[:1]),
    ),
    "live": lambda: page("live.html", OPERATOR, here="live"),
    "calls": lambda: page(
        "calls.html", OPERATOR, here="calls", rows=CALLS, next="?after=1", filter=CallFilter(),
        states=STATES, businesses=(("a", "A"), ("b", HOSTILE)),
    ),
    "calls-none": lambda: page(
        "calls.html", ADMIN, here="calls", rows=(), next="", filter=CallFilter(), states=STATES,
        businesses=(),
    ),
    "call": lambda: page("call.html", OPERATOR, here="calls", view=CALL, erase_problem=""),
    "call-live": lambda: page(
        "call.html", ADMIN, here="calls", erase_problem="",
        view=CallPage(_call(1, "live", None), (), CALL.steps[:2]),
    ),
    "call-live-speak": lambda: page(
        "call.html", OPERATOR, here="calls", erase_problem="",
        view=CallPage(_call(1, "live", None), (), CALL.steps[:2], may_speak=True),
    ),
    "call-erase-wrong": lambda: page(
        "call.html", ADMIN, here="calls", view=CALL, erase_problem="These are not its last 4."
    ),
    "businesses": lambda: page(
        "businesses.html", OPERATOR, here="businesses", has_plans=True, next="?after=x",
        rows=(BUSINESS, BusinessRow("x", HOSTILE, "basic", ())),
    ),
    "businesses-none": lambda: page(
        "businesses.html", OPERATOR, here="businesses", rows=(), next="", has_plans=False
    ),
    "business": lambda: page(
        "business.html", OPERATOR, **_TAB, tab="", form=BUSINESS_FORM, problem="", said="saved"
    ),
    "business-new": lambda: page(
        "new.html", OPERATOR, here="businesses", kind="business",
        form=replace(BUSINESS_FORM, version=0),
    ),
    "numbers": lambda: page(
        "numbers.html", OPERATOR, **_TAB, tab="numbers", urls=URLS, version=2, value="0800",
        problem="Write it in E.164 form, such as +15005550006.",
    ),
    "secrets": lambda: page(
        "secrets.html", ADMIN, **_TAB, tab="secrets", secrets=SECRETS[:1], problem="", pairs=(),
        issued=None, issued_url="", label="", label_problem="",
    ),
    "secrets-pairs": lambda: page(
        "secrets.html", OPERATOR, **_TAB, tab="secrets", secrets=SECRETS, problem="", pairs=PAIRS,
        issued=IssuedPair(PAIRS[0], "ex_" + "0" * 16, "x" * 43), label=HOSTILE,
        issued_url=f"wss://ex_{'0' * 16}:{'x' * 43}@bridge.example.com/v1/ingest",
        label_problem="must be at most 80 characters, has 94",
    ),
    "keys": lambda: page(
        "keys.html", ALICE, **_TAB, tab="keys", keys=KEYS, issued="mbk_1_" + "x" * 43,
        form=KeyForm(), roles=ROLES, lives=LIVES,
    ),
    "keys-wrong": lambda: page(
        "keys.html", ALICE, **_TAB, tab="keys", keys=(), issued="", roles=ROLES, lives=LIVES,
        form=KeyForm(HOSTILE, "agent", "", "The name must be at most 80 characters, has 94."),
    ),
    "keys-admin": lambda: page(
        "keys.html", ADMIN, **_TAB, tab="keys", keys=KEYS, issued="", form=KeyForm(), roles=ROLES,
        lives=LIVES,
    ),
    "sessions": lambda: page(
        "sessions.html", ALICE, here="sessions", business=None, sessions=SESSIONS[:2]
    ),
    "sessions-business": lambda: page(
        "sessions.html", ADMIN, **_TAB, tab="sessions", sessions=SESSIONS[2:]
    ),
    "sessions-none": lambda: page(
        "sessions.html", ALICE, **_TAB, tab="sessions", sessions=(), said="all-ended"
    ),
    "sessions-viewer": lambda: page(
        "sessions.html", VIEWER, here="sessions", business=None, sessions=SESSIONS[3:]
    ),
    "live-viewer": lambda: page("live.html", VIEWER, here="live"),
    "call-live-viewer": lambda: page(
        "call.html", VIEWER, here="calls", erase_problem="",
        view=CallPage(_call(1, "live", None), (), CALL.steps[:2]),
    ),
    "call-live-agent": lambda: page(
        "call.html", AGENT, here="calls", erase_problem="",
        view=CallPage(_call(1, "live", None), (), CALL.steps[:2], may_speak=True),
    ),
    "call-viewer": lambda: page("call.html", VIEWER, here="calls", view=CALL, erase_problem=""),
    "overview-viewer": lambda: page(
        "overview.html", VIEWER, here="overview", busiest=20, recent=CALLS[:2],
        view=replace(FULL, slots=FULL.slots[:1]),
    ),
    "usage-viewer": lambda: page(
        "usage.html", VIEWER, **_TAB, tab="usage", limits=(), months=(),
    ),
    "usage": lambda: page(
        "usage.html", ADMIN, **_TAB, tab="usage", limits=("Soft limit of calls: 1,000",),
        months=(MonthRow("2026-11", 1204, 3120.25, ("soft limit of calls",)),
                MonthRow("2026-10", 900, 2100)),
    ),
    "plans": lambda: page(
        "plans.html", OPERATOR, here="plans",
        rows=(PlanRow("premium", "10", "1:00:00", "both, PCM16, 8,000 Hz", "1:00:00", ("a", "b")),),
    ),
    "plan": lambda: page(
        "plan.html", OPERATOR, here="plans", name="premium", businesses=(BUSINESS,), form=PLAN_FORM,
        problem="",
    ),
    "plan-wrong": lambda: page(
        "plan.html", OPERATOR, here="plans", name="premium", businesses=(), form=WRONG_FORM,
        problem="The plan is in use.",
    ),
    "plan-meanwhile": lambda: page(
        "plan.html", OPERATOR, here="plans", name="premium", businesses=(), form=MEANWHILE_FORM,
        problem="",
    ),
    "audit": lambda: page(
        "audit.html", OPERATOR, here="audit", next="?before=1",
        rows=(AuditRow(AT, "operator", "plan saved", "premium", "",
                       (("max_concurrent_calls", "10 → 12"),)),
              AuditRow(AT, "key:a1b2c3", "call listened", "CA" + "0" * 32, "x",
                       (("stream", "MZ" + "0" * 32),), "2001:db8:85a3::/64"),
              AuditRow(AT, "unknown", "access refused", "sign-in by admin_bearer", "",
                       (("reason", "wrong_credentials"), ("more", "4211")), "203.0.113.77")),
    ),
    "persons": lambda: page(
        "persons.html", ADMIN, here="persons", number="", found=None, problem="",
        confirm_problem="",
    ),
    "persons-found": lambda: page(
        "persons.html", OPERATOR, here="persons", number="+493012340001", found=PERSON_FOUND,
        problem="", confirm_problem="This is not the word erase.",
    ),
    "persons-erased": lambda: page(
        "persons.html", OPERATOR, here="persons", number="+493012340001", found=PERSON_ERASED,
        problem="", confirm_problem="",
    ),
    "persons-wrong": lambda: page(
        "persons.html", OPERATOR, here="persons", number="0301234", found=None,
        problem="This must be an international number such as +15005550006.", confirm_problem="",
    ),
    "business-delete-wrong": lambda: page(
        "business.html", OPERATOR, **_TAB, tab="", form=BUSINESS_FORM,
        problem="This is not its id, dentist-berlin.",
    ),
    "problem": lambda: page(
        "problem.html", OPERATOR, title="There is no such page", words="It may be gone.", back=""
    ),
}  # fmt: skip

FIGURES = {
    "items": [
        {
            "stream_sid": "MZ1", "call_sid": "CA" + "1" * 32, "business_id": "dentist-berlin",
            "plan": "premium", "carrier": "twilio", "from_number": "+493012340001",
            "to_number": "+4930555000", "started_at": AT, "duration_ms": 83_000, "received": 8_300,
            "published": 8_298, "lag_ms": 12, "missing": 0, "dropped": 0,
            "levels": {"inbound": -21.5, "outbound": None},
        },
        {
            "stream_sid": "MZ2", "call_sid": "CA" + "2" * 32, "business_id": HOSTILE,
            "plan": "basic", "carrier": "exotel", "from_number": HOSTILE, "to_number": "",
            "started_at": AT, "duration_ms": 3_683_000, "received": 183_300, "published": 183_000,
            "lag_ms": 812, "missing": 12, "dropped": 4, "levels": {"inbound": -8.0},
        },
    ]
}  # fmt: skip
