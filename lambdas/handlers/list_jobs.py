"""Lists the caller's jobs, newest first, in pages."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from gorggle_lambdas.common.api_gateway import Request, Response, bad_request, require_owner, route
from gorggle_lambdas.common.job_table import JobTable, to_api
from gorggle_lambdas.common.settings import JobsSettings as Settings
from gorggle_lambdas.common.settings import load_settings

DEFAULT_LIMIT, MAX_LIMIT = 25, 100
_CURSOR_FIELDS = frozenset({"job_id", "created_at"})


@route
def handler(request: Request) -> Response:
    """Answer ``GET /jobs``."""
    owner = require_owner(request)
    limit, start = _parse_limit(request.query), _decode_cursor(request.query, owner)
    jobs, next_key = JobTable(load_settings(Settings).jobs_table).list_by_owner(owner, limit, start)
    response: dict[str, Any] = {"jobs": [to_api(job) for job in jobs]}
    if next_key:
        response["next"] = _encode_cursor(next_key)
    return Response(body=response)


def _parse_limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", str(DEFAULT_LIMIT))
    if not text.isdecimal() or not 1 <= int(text) <= MAX_LIMIT:
        raise bad_request(f"limit is {text!r}: expected an integer from 1 to {MAX_LIMIT}")
    return int(text)


def _encode_cursor(key: Mapping[str, Any]) -> str:
    text = json.dumps({name: key[name] for name in sorted(_CURSOR_FIELDS)})
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode_cursor(query: Mapping[str, str], owner: str) -> dict[str, Any] | None:
    """Decode the start key; its owner is always the caller."""
    text = query.get("next")
    if text is None:
        return None
    try:
        key = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if set(key) != _CURSOR_FIELDS or not all(isinstance(value, str) for value in key.values()):
            raise ValueError("unexpected fields")
    except (ValueError, TypeError) as error:
        raise bad_request(
            "next is not a cursor of a previous response: omit it for the first page"
        ) from error
    return {**key, "owner": owner}
