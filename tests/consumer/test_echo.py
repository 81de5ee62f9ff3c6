"""The echo, as a process of its own, in a call that listens."""

from pathlib import Path

from app.audio import mulaw_to_pcm16
from app.tools.caller import speech_frames
from tests.consumer.test_examples import example
from tests.playback.conftest import service, settings
from tests.playback.listener import listening
from tests.service import Service, a_peer
from tests.waiting import until

__all__ = ["service", "settings"]

FRAMES = speech_frames()[:60]


async def test_the_echo_says_back_what_is_said(service: Service, tmp_path: Path) -> None:
    output = tmp_path / "said"
    with example(service, output, "examples/echo.py"):
        async with a_peer(service, "/twilio-media?businessId=talking", headers={}) as peer:
            await peer.start()
            async with listening(peer.socket, peer.stream_sid) as listener:
                for frame in FRAMES:
                    await peer.media(payload=frame)
                said = b"".join(FRAMES)
                await listener.heard(said)
                assert mulaw_to_pcm16(listener.sent) == mulaw_to_pcm16(said)
                await peer.stop()
                ended = f"{peer.call_sid} ended: stop"
                await until(lambda: ended in output.read_text(), output.read_text)
