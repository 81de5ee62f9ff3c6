"""Who a token, a key or a session belongs to, and how often one may guess."""

import logging
import re
from dataclasses import dataclass, field

import pytest

from app.admin.access_keys import digest_of, is_key, new_key
from app.admin.attempts import ADMIN_LIMIT, WINDOW_SECONDS, AttemptLimiter
from app.admin.audit_log import AuditLog
from app.admin.audit_store import MemoryAuditStore
from app.admin.operators import Operators
from app.admin.principal import THE_OPERATOR, Principal
from app.admin.roles import KEY_ROLES, Role
from app.admin.sessions import IDLE_SECONDS, LONGEST_SECONDS, Sessions
from app.administration.gate import Gate, check_csrf, csrf_token
from app.errors import FormExpired, KeyExpired, SignInRequired, StoreUnavailable, TooManyAttempts
from app.metrics import Metrics
from app.store.access import AccessKey, Session
from app.store.memory_access import MemoryAccess

TOKEN = "an operator's token, long enough"
OTHER_TOKEN = "the token that it is replaced by"
HOME = "192.0.2.1"
ELSEWHERE = "198.51.100.7"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class AwayAccess(MemoryAccess):
    """A store that can be taken away."""

    away = False

    async def key_of(self, digest: str) -> AccessKey | None:
        self._check()
        return await super().key_of(digest)

    async def note_attempt(self, address: str, seconds: float) -> int:
        self._check()
        return await super().note_attempt(address, seconds)

    async def attempts_of(self, address: str) -> int:
        self._check()
        return await super().attempts_of(address)

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("away")


def operators_of(*tokens: str) -> Operators:
    """Return operators by their tokens, each `TOKEN` or `NAME=TOKEN`."""
    parted = [token.rpartition("=") for token in tokens]
    return Operators({digest_of(token): name for name, _, token in parted})


@dataclass
class House:
    """A gate, with what stands behind it."""

    gate: Gate
    access: AwayAccess
    audit: AuditLog
    clock: Clock
    deleted: set[str] = field(default_factory=set)

    def sessions_of(self, *tokens: str) -> Sessions:
        return Sessions(self.access, operators_of(*tokens), self.audit, self.clock)

    def gate_of(self, *tokens: str) -> Gate:
        return Gate(
            self.access,
            operators_of(*tokens),
            self.sessions_of(*tokens),
            self.audit,
            AttemptLimiter(self.access, self.clock, Metrics()),
            wall_clock=self.clock,
            has_business=self.has_business,
        )

    async def has_business(self, business_id: str) -> bool:
        return business_id not in self.deleted

    async def key(
        self, business_id: str = "shop", role: str = "admin", expires_at: int = 0
    ) -> tuple[str, str]:
        """Store a new key; give its id and its text."""
        made, of = new_key(), business_id
        digest = digest_of(made.text)
        await self.access.add_key(
            AccessKey(made.id, of, "label", digest, 1, role=role, expires_at=expires_at)
        )
        return made


@pytest.fixture
def house() -> House:
    clock = Clock()
    access, audit = AwayAccess(clock), MemoryAuditStore()
    house = House(None, access, AuditLog(audit, clock, clock), clock)  # type: ignore[arg-type]
    house.gate = house.gate_of(TOKEN)
    return house


# ------------------------------------------------------------------ tokens and keys


async def test_a_key_of_a_deleted_business_admits_nobody(house: House) -> None:
    _, key = await house.key("gone")
    _, good = await house.key("shop")
    signed_in = await house.gate.sign_in(key, HOME)
    house.deleted.add("gone")
    with pytest.raises(SignInRequired):
        await house.gate.by_bearer(key, HOME)
    with pytest.raises(SignInRequired):
        await house.gate.sign_in(key, HOME)
    assert await house.gate.by_session(signed_in.secret) is None
    assert (await house.gate.by_bearer(good, HOME)).business_id == "shop"


async def test_a_session_begun_while_its_business_is_deleted_ends_at_once(house: House) -> None:
    key_id, key = await house.key("gone")
    asked = iter([True, False])

    async def deleted_meanwhile(business_id: str) -> bool:
        return next(asked)

    gate = Gate(
        house.access,
        operators_of(TOKEN),
        house.sessions_of(TOKEN),
        house.audit,
        AttemptLimiter(house.access, house.clock, Metrics()),
        wall_clock=house.clock,
        has_business=deleted_meanwhile,
    )
    with pytest.raises(SignInRequired):
        await gate.sign_in(key, HOME)
    assert await house.access.sessions_of(key_id) == []


