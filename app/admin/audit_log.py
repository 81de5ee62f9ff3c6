"""The audit log: who did, read and was refused what."""

import asyncio
import logging
import math
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from getpass import getuser
from typing import Final

from app.admin.audit_counts import OnceADay
from app.admin.audit_entries import SERVICE, AuditEntry
from app.admin.audit_limits import (
    EDITS_A_MINUTE,
    NOBODY,
    REFUSED,
    SIGN_INS_A_MINUTE,
    Pace,
    Reads,
    Refusals,
)
from app.admin.audit_store import REFUSALS_A_DAY, AuditStore
from app.admin.principal import Principal
from app.admin.roles import Permission, Role
from app.errors import FieldsInvalid, StoreUnavailable, TooOften

log = logging.getLogger(__name__)

ENTRY_ID: Final = re.compile(r"[0-9]{1,15}-[0-9]{1,19}")
MOST_ON_A_PAGE: Final = 200
REFUSALS_STOPPED: Final = "refusals.not_recorded"
KEEP_UP_SECONDS: Final = 60.0
HEAD_LOGGED_EVERY: Final = 60
LAST_WORDS_SECONDS: Final = 1.0
_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]+")


class AuditLog:
    """Record what is done, read and refused, and show it.

    `wall_clock` gives Unix seconds, `clock` monotonic ones. An action is done when it is
    recorded: nothing is raised when it cannot be. The process's own log has it in any case.
    """

    def __init__(
        self, store: AuditStore, wall_clock: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        self.store = store
        self._wall_clock = wall_clock
        self._reads = Reads(self._append, clock)
        self._refusals = Refusals(self._append_refusal, clock)
        self._refusals_told = OnceADay()
        self._edits = Pace(EDITS_A_MINUTE, clock)
        self._sign_ins = Pace(SIGN_INS_A_MINUTE, clock)

    def check_pace_of_edits(self, who: Principal) -> None:
        """Raise TooOften where a business has edited too often; operators may edit at any pace."""
        if not who.is_operator and (seconds := self._edits.take(who.business_id)):
            problem = f"a business may edit {EDITS_A_MINUTE} times a minute; try again later"
            raise TooOften(problem, math.ceil(seconds))

    def check_pace_of_sign_ins(self, who: Principal) -> None:
        """Raise TooOften where an access key has signed in too often."""
        if not who.is_operator and (seconds := self._sign_ins.take(who.actor)):
            problem = f"a key may sign in {SIGN_INS_A_MINUTE} times a minute; try again later"
            raise TooOften(problem, math.ceil(seconds))

    async def note(
        self,
        who: Principal,
        action: str,
        target: str,
        business_id: str = "",
        data: Mapping[str, str | int] | None = None,
        personal: Mapping[str, str] | None = None,
    ) -> None:
        """Record an action; never a secret, nor what a person wrote or said.

        `personal` has values that can be erased later, such as phone numbers.
        """
        log.info("[admin] %s: %s %s", who.actor, action, target)
        await self._append(
            AuditEntry(
                *(self._now_ms(), who.actor, action, target, business_id),
                data=dict(data or {}),
                address=who.address,
                personal=dict(personal or {}),
            )
        )

    async def note_read(
        self,
        who: Principal,
        action: str,
        target: str,
        business_id: str = "",
        data: Mapping[str, str | int] | None = None,
    ) -> None:
        """Record that somebody read something; see `Reads` for how often."""
        at, data = self._now_ms(), dict(data or {})
        entry = AuditEntry(
            at, who.actor, action, target, business_id, data=data, address=who.address
        )
        await self._reads.note(entry)

    async def note_refusal(self, who: Principal, what: str, reason: str, asked: str = "") -> None:
        """Record that somebody known was refused `what`; `asked`: whose thing it was."""
        data: dict[str, str | int] = {"reason": reason}
        if asked:
            data["asked_for"] = asked[:128]
        at, actor = self._now_ms(), who.actor
        entry = AuditEntry(
            at, actor, REFUSED, what, who.business_id, data=data, address=who.address
        )
        await self._refusals.note(entry)

    async def note_wrong_credentials(self, address: str, what: str) -> None:
        """Record that nobody known was refused: a wrong token, key or password."""
        data: dict[str, str | int] = {"reason": "wrong_credentials"}
        entry = AuditEntry(self._now_ms(), NOBODY, REFUSED, what, data=data, address=address)
        await self._refusals.note(entry)

    async def page(
        self, who: Principal, business_id: str | None = None, before: str = "", limit: int = 50
    ) -> list[AuditEntry]:
        """Return entries, the latest first: all, or those of one business.

        `before` is the id of the last entry of the page before; `limit` is 1 to 200.

        Raises:
            FieldsInvalid: `before` is no entry's id, or `limit` is out of range.
            NotThere: it is another business's.
        """
        if before and not ENTRY_ID.fullmatch(before):
            raise FieldsInvalid({"before": "must be the `next` of the page before"})
        if not 1 <= limit <= MOST_ON_A_PAGE:
            raise FieldsInvalid({"limit": f"must be 1 to {MOST_ON_A_PAGE}"})
        scope = who.scope(Permission.READ_AUDIT, business_id)
        found = await self.store.page(scope, before, limit)
        return found if who.is_operator else [_for_business(entry) for entry in found]

    async def run(self) -> None:
        """Record counted refusals, adopt entries of commands, log the head; until cancelled."""
        turn = 0
        try:
            while True:
                try:
                    await self._refusals.flush()
                    await self._reads.flush()
                    head = await self.store.keep_up()
                    if head is not None and turn % HEAD_LOGGED_EVERY == 0:
                        log.info("[admin] Audit log: %d entries, head %s", head.seq, head.hash)
                    turn += 1
                except StoreUnavailable as error:
                    log.warning("[admin] The audit log cannot be reached: %s", error)
                await asyncio.sleep(KEEP_UP_SECONDS)
        finally:
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._refusals.flush(all_kinds=True)
                await self._reads.flush(all_actors=True)

    async def _append(self, entry: AuditEntry) -> None:
        try:
            await self.store.append(entry)
        except StoreUnavailable as error:
            log.error("[admin] The audit log lacks this: %s", error)

    async def _append_refusal(self, entry: AuditEntry) -> None:
        try:
            whose = entry.business_id or (NOBODY if entry.actor == NOBODY else "operators")
            count, most = await self.store.count_refusal(whose), REFUSALS_A_DAY
            if count <= most:
                await self.store.append(entry)
            elif not self._refusals_told.has(whose, entry.at):
                told = AuditEntry(
                    *(entry.at, SERVICE, REFUSALS_STOPPED, whose, entry.business_id),
                    data={"most_a_day": most, "count": count},
                )
                await self.store.append(told)
                self._refusals_told.add(whose)
        except StoreUnavailable as error:
            log.warning("[admin] The audit log lacks a refusal: %s", error)

    def _now_ms(self) -> int:
        return int(self._wall_clock() * 1000)


def _for_business(entry: AuditEntry) -> AuditEntry:
    """Return an entry as a business may see it: not from where an operator works."""
    return entry if entry.actor.startswith("key:") else replace(entry, address="")


def command_principal() -> Principal:
    """Return who runs a command on this machine, as the audit log names them."""
    try:
        user = getuser()
    except (OSError, KeyError):
        user = "unknown"
    names = [_NAME.sub("_", name)[:64] for name in (user, socket.gethostname())]
    return Principal("cli:" + "@".join(names), Role.OPERATOR)
