"""One entry of a stream as the XADD that writes it: packed by a template, since every frame is."""

from functools import lru_cache

from app.events import AudioEntry
from app.media import Track
from app.pubsub.base import Append, audio_key, entry_fields
from app.pubsub.redis_link import packed

# As many streams as are live in one process; another one's is made again.
_REMEMBERED = 4096
_TRACKS = {track: b"$%d\r\n%b" % (len(track), track.encode()) for track in Track}
# RESP, "Sending commands": an array of bulk strings, each with its length. The
# first part is the stream's, and followed by the id and the fields.
_AUDIO = (
    b"*%d\r\n%b$%d\r\n%b\r\n"
    b"$3\r\nseq\r\n$%d\r\n%b\r\n$2\r\nts\r\n$%d\r\n%b\r\n$5\r\ntrack\r\n%b\r\n%b"
    b"$5\r\naudio\r\n$%d\r\n%b\r\n"
)
_ARGUMENTS = 15


def pack_append(append: Append) -> bytes:
    """Pack `XADD audio:{STREAM} NOMKSTREAM MAXLEN ~ MAX ID FIELD VALUE ...`.

    The opening makes the stream and says for how long it is kept. What was erased or expired
    must not come back without that.
    """
    entry = append.entry
    if type(entry) is not AudioEntry:
        place = ("NOMKSTREAM", "MAXLEN", "~", append.max_entries, f"{append.id_ms}-{append.n}")
        fields = (part for field in entry_fields(entry).items() for part in field)
        return packed("XADD", audio_key(append.stream), *place, *fields)
    entry_id = b"%d-%d" % (append.id_ms, append.n)
    seq = b"%d" % entry.seq
    ts = b"%d" % entry.ts
    frames, arguments = b"", _ARGUMENTS
    if entry.frames != 1:
        frames, arguments = _frames(entry.frames), _ARGUMENTS + 2
    return _AUDIO % (
        arguments,
        _beginning(append.stream, append.max_entries),
        len(entry_id),
        entry_id,
        len(seq),
        seq,
        len(ts),
        ts,
        _TRACKS[entry.track],
        frames,
        len(entry.audio),
        entry.audio,
    )


def _frames(count: int) -> bytes:
    return b"$6\r\nframes\r\n$%d\r\n%d\r\n" % (len(str(count)), count)


@lru_cache(_REMEMBERED)
def _beginning(stream: str, max_entries: int) -> bytes:
    """Pack what all of a stream's entries begin with, but for the count of arguments."""
    whole = packed("XADD", audio_key(stream), "NOMKSTREAM", "MAXLEN", "~", max_entries)
    return whole.partition(b"\r\n")[2]
