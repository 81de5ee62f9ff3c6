"""What each page shows, as values; templates lay it out and decide nothing.

Times are Unix ms, 0 where there is none; lengths are seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.admin.roles import PERMISSIONS, Permission, Role
from app.web.admin.waveform import Waveform


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who is signed in. `csrf` goes into each form; `business_id` is empty for an operator.

    `name` is an operator's, or that of the business. `by_hand`: calls may be placed unsigned.
    """

    name: str
    csrf: str
    role: Role = Role.OPERATOR
    business_id: str = ""
    by_hand: bool = False

    @property
    def is_operator(self) -> bool:
        """Return whether all businesses are theirs."""
        return self.role is Role.OPERATOR

    def may(self, permission: Permission) -> bool:
        """Return whether their role permits this; a page has no control for what it does not."""
        return permission in PERMISSIONS[self.role]


@dataclass(frozen=True, slots=True)
class Input:
    """One field of a form: its value as text, what it does, and what is wrong with it.

    `was` is its value in the record that the form was filled from; `theirs` is what somebody
    else has saved meanwhile, where that differs. One that is `fixed` is shown, and not to be
    changed here.
    """

    name: str
    label: str
    effect: str
    value: str = ""
    kind: Literal["text", "number", "long", "choice", "flag", "lines"] = "text"
    choices: Sequence[tuple[str, str]] = ()
    unit: str = ""
    problem: str = ""
    was: str = ""
    theirs: str | None = None
    fixed: bool = False
    required: bool = False
    group: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that somebody else has saved meanwhile: what it was, is, and is in the form."""

    label: str
    was: str
    theirs: str
    value: str


@dataclass(frozen=True, slots=True)
class Form:
    """A form: `version` is of the record it was filled from, 0 for a new one."""

    inputs: Sequence[Input]
    version: int = 0
    meanwhile: Sequence[Difference] = ()
    is_edited_meanwhile: bool = False

    @property
    def problems(self) -> Sequence[Input]:
        """Give the fields that cannot be stored as they are."""
        return [one for one in self.inputs if one.problem]

    @property
    def groups(self) -> Mapping[str, Sequence[Input]]:
        """Give the fields by the group they stand in, in order."""
        found: dict[str, list[Input]] = {}
        for one in self.inputs:
            found.setdefault(one.group, []).append(one)
        return found


@dataclass(frozen=True, slots=True)
class SlotUse:
    """How many of a business's calls are live, of how many its plan allows."""

    business_id: str
    business: str
    plan: str
    used: int
    limit: int


NextStep = Literal["", "plan", "business", "call"]


@dataclass(frozen=True, slots=True)
class Overview:
    """How things stand. `broker` is `ok` or why not; `step` what a newcomer does next.

    With `more_today`, `calls_today` is how many were looked at, and there were more.
    """

    live: int
    slots: Sequence[SlotUse]
    calls_today: int
    frames_lost: int
    broker: str
    warnings: Sequence[str] = ()
    step: NextStep = ""
    more_today: bool = False

    @property
    def slots_used(self) -> int:
        """Count the slots in use."""
        return sum(one.used for one in self.slots)

    @property
    def slots_limit(self) -> int:
        """Count the slots there are."""
        return sum(one.limit for one in self.slots)


@dataclass(frozen=True, slots=True)
class CallRow:
    """A call in a list. `lost` counts the frames that are missing from it, None while unknown."""

    call_sid: str
    business_id: str
    business: str
    state: str
    caller: str
    dialled: str
    at: int
    seconds: float
    lost: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CallFilter:
    """What a list of calls is narrowed to; days are YYYY-MM-DD, or empty."""

    business: str = ""
    state: str = ""
    since: str = ""
    until: str = ""

    @property
    def is_set(self) -> bool:
        """Tell whether anything is narrowed."""
        return bool(self.business or self.state or self.since or self.until)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened in a call. `tone` colours it."""

    at: int
    what: str
    detail: str = ""
    tone: Literal["", "good", "warn", "bad"] = ""


@dataclass(frozen=True, slots=True)
class CallPage:
    """One call, whole. `facts` are pairs of a name and a value."""

    row: CallRow
    facts: Sequence[tuple[str, str]]
    steps: Sequence[Step]
    receipt: Sequence[str] = ()
    receipt_is_whole: bool = False
    waveform: Waveform | None = None
    has_audio: bool = False
    audio_note: str = ""
    may_speak: bool = False

    @property
    def last4(self) -> str:
        """Give what is typed to erase it."""
        return self.row.call_sid[-4:]


@dataclass(frozen=True, slots=True)
class BusinessRow:
    """A business in a list."""

    id: str
    name: str
    plan: str
    numbers: Sequence[str]


@dataclass(frozen=True, slots=True)
class SecretRow:
    """A secret that may be set: what it is for, and since when it is; never its value."""

    name: str
    label: str
    effect: str
    set_at: int = 0
    is_set: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class MonthRow:
    """A month's usage, and which limits it has reached."""

    month: str
    calls: int
    minutes: float
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class PlanRow:
    """A plan in a list, and the businesses that have it."""

    name: str
    calls: str
    length: str
    audio: str
    kept: str
    businesses: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An access key in a list; `expires_at` is 0 if it does not expire."""

    id: str
    label: str
    role: str
    created_at: int
    last_used_at: int
    expires_at: int = 0
    is_expired: bool = False
    is_own: bool = False


@dataclass(frozen=True, slots=True)
class KeyForm:
    """What stands in the form that issues a key, and what is wrong with it."""

    label: str = ""
    role: str = Role.VIEWER
    days: str = "90"
    problem: str = ""


@dataclass(frozen=True, slots=True)
class SessionRow:
    """Somebody signed in with a browser. `who` is an operator's name, or a key's label."""

    id: str
    who: str
    role: str
    began_at: int
    last_used_at: int
    ends_at: int
    address: str
    browser: str
    is_current: bool = False


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One line of the audit log."""

    at: int
    who: str
    what: str
    target: str
    business_id: str = ""
    details: Sequence[tuple[str, str]] = field(default=())
    address: str = ""


@dataclass(frozen=True, slots=True)
class NamedCallRow:
    """A call in which a person is named, and its page."""

    call_sid: str
    business: str
    path: str
    is_live: bool = False


@dataclass(frozen=True, slots=True)
class PersonView:
    """Where a person is named, or what was erased of them, in sentences."""

    title: str
    lines: Sequence[str]
    calls: Sequence[NamedCallRow] = ()
    settings: Sequence[tuple[str, str]] = ()
    can_erase: bool = False