async def test_a_token_is_an_operators_and_a_key_its_businesss(house: House) -> None:
    key_id, key = await house.key()
    assert await house.gate.by_bearer(TOKEN, HOME) == THE_OPERATOR
    assert await house.gate.by_bearer(key, HOME) == Principal(f"key:{key_id}", Role.ADMIN, "shop")


async def test_each_of_several_tokens_is_good(house: House) -> None:
    gate = house.gate_of(TOKEN, OTHER_TOKEN)
    assert await gate.by_bearer(TOKEN, HOME) == await gate.by_bearer(OTHER_TOKEN, HOME)


@pytest.mark.parametrize(
    "shown",
    [
        "",
        " ",
        TOKEN[:-1],
        TOKEN + "x",
        TOKEN.upper(),
        digest_of(TOKEN),
        f"sha256-{digest_of(TOKEN)}",
        "mbk_0123456789ab_" + "x" * 43,
        "mbk_",
        "☎",
        "\ud800",
        "\x00",
        "x" * 100_000,
    ],
)
async def test_what_is_nobodys_is_refused(house: House, shown: str) -> None:
    await house.key()
    with pytest.raises(SignInRequired):
        await house.gate.by_bearer(shown, HOME)
    with pytest.raises(SignInRequired):
        await house.gate.sign_in(shown, HOME)


async def test_without_tokens_nobody_is_an_operator_and_the_refusal_says_why(house: House) -> None:
    gate = house.gate_of()
    assert not gate.has_operator
    with pytest.raises(SignInRequired, match="ADMIN_TOKEN"):
        await gate.by_bearer(TOKEN, HOME)
    with pytest.raises(SignInRequired):
        await gate.by_bearer("", HOME)


async def test_a_revoked_key_is_refused_at_once(house: House) -> None:
    key_id, key = await house.key()
    await house.gate.by_bearer(key, HOME)
    await house.access.revoke_key("shop", key_id)
    with pytest.raises(SignInRequired):
        await house.gate.by_bearer(key, HOME)


async def test_a_keys_use_is_noted_once_a_minute(house: House) -> None:
    key_id, key = await house.key()
    began = int(house.clock.now * 1000)
    for moved, noted in ((0, began), (59, began), (1, began + 60_000)):
        house.clock.now += moved
        await house.gate.by_bearer(key, HOME)
        found = await house.access.key("shop", key_id)
        assert found is not None
        assert found.last_used_at == noted


