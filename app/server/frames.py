"""WebSocket frames as bytes (RFC 6455, 5.2): the few facts that need no parser."""

from typing import Any, Final

from websockets.frames import Frame

from app.server.rules import LIGHT_BYTES

try:
    from websockets.speedups import apply_mask
except ImportError:  # no compiler when it was installed
    from websockets.utils import apply_mask

# FIN and no extension, with the opcode of text or binary data.
_TEXT: Final = 0x81
_BINARY: Final = 0x82
_MASKED: Final = 0x80
_LENGTH_IN_16_BITS: Final = 126
_MASK_BYTES: Final = 4


def whole_message(data: bytes, at: int) -> tuple[str | bytes, int] | None:
    """Read the message that lies whole at `at`; give it, and where the next bytes begin.

    Only one in a single, masked data frame of `LIGHT_BYTES` to 65,535 bytes, text
    of it in UTF-8: as nearly every message is. None for anything else, and for one
    of which a part is still to come.
    """
    size = len(data)
    if size - at < LIGHT_BYTES:
        return None
    opcode = data[at]
    length = data[at + 1] - _MASKED
    begin = at + 2 + _MASK_BYTES
    if length == _LENGTH_IN_16_BITS:
        length = data[at + 2] << 8 | data[at + 3]
        begin += 2
    elif length > _LENGTH_IN_16_BITS:
        return None
    end = begin + length
    if length < LIGHT_BYTES or end > size or opcode not in (_TEXT, _BINARY):
        return None
    payload = apply_mask(data[begin:end], data[begin - _MASK_BYTES : begin])
    if opcode == _BINARY:
        return payload, end
    try:
        return payload.decode(), end
    except UnicodeDecodeError:
        return None


def wire_bytes(event: Any) -> int:
    """Count the bytes of a peer's frame as it came; 0 of what is no frame.

    "the minimal number of bytes MUST be used to encode the length": a frame that
    used more had more bytes than this tells.
    """
    if not isinstance(event, Frame):
        return 0
    size = len(event.data)
    longer = 0 if size < 126 else 2 if size < 65536 else 8
    return 2 + longer + _MASK_BYTES + size
