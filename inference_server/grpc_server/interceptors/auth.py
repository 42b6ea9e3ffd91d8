"""Authentication: require a bearer token if the server has any, and identify each caller.

The token is sent in the metadata ``authorization: Bearer TOKEN`` (RFC 6750). Health checks need none, because load balancers
cannot send one.
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

# Name of the caller: of its token, else of its certificate, else its address.
caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="unknown")

_UNAUTHENTICATED_METHODS = f"/{health.SERVICE_NAME}/"


class AuthenticationInterceptor(CallInterceptor):
    """Rejects calls without a valid token; without tokens, accepts every call."""

    def __init__(self, tokens: TokenStore | None) -> None:
        self._tokens = tokens

    @asynccontextmanager
    async def wrap_call(self, details: grpc.HandlerCallDetails, context: Context) -> AsyncIterator[None]:
        """Identify the caller, or reject the call."""
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
                "this server requires a bearer token: send it as the metadata `authorization: Bearer TOKEN`"
            )
        if len(values) > 1:
            raise AuthenticationError(f"{len(values)} bearer tokens were sent in `authorization`: send one")
        scheme, _, token = str(values[0]).partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise AuthenticationError(
                "the metadata `authorization` contains no bearer token: expected `Bearer`, a space and the token"
            )
        name = self._tokens.get_client_name(token)
        if name is None:
            raise AuthenticationError("unknown bearer token: it may have been replaced")
        return name
