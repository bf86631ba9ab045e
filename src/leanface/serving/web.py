"""What the service and the demo have in common as web applications: their addresses and their errors."""

import difflib
from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from leanface.serving.refusals import Refused
from leanface.serving.settings import PREFIX

ECHOED_MAX = 200
"""Of a path, in an error's text."""


class Addresses:
    """ASGI middleware: one set of routes, however they are reached.

    Under the path prefix of a reverse proxy, whether the proxy removes it or not; with a trailing slash (a redirect
    would name the wrong scheme or host behind a proxy); and by HEAD wherever GET is answered.
    """

    def __init__(self, app: ASGIApp, root_path: str = "") -> None:
        """Answer under the prefix `root_path`; without one, requests may name it as `X-Forwarded-Prefix`."""
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            prefix = self._root_path or _forwarded_prefix(scope)
            path = scope["path"]
            if prefix and (path == prefix or path.startswith(prefix + "/")):
                path = path[len(prefix) :]
            path = prefix + (path.rstrip("/") or "/")
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            scope = {**scope, "root_path": prefix, "path": path, "method": method}
        await self._app(scope, receive, send)


def _forwarded_prefix(scope: Scope) -> str:
    sent = next((value for name, value in scope["headers"] if name == b"x-forwarded-prefix"), b"").decode("latin-1")
    prefix = sent.strip().rstrip("/")
    return prefix if PREFIX.fullmatch(prefix) else ""


def respond(refused: Refused) -> Response:
    """Make an HTTP answer of an error."""
    return Response(refused.body, refused.status, refused.headers)


def furnish(app: FastAPI, root_path: str, on_refusal: Callable[[Refused], None] = lambda refused: None) -> None:
    """Give an application its addresses (`Addresses`) and its errors, all of them as JSON.

    Args:
        on_refusal: called with every error that no route has answered itself.
    """

    async def refuse(request: Request, refused: Refused) -> Response:
        on_refusal(refused)
        return respond(refused)

    async def invalid(request: Request, error: RequestValidationError) -> Response:
        wrong = "; ".join(f"{found['loc'][-1]}: {found['msg']}" for found in error.errors())
        return await refuse(request, Refused("bad_query", wrong))

    async def misdirected(request: Request, error: HTTPException) -> Response:
        path = request.url.path[:ECHOED_MAX]
        if error.status_code != 405:
            return await refuse(request, Refused("not_found", f"there is nothing at {path}."))
        allowed = sorted({"OPTIONS"} | _methods(error))
        headers = {"Allow": ", ".join(allowed)}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
        answer = await refuse(request, Refused("wrong_method", f"{path} answers {', '.join(allowed)} only."))
        answer.headers.update(headers)
        return answer

    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it

    async def failed(request: Request, error: Exception) -> Response:
        return await refuse(request, Refused("internal", f"{type(error).__name__}; the log says more."))

    app.router.redirect_slashes = False
    app.add_exception_handler(Refused, refuse)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(RequestValidationError, invalid)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(HTTPException, misdirected)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(ClientDisconnect, gone)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(Exception, failed)
    app.add_middleware(Addresses, root_path=root_path)


def _methods(error: HTTPException) -> set[str]:
    methods = {method.strip() for method in (error.headers or {}).get("Allow", "").split(",")}
    return methods | {"HEAD"} if "GET" in methods else methods


async def known_query(request: Request) -> None:
    """Refuse parameters of the query that the route does not have, or that are given twice (a dependency).

    A typo such as `fomat=glb` would otherwise be answered as if nothing had been asked for.

    Raises:
        Refused: there are such parameters.
    """
    route = request.app.openapi()["paths"][request.scope["route"].path][request.method.lower()]
    known = [parameter["name"] for parameter in route.get("parameters", []) if parameter["in"] == "query"]
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name.lower(), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}."
            raise Refused("bad_query", f"there is no parameter {name[:ECHOED_MAX]!r}; {hint}")
        if given.count(name) > 1:
            raise Refused("bad_query", f"the parameter {name} is given {given.count(name)} times; give it once.")