def test_keys_are_of_their_form_and_never_the_same() -> None:
    keys = {new_key().text for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert is_key(key)
        assert re.fullmatch(r"mbk_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", key)


@pytest.mark.parametrize("role", KEY_ROLES)
async def test_key_has_the_role_it_was_issued_with(house: House, role: Role) -> None:
    key_id, key = await house.key(role=role)
    who = Principal(f"key:{key_id}", role, "shop")
    assert await house.gate.by_bearer(key, HOME) == who
    signed_in = await house.gate.sign_in(key, HOME)
    assert signed_in.principal == who
    assert await house.gate.by_session(signed_in.secret) == signed_in


@pytest.mark.parametrize("role", ["", "operator", "Admin", "owner"])
async def test_key_with_an_unknown_role_admits_nobody(house: House, role: str) -> None:
    key = (await house.key(role=role))[1]
    with pytest.raises(SignInRequired):
        await house.gate.by_bearer(key, HOME)
    with pytest.raises(SignInRequired):
        await house.gate.sign_in(key, HOME)


async def test_key_ends_when_it_expires_and_its_sessions_with_it(house: House) -> None:
    expires_at = int((house.clock.now + 3600) * 1000)
    key = (await house.key(expires_at=expires_at))[1]
    signed_in = await house.gate.sign_in(key, HOME)
    house.clock.now += 3599.9
    await house.gate.by_bearer(key, HOME)
    assert await house.gate.by_session(signed_in.secret) == signed_in
    house.clock.now += 0.1
    for _ in range(ADMIN_LIMIT.failures + 1):  # it is no guess
        with pytest.raises(KeyExpired):
            await house.gate.by_bearer(key, HOME)
    with pytest.raises(KeyExpired):
        await house.gate.sign_in(key, HOME)
    assert await house.gate.by_session(signed_in.secret) is None


async def test_operators_are_known_by_their_names(house: House) -> None:
    gate = house.gate_of(TOKEN, f"alice={OTHER_TOKEN}")
    alice = Principal("operator:alice", Role.OPERATOR)
    assert await gate.by_bearer(TOKEN, HOME) == THE_OPERATOR
    assert await gate.by_bearer(OTHER_TOKEN, HOME) == alice
    with pytest.raises(SignInRequired):
        await gate.by_bearer(f"alice={OTHER_TOKEN}", HOME)
    signed_in = await gate.sign_in(OTHER_TOKEN, HOME)
    assert signed_in.principal == alice
    [begun] = await house.audit.store.page(None, limit=1)
    assert (begun.actor, begun.action) == ("operator:alice", "session.begun")


async def test_session_belongs_to_whoever_its_token_belongs_to_now(house: House) -> None:
    signed_in = await house.gate_of(TOKEN).sign_in(TOKEN, HOME)
    found = await house.gate_of(f"alice={TOKEN}").by_session(signed_in.secret)
    assert found is not None
    assert found.principal.actor == "operator:alice"


# -------------------------------------------------------------------- wrong ones


async def test_an_address_may_try_so_many_wrong_keys_and_no_more(house: House) -> None:
    for _ in range(ADMIN_LIMIT.failures):
        with pytest.raises(SignInRequired):
            await house.gate.by_bearer("wrong", HOME)
    with pytest.raises(TooManyAttempts) as caught:
        await house.gate.by_bearer("wrong", HOME)
    assert caught.value.retry_seconds == WINDOW_SECONDS
    with pytest.raises(SignInRequired):
        await house.gate.by_bearer("wrong", ELSEWHERE)


async def test_the_form_refuses_the_right_key_too_after_too_many_wrong_ones(house: House) -> None:
    for _ in range(ADMIN_LIMIT.failures):
        with pytest.raises(SignInRequired):
            await house.gate.sign_in("wrong", HOME)
    with pytest.raises(TooManyAttempts):
        await house.gate.sign_in(TOKEN, HOME)
    assert (await house.gate.sign_in(TOKEN, ELSEWHERE)).principal == THE_OPERATOR
    house.clock.now += WINDOW_SECONDS
    assert (await house.gate.sign_in(TOKEN, HOME)).principal == THE_OPERATOR


async def test_a_program_with_the_right_key_is_served_whatever_its_neighbours_try(
    house: House,
) -> None:
    for _ in range(ADMIN_LIMIT.failures + 1):
        with pytest.raises((SignInRequired, TooManyAttempts)):
            await house.gate.by_bearer("wrong", HOME)
    assert await house.gate.by_bearer(TOKEN, HOME) == THE_OPERATOR


async def test_attempts_count_over_all_replicas(house: House) -> None:
    for _ in range(ADMIN_LIMIT.failures):
        with pytest.raises(SignInRequired):
            await house.gate_of(TOKEN).by_bearer("wrong", HOME)
    with pytest.raises(TooManyAttempts):
        await house.gate_of(TOKEN).sign_in(TOKEN, HOME)


async def test_failures_elsewhere_never_refuse_the_right_key(house: House) -> None:
    for number in range(1300):
        with pytest.raises((SignInRequired, TooManyAttempts)):
            await house.gate.by_bearer("wrong", f"192.0.2.{number % 100}")
    assert (await house.gate.sign_in(TOKEN, ELSEWHERE)).principal == THE_OPERATOR
    assert await house.gate.by_bearer(TOKEN, ELSEWHERE) == THE_OPERATOR


async def test_the_form_accepts_the_right_key_from_an_address_that_many_share(house: House) -> None:
    for _ in range(ADMIN_LIMIT.failures):
        with pytest.raises(SignInRequired):
            await house.gate.sign_in("wrong", HOME, is_shared=True)
    with pytest.raises(TooManyAttempts):
        await house.gate.sign_in("wrong", HOME, is_shared=True)
    assert (await house.gate.sign_in(TOKEN, HOME, is_shared=True)).principal == THE_OPERATOR
    with pytest.raises(TooManyAttempts):
        await house.gate.sign_in(TOKEN, HOME)


async def test_counts_only_keys_that_were_compared(house: House) -> None:
    for _ in range(ADMIN_LIMIT.failures):
        with pytest.raises(SignInRequired):
            await house.gate.sign_in("wrong", HOME)
    for _ in range(100):
        house.clock.now += 1
        with pytest.raises(TooManyAttempts):
            await house.gate.sign_in("wrong", HOME)
    house.clock.now += WINDOW_SECONDS - 100
    assert (await house.gate.sign_in(TOKEN, HOME)).principal == THE_OPERATOR


async def test_with_the_store_away_this_process_counts_and_an_operator_is_served(
    house: House,
) -> None:
    key = (await house.key())[1]
    house.access.away = True
    for _ in range(ADMIN_LIMIT.failures):
        with pytest.raises(SignInRequired):
            await house.gate.by_bearer("wrong", HOME)
    with pytest.raises(TooManyAttempts):
        await house.gate.by_bearer("wrong", HOME)
    assert await house.gate.by_bearer(TOKEN, HOME) == THE_OPERATOR
    with pytest.raises(StoreUnavailable):
        await house.gate.by_bearer(key, HOME)


async def test_no_key_and_no_token_is_logged(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    key = (await house.key())[1]
    with caplog.at_level(logging.DEBUG):
        await house.gate.sign_in(TOKEN, HOME)
        signed_in = await house.gate.sign_in(key, HOME)
        with pytest.raises(SignInRequired):
            await house.gate.by_bearer("a wrong secret", HOME)
    assert HOME in caplog.text
    for secret in (TOKEN, key, signed_in.secret, "a wrong secret"):
        assert secret not in caplog.text
        assert secret not in repr(signed_in)
        assert secret not in str(await house.audit.store.page(None))


# ----------------------------------------------------------------------- sessions


async def test_a_session_is_of_whoever_began_it(house: House) -> None:
    key_id, key = await house.key()
    operator = await house.gate.sign_in(f" {TOKEN}\n", HOME)
    admin = await house.gate.sign_in(key, HOME)
    assert await house.gate.by_session(operator.secret) == operator
    assert await house.gate.by_session(admin.secret) == admin
    assert admin.principal == Principal(f"key:{key_id}", Role.ADMIN, "shop")
    assert [entry.action for entry in await house.audit.store.page("shop")] == ["session.begun"]


@pytest.mark.parametrize("secret", ["", "x", "x" * 100_000, "\ud800", "☎", TOKEN])
async def test_what_is_no_sessions_secret_is_nobodys(house: House, secret: str) -> None:
    await house.gate.sign_in(TOKEN, HOME)
    assert await house.gate.by_session(secret) is None


async def test_a_session_is_over_after_a_rest_and_lasts_while_it_is_used(house: House) -> None:
    signed_in = await house.gate.sign_in(TOKEN, HOME)
    for _ in range(3):
        house.clock.now += IDLE_SECONDS - 1
        assert await house.gate.by_session(signed_in.secret) == signed_in
    house.clock.now += IDLE_SECONDS
    assert await house.gate.by_session(signed_in.secret) is None


@pytest.mark.parametrize("began_by", ["this version", "0.1"])
async def test_session_ends_after_its_longest_time_however_often_it_is_used(
    house: House, began_by: str
) -> None:
    signed_in = await house.gate.sign_in(TOKEN, HOME)
    if began_by == "0.1":
        session = await house.access.session_of(digest_of(signed_in.secret), IDLE_SECONDS)
        assert session is not None
        old = Session(session.digest, session.actor, "", session.key_id)
        await house.access.save_session(old)
    began = house.clock.now
    assert await house.gate.by_session(signed_in.secret) == signed_in
    while house.clock.now < began + LONGEST_SECONDS - 1:
        left = began + LONGEST_SECONDS - 1 - house.clock.now
        house.clock.now += min(IDLE_SECONDS / 2, left)
        assert await house.gate.by_session(signed_in.secret) == signed_in
    house.clock.now += 1
    assert await house.gate.by_session(signed_in.secret) is None
    house.clock.now -= 1
    assert await house.gate.by_session(signed_in.secret) is None


async def test_signing_out_ends_a_session_and_no_other(house: House) -> None:
    one, two = [await house.gate.sign_in(TOKEN, HOME) for _ in range(2)]
    await house.gate.sign_out(one)
    assert await house.gate.by_session(one.secret) is None
    assert await house.gate.by_session(two.secret) == two


async def test_a_revoked_key_ends_its_sessions(house: House) -> None:
    key_id, key = await house.key()
    signed_in = await house.gate.sign_in(key, HOME)
    await house.access.revoke_key("shop", key_id)
    assert await house.gate.by_session(signed_in.secret) is None


async def test_a_changed_token_ends_the_sessions_begun_with_the_old_one(house: House) -> None:
    signed_in = await house.gate.sign_in(TOKEN, HOME)
    assert await house.gate_of(OTHER_TOKEN, TOKEN).by_session(signed_in.secret) == signed_in
    assert await house.gate_of(OTHER_TOKEN).by_session(signed_in.secret) is None
    assert await house.gate_of().by_session(signed_in.secret) is None


async def test_a_form_is_good_in_its_own_session_alone(house: House) -> None:
    one, two = [await house.gate.sign_in(TOKEN, HOME) for _ in range(2)]
    check_csrf(one, csrf_token(one))
    for given in (csrf_token(two), "", "x", "é", csrf_token(one).upper() + "X", one.secret):
        with pytest.raises(FormExpired):
            check_csrf(one, given)
