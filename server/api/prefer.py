"""The header `Prefer` (RFC 7240), of which `wait` is understood here."""

import re
from collections.abc import Iterable
from urllib.request import parse_http_list

# The name in any case, white space around the sign, the number in quotes or not, parameters behind it.
WAIT = re.compile(r'wait\s*=\s*("?)(\d{1,18})\1\s*(?:;.*)?', re.ASCII | re.IGNORECASE)


def preferred_wait(headers: Iterable[str]) -> int | None:
    """The seconds of the first `wait=N` in all `Prefer` headers of a request.

    None where there is none, or where its value is no whole number: a preference that cannot be read is ignored.
    """
    for preference in parse_http_list(",".join(headers)):
        name = re.split(r"[=;]", preference, maxsplit=1)[0]
        if name.strip().lower() == "wait":
            found = WAIT.fullmatch(preference.strip())
            return int(found[2]) if found else None
    return None
