"""The page at `/`: what the gateway is doing, and its fault switches, for a person. ASGI.

One file without outside assets, that asks the control API once a second.
"""

import secrets
from importlib import resources
from typing import Final

from topstep_sync.simulator.asgi import EMPTY, TEXT, Answer, Receive, Scope, Send, send_answer
from topstep_sync.simulator.control import local

PAGE: Final = (resources.files("topstep_sync.simulator") / "status_page.html").read_text("utf-8")

# Nothing but its own style, script and answers: a custom tag, say, that looks like markup does nothing here.
_POLICY: Final = "default-src 'none'; style-src 'nonce-{0}'; script-src 'nonce-{0}'; connect-src 'self'; img-src data:"


class StatusPage:
    """The ASGI application of `/`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_answer(send, self.answer(scope))

    def answer(self, scope: Scope) -> Answer:
        """The page, for whoever sits at this machine."""
        if scope["method"] not in ("GET", "HEAD"):
            return Answer(405, (EMPTY, (b"allow", b"GET, HEAD")))
        if not local(scope):
            return Answer(403, (TEXT,), b"the status page is for this machine alone")
        nonce = secrets.token_urlsafe(16)
        headers = (
            (b"content-type", b"text/html; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"content-security-policy", _POLICY.format(nonce).encode()),
        )
        return Answer(200, headers, b"" if scope["method"] == "HEAD" else PAGE.replace("NONCE", nonce).encode())
