"""Who calls: refuses calls without a known bearer token where the server wants one, and names each caller.

The token comes as RFC 6750 says, in the metadata ``authorization: Bearer TOKEN``, and nowhere else. Health checks need
none, for load balancers have none.
"""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health

from gorggle_server.errors import AuthenticationError
from gorggle_server.grpc_server.interceptors.base import CallInterceptor, Context
from gorggle_server.security.api_tokens import TokenStore

# The caller's name: of its token, else in its certificate, else its address.
caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="unknown")

_UNAUTHENTICATED_METHODS = f"/{health.SERVICE_NAME}/"


class AuthenticationInterceptor(CallInterceptor):
    """Lets calls through whose token is known; all, where no tokens are given."""

    def __init__(self, tokens: TokenStore | None) -> None:
        self._tokens = tokens

    @asynccontextmanager
    async def wrap_call(self, details: grpc.HandlerCallDetails, context: Context) -> AsyncIterator[None]:
        """Name the caller, or refuse the call."""
        if not details.method.startswith(_UNAUTHENTICATED_METHODS):
            values = [value for key, value in details.invocation_metadata if key == "authorization"]
            caller.set(self._get_caller_name(values, context))
        yield

    def _get_caller_name(self, values: list[Any], context: Context) -> str:
        if self._tokens is None:
            names = list(context.auth_context().get("x509_common_name", []))
            return names[0].decode(errors="replace") if names else context.peer().rpartition(":")[0]
        if not values:
            raise AuthenticationError(
                "this server wants a bearer token: send it as the metadata `authorization: Bearer TOKEN`"
            )
        if len(values) > 1:
            raise AuthenticationError(f"{len(values)} bearer tokens came in `authorization`: send one")
        scheme, _, token = str(values[0]).partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise AuthenticationError(
                "the metadata `authorization` holds no bearer token: expected `Bearer`, a blank and the token"
            )
        name = self._tokens.get_client_name(token)
        if name is None:
            raise AuthenticationError("the bearer token is not known here: it may have been replaced")
        return name
