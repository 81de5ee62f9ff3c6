"""Which of an audit log's oldest entries may be removed, and be signed for as removed."""

from collections.abc import Sequence

from app.admin.audit_chain import ChainKeys, hash_of, parse_link

# An entry's id, its JSON, and its link.
Stored = tuple[str, bytes, bytes | None]


def trimmable(
    log: str, oldest: Sequence[Stored], first: int, surplus: int, keys: ChainKeys
) -> tuple[Sequence[Stored], int]:
    """Return the oldest entries that may go, and the number with which the log then begins.

    They are entries without a link at the beginning, and up to `surplus` linked ones: a row that
    begins with `first`, where each is vouched for by the one after it, which stays or goes too.
    So the last of `oldest` never goes.
    """
    safe, seq, digest = 0, first, ""
    for at, (_, entry, raw) in enumerate(oldest):
        if raw is None:
            if seq == first:
                safe = at + 1
            continue
        link = parse_link(raw)
        if link is None or link.seq != seq or (seq > first and link.prev != digest):
            break
        digest = hash_of(log, link.seq, link.prev, entry)
        if keys.signs_link(link, digest) is False:
            break
        # All before this one are what was written.
        safe = at
        if seq - first >= surplus:
            break
        seq += 1
    gone = oldest[:safe]
    return gone, first + sum(raw is not None for _, _, raw in gone)
