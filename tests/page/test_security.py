"""Who is answered, and what a browser may do with the answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from alignbench import UserError
from alignbench.page.security import MOST_BYTES, Security
from alignbench.page.server import bound, create_app, serve
from alignbench.page.settings import PageSettings

HOME = "http://127.0.0.1:8400"
SECRET = "a secret of some length"


def client(tmp_path: Path, token: str = "") -> TestClient:
    return TestClient(create_app(PageSettings(tmp_path, token=token)), base_url=HOME, follow_redirects=False)


def test_every_answer_says_what_a_browser_may_do_with_it(tmp_path: Path) -> None:
    for path in ("/static/dom.js", "/no/such/page"):
        headers = client(tmp_path).get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8400", ""])
def test_another_name_that_leads_here_is_refused(tmp_path: Path, host: str) -> None:
    assert client(tmp_path).get("/session", headers={"host": host}).status_code == 400


@pytest.mark.parametrize(
    ("origin", "knows_key"), [(None, True), ("http://evil.example", True), ("null", True), (HOME, False)]
)
def test_a_change_needs_the_own_origin_and_the_key(tmp_path: Path, origin: str | None, knows_key: bool) -> None:
    page = client(tmp_path)
    key = page.get("/session").json()["key"]
    headers = {"x-alignbench-change": key if knows_key else "guessed"} | ({"origin": origin} if origin else {})
    assert page.post("/static/dom.js", headers=headers).status_code == 403
    allowed = page.post("/static/dom.js", headers={"origin": HOME, "x-alignbench-change": key})
    assert allowed.status_code == 405, "it reaches the route, which takes no changes"


def test_a_token_is_asked_of_every_visitor_and_kept_as_a_cookie(tmp_path: Path) -> None:
    page = client(tmp_path, SECRET)
    assert page.get("/session").status_code == 403
    assert page.get("/session", params={"token": "wrong"}).status_code == 403
    assert page.get("/static/dom.js").status_code == 200
    entered = page.get("/session", params={"token": SECRET})
    assert entered.status_code == 303 and "token" not in entered.headers["location"]
    assert "httponly" in entered.headers["set-cookie"].lower()
    assert page.get("/session").status_code == 200


def test_the_link_that_is_printed_opens_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a token as `openssl rand -base64` gives it, and worse."""
    monkeypatch.setattr("uvicorn.Server.run", lambda server, sockets: sockets[0].close())
    for token in ("q3+Xk/9aBcd+EfGhIjKlMg==", 'a #1 & more; "so" 100%'):
        serve(PageSettings(tmp_path, port=0, token=token))
        link = re.search(r"http://\S+", capsys.readouterr().out)
        assert link
        page = client(tmp_path, token)
        assert page.get(link[0].replace(link[0].partition("/?")[0], HOME)).status_code == 303
        assert page.get("/session").status_code == 200


@pytest.mark.parametrize("token", ["a secret of much length €", "0123456789abcdef\udcff", "0123456789abcdef\n"])
def test_a_token_that_no_cookie_holds_is_refused(tmp_path: Path, token: str) -> None:
    with pytest.raises(UserError, match="--token"):
        PageSettings(tmp_path, token=token)


@pytest.mark.parametrize("token", ["", "short"])
def test_a_page_for_other_machines_needs_a_token(tmp_path: Path, token: str) -> None:
    with pytest.raises(UserError, match="--token"):
        PageSettings(tmp_path, host="0.0.0.0", token=token)


@pytest.mark.parametrize("path", ["/static/../server.py", "/static/%2e%2e/server.py", "/static//etc/passwd"])
def test_no_path_of_a_request_leaves_the_static_folder(tmp_path: Path, path: str) -> None:
    assert client(tmp_path).get(path).status_code == 404


@pytest.mark.parametrize(("size", "status"), [(MOST_BYTES, 200), (MOST_BYTES + 1, 413)])
def test_a_body_is_read_up_to_the_limit(tmp_path: Path, size: int, status: int) -> None:
    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        taken = len(await Request(scope, receive).body())
        await PlainTextResponse(str(taken))(scope, receive, send)

    page = TestClient(Security(reads, PageSettings(tmp_path)), base_url=HOME)
    change = {"origin": HOME, "x-alignbench-change": page.get("/session").json()["key"]}
    assert page.post("/", content=b"x" * size, headers=change).status_code == status


def test_a_fault_of_ours_tells_nothing_and_keeps_the_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: object) -> None:
        raise RuntimeError("a path: /etc/passwd")

    monkeypatch.setattr("alignbench.page.rank.projects.Projects.all", fails)
    app = create_app(PageSettings(tmp_path))
    answer = TestClient(app, base_url=HOME, raise_server_exceptions=False).get("/rank")
    assert answer.status_code == 500 and "passwd" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_port_that_is_taken_is_one_line() -> None:
    first = bound(PageSettings(Path("runs"), port=0))
    with first, pytest.raises(UserError, match="in use"):
        bound(PageSettings(Path("runs"), port=first.getsockname()[1]))
    with pytest.raises(UserError, match="Cannot serve"):
        bound(PageSettings(Path("runs"), host="192.0.2.1", port=0, token="x" * 16))
