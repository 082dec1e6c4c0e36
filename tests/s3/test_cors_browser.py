"""A page in a real browser, from another origin: presigned PUT and GET, an ETag it may read, and what it may not.

The page is served by a server of the test's own and writes what it saw into its document, which Chromium prints.
"""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
import threading

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.client]

PAGE = """<!doctype html><title>page</title><pre id="seen">waiting</pre><script>
const links = %s;
async function attempt(method, url, options) {
  try {
    const answer = await fetch(url, {method, ...options});
    return {status: answer.status, etag: answer.headers.get("etag"), hidden: answer.headers.get("x-amz-request-id"),
            body: await answer.text()};
  } catch (error) { return {refused: error.name}; }
}
(async () => {
  const seen = {};
  seen.put = await attempt("PUT", links.put, {body: "from the page", headers: {"content-type": "text/plain"}});
  seen.get = await attempt("GET", links.get, {});
  seen.missing = await attempt("GET", links.missing, {});
  seen.delete = await attempt("DELETE", links.delete, {});
  seen.closed = await attempt("GET", links.closed, {});
  document.getElementById("seen").textContent = JSON.stringify(seen);
})();
</script>"""


@pytest.fixture
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium here")


@pytest.fixture
def serve_page():
    servers = []

    def serve(text: str) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_page_of_another_origin_does_what_the_rules_allow(
    chromium, serve_page, s3, root, server, bucket, tmp_path
):
    if server.tls:
        pytest.skip("the browser does not know the test's certificate")
    closed = f"{bucket}-closed"[-60:].strip("-")
    s3.create_bucket(Bucket=closed)
    s3.put_object(Bucket=closed, Key="k", Body=b"secret")

    def link(method, key, in_bucket=bucket):
        return server.url + root.presign(method, f"/{in_bucket}/{key}").target

    links = {
        "put": link("PUT", "new"),
        "get": link("GET", "new"),
        "missing": link("GET", "missing"),
        "delete": link("DELETE", "new"),
        "closed": link("GET", "k", closed),
    }
    origin = serve_page(PAGE % json.dumps(links))
    rule = {
        "AllowedOrigins": [origin],
        "AllowedMethods": ["GET", "PUT"],
        "AllowedHeaders": ["content-type"],
        "ExposeHeaders": ["ETag"],
    }
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    done = subprocess.run(
        [
            chromium,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            f"--user-data-dir={tmp_path / 'profile'}",
            *("--virtual-time-budget=20000", "--timeout=30000", "--dump-dom", f"{origin}/"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    seen = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert seen["put"].get("status") == 200, seen
    etag = s3.head_object(Bucket=bucket, Key="new")["ETag"]
    assert seen["put"] == {"status": 200, "etag": etag, "hidden": None, "body": ""}
    assert (seen["get"]["status"], seen["get"]["body"], seen["get"]["etag"]) == (200, "from the page", etag)
    assert seen["missing"]["status"] == 404
    assert "NoSuchKey" in seen["missing"]["body"]
    assert seen["delete"] == {"refused": "TypeError"}  # its preflight was
    assert seen["closed"] == {"refused": "TypeError"}
