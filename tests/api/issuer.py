"""An OpenID issuer whose keys the tests hold, so that it can say what no honest one says."""

import base64
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

CLIENT, AUDIENCE = "mitosis", "https://mitosis.test/api"


@cache
def own_key(kid: str) -> RSAKey:
    """The issuers' key of that name; it takes a while to make one."""
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})


class Issuer:
    """What it publishes, and what was asked of it."""

    def __init__(self, url: str) -> None:
        self.url, self.asked, self.down = url, Counter[str](), False
        self.keys = [own_key("first")]
        self.authorized: dict[str, dict[str, list[str]]] = {}  # by code: the request for it
        self.more: dict[str, Any] = {}  # claims of the next ID token
        self.userinfo: dict[str, Any] = {}

    def token(self, key: RSAKey | None = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """An access token for this service; a claim that is changed to None is left out."""
        now, key = int(time.time()), key or self.keys[-1]
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": "1", "iat": now, "exp": now + 300, "roles": ["pathologist"]}
        said = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode({"alg": "RS256", "kid": key.kid} | (header or {}), said, key)

    def rotate(self) -> None:
        """Publish another key instead."""
        self.keys = [own_key("second")]

    def authorize(self, url: str) -> str:
        """Let somebody in who was sent here; gives the code."""
        self.authorized["code"] = parse_qs(urlsplit(url).query)
        return "code"

    def answer(self, path: str, form: dict[str, list[str]]) -> dict[str, Any]:
        """What it answers at an address. Raises ValueError where it refuses."""
        if path == "/.well-known/openid-configuration":
            names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
            names |= {"userinfo_endpoint": "userinfo", "end_session_endpoint": "end"}
            return {"issuer": self.url} | {name: f"{self.url}/{place}" for name, place in names.items()}
        if path == "/keys":
            return {**KeySet(list(self.keys)).as_dict()}
        if path == "/userinfo":
            return self.userinfo
        asked = self.authorized.pop(form["code"][0])
        digest = hashlib.sha256(form["code_verifier"][0].encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != asked["code_challenge"][0]:
            raise ValueError("another verifier")
        if form["redirect_uri"] != asked["redirect_uri"]:
            raise ValueError("another redirect_uri")
        claims = {"aud": CLIENT, "nonce": asked["nonce"][0], "name": "Ann Bee"} | self.more
        return {"access_token": "opaque", "id_token": self.token(**claims)}


@contextmanager
def issuer() -> Iterator[Issuer]:
    """An issuer that answers on a port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))

        def _answer(self, form: dict[str, list[str]]) -> None:
            found.asked[self.path] += 1
            try:
                status, content = (503, {}) if found.down else (200, found.answer(self.path, form))
            except (ValueError, KeyError):
                status, content = 400, {"error": "invalid_grant"}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  as its base has it
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Issuer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
