"""ETags: whether a client's copy of something that never changes still holds."""

import hashlib


def make_etag(*parts: bytes) -> str:
    return f'"{hashlib.sha256(b"".join(parts)).hexdigest()[:32]}"'


def is_current(etag: str, if_none_match: str | None) -> bool:
    """Tells whether the header `If-None-Match` names the ETag."""
    known = if_none_match or ""
    return etag in known or known.strip() == "*"
