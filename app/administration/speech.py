"""Speech into live calls by whoever administers, where the service lets them at all."""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from app.admin.audit_log import AuditLog
from app.admin.principal import Principal
from app.admin.roles import Permission
from app.administration.commanding import Commands
from app.budget import Allowance, Budget
from app.errors import AmbiguousCall, FieldsInvalid, Forbidden, NotThere, TooMuchSpeech
from app.events import HeldStream
from app.media import Encoding, MediaFormat
from app.playback.commands import Clear, Play
from app.store.base import Store

OFF: Final = "nobody may speak into calls here: ADMIN_MAY_SPEAK is not set"
GONE: Final = "there is no live call of this id; it may have ended already"
# Speech comes in several pieces a second; it is written down when it begins, and so often.
NOTED_EVERY_SECONDS: Final = 60.0
# Pieces of one business's keys in a process. The pages send four a second for each who speaks.
PIECES: Final = Allowance(200, 50)
MAX_BUSINESSES: Final = 10_000


class LiveSpeech:
    """Speak into live calls, and silence them. `clock` gives monotonic seconds.

    `is_on` tells whether anybody may.
    """

    def __init__(
        self,
        store: Store,
        audit: AuditLog,
        commands: Commands,
        clock: Callable[[], float],
        *,
        is_on: bool,
    ) -> None:
        self._store = store
        self._audit = audit
        self._commands = commands
        self._clock = clock
        self._is_on = is_on
        self._noted: dict[tuple[str, str], float] = {}
        self._budgets: OrderedDict[str, Budget] = OrderedDict()

    def is_for(self, who: Principal) -> bool:
        """Tell whether they may speak."""
        return self._is_on and who.may(Permission.SPEAK)

    async def play(
        self,
        who: Principal,
        call_sid: str,
        business_id: str | None,
        pcm16: bytes,
        sample_rate: int,
        *,
        more: bool,
    ) -> str:
        """Say PCM16 into a live call, behind what was said before; give the command's id.

        With `more`, what follows joins it, and is answered for both.

        Raises:
            NotThere: there is no such live call.
            AmbiguousCall: live calls of several businesses have this id.
            Forbidden: they may not, or the call's plan has no `return_audio`.
            FieldsInvalid: there is no audio, or half a sample.
            TooMuchSpeech: the business's pieces come too fast.
            StoreUnavailable: Redis cannot be reached.
        """
        if who.business_id and not self._budget_of(who.business_id).spend():
            raise TooMuchSpeech(
                f"more than {PIECES.a_second:.0f} pieces of speech a second came from your "
                "business; send longer pieces"
            )
        held = await self._held(who, call_sid, business_id)
        sound = MediaFormat(Encoding.PCM16, sample_rate)
        if not pcm16 or len(pcm16) % sound.encoding.bytes_per_sample:
            raise FieldsInvalid({"body": "must be whole samples of PCM16"})
        plan = await self._store.plan(held.call.plan)
        if plan is not None and not plan.return_audio:
            raise Forbidden(f"the call's plan, {plan.name}, has no return_audio")
        await self._note(who, held)
        command = Play("" if more else secrets.token_hex(8), pcm16, sound, is_named=not more)
        if not await self._commands.write(held, command):
            raise NotThere(GONE)
        return command.id

    async def clear(self, who: Principal, call_sid: str, business_id: str | None) -> str:
        """Silence a live call at once, whoever speaks; give the command's id.

        Raises:
            NotThere: there is no such live call.
            AmbiguousCall: live calls of several businesses have this id.
            Forbidden: they may not.
            StoreUnavailable: Redis cannot be reached.
        """
        held = await self._held(who, call_sid, business_id)
        await self._audit.note(who, "call.silenced", call_sid, held.call.business_id)
        command = Clear(secrets.token_hex(8))
        if not await self._commands.write(held, command):
            raise NotThere(GONE)
        return command.id

    def _budget_of(self, business_id: str) -> Budget:
        budget = self._budgets.pop(business_id, None) or Budget(PIECES, self._clock)
        self._budgets[business_id] = budget
        if len(self._budgets) > MAX_BUSINESSES:
            self._budgets.popitem(last=False)
        return budget

    async def _held(self, who: Principal, call_sid: str, business_id: str | None) -> HeldStream:
        """Find the latest live stream of a call that they may speak into."""
        scope = who.scope(Permission.SPEAK, business_id)
        if not self._is_on:
            raise Forbidden(OFF)
        found = [
            held
            for held in await self._store.held_streams()
            if held.call.call_sid == call_sid and scope in (None, held.call.business_id)
        ]
        if not found:
            raise NotThere(GONE)
        owners = {held.call.business_id for held in found}
        if len(owners) > 1:
            raise AmbiguousCall(owners)
        return max(found, key=lambda held: held.started_at)

    async def _note(self, who: Principal, held: HeldStream) -> None:
        now, of = self._clock(), (who.actor, held.call.stream_sid)
        self._noted = {one: at for one, at in self._noted.items() if now - at < NOTED_EVERY_SECONDS}
        if of not in self._noted:
            self._noted[of] = now
            call = held.call
            await self._audit.note(who, "call.spoken_into", call.call_sid, call.business_id)
