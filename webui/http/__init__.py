"""HTTP as the page's server speaks it: who may ask, bodies, refusals, files in ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsearch.faces import face

if TYPE_CHECKING:
    from vsearch.webui.http.bodies import Receive
    from vsearch.webui.http.connections import configured
    from vsearch.webui.http.refusals import REFUSALS, refusal, say_no
    from vsearch.webui.http.security import Access, Asgi, Guard, Scope, Send
    from vsearch.webui.http.sending import send_bytes, send_file

# fmt: off
__all__ = [
    "REFUSALS",
    "Access",
    "Asgi",
    "Guard",
    "Receive",
    "Scope",
    "Send",
    "configured",
    "refusal",
    "say_no",
    "send_bytes",
    "send_file",
]
__getattr__ = face(__name__, {
    "bodies": "Receive",
    "connections": "configured",
    "refusals": "REFUSALS refusal say_no",
    "security": "Access Asgi Guard Scope Send",
    "sending": "send_bytes send_file",
})
