"""A model server's own page in a real browser: it works, and can do nothing to the dashboard."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
from pathlib import Path

import pytest
from fake_supervisor import FakeSupervisor, model
from fake_upstream import Call, Serve
from web_tier import WebTier

PAGE = """<!doctype html><script type="module" src="./app/main.js"></script><p id="told">nothing</p>"""
SCRIPT = """
const told = {};
const router = `http://127.0.0.1:${location.port}`;
const attempt = async (name, what) => {
    try { told[name] = await what(); } catch (error) { told[name] = error.name; }
};
const json = (method, body) => ({method, body, headers: {"Content-Type": "application/json"}});
const status = async (...request) => (await fetch(...request)).status;
await attempt("own", () => status("./v1/chat/completions", json("POST", "{}")));
await attempt("put", () => status("./thing", json("PUT", "{}")));
await attempt("storage", () => { localStorage.a = "b"; return localStorage.a; });
await attempt("use", () => status(`${router}/v1/completions`, json("POST", '{"model": "m"}')));
await attempt("dashboard", () => status(`${router}/`));
await attempt("dashboard here", () => status("/"));
await attempt("load", () => status(`${router}/models/load`, json("POST", '{"model": "m"}')));
await attempt("button", async () => {
    const form = new URLSearchParams({model: "m"});
    return (await fetch(`${router}/ui/models/load`, {method: "POST", body: form, mode: "no-cors"})).type;
});
document.getElementById("told").textContent = encodeURIComponent(JSON.stringify(told));
"""
BROWSER = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom")


def site(call: Call) -> None:
    method, path = call.line.split()[:2]
    if path.endswith(".js"):
        body, kind = SCRIPT.encode(), "text/javascript"
    elif method == "GET":
        body, kind = PAGE.encode(), "text/html"
    else:
        body, kind = b"{}", "application/json"
    call.send(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def test_a_page_of_a_model_server(web: WebTier, supervisor: FakeSupervisor, serve: Serve, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no chromium to show the page")
    supervisor.models = [model("m")]
    serve(site)
    url = f"http://upstream.localhost:{web.address[1]}/upstream/m/"
    command = [browser, *BROWSER, f"--user-data-dir={tmp_path}", url]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=90)
    found = re.search(r'id="told">([^<]*)<', shown.stdout)
    assert found is not None and found[1] != "nothing", shown.stdout + web.log_text()
    assert json.loads(urllib.parse.unquote(found[1])) == {
        "own": 200,
        "put": 200,
        "storage": "b",
        "use": 200,
        "dashboard": "TypeError",
        "dashboard here": 404,
        "load": 403,
        "button": "opaque",
    }
    assert supervisor.of("load") == []
