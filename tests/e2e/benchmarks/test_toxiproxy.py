"""The real toxiproxy, built by Go: every answer comes late by what was asked for."""

import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.request import ProxyHandler, build_opener

import pytest

from benchmarks.toxiproxy import built_server, slow_store
from toolkit.folders import cache_folder


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"content")

    def log_message(self, *_):
        pass


@pytest.fixture
def store():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def answer_s(url):
    """Return the seconds that an answer takes."""
    begin = time.perf_counter()
    with build_opener(ProxyHandler({})).open(url, timeout=60) as answer:
        assert answer.read() == b"content"
    return time.perf_counter() - begin


def test_answers_are_held_back_and_the_server_goes_with_the_block(store, tmp_path):
    server = built_server(cache_folder(), log=tmp_path / "build.log")
    with slow_store(server, store, latency_ms=0, log=tmp_path / "log") as direct:
        # The quickest of several: a busy machine holds answers back, too.
        assert min(answer_s(direct) for _ in range(5)) < 0.4
    with slow_store(server, store, latency_ms=400, log=tmp_path / "log") as late:
        assert answer_s(late) >= 0.4
    with pytest.raises(OSError, match="refused"):
        answer_s(late)
