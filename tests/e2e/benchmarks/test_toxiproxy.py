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


def quickest(url):
    took = []
    for _ in range(5):
        begin = time.perf_counter()
        with build_opener(ProxyHandler({})).open(url, timeout=5) as answer:
            assert answer.read() == b"content"
        took.append(time.perf_counter() - begin)
    return min(took)


@pytest.mark.slow
def test_answers_are_held_back_and_the_server_goes_with_the_block(store, tmp_path):
    server = built_server(cache_folder(), log=tmp_path / "build.log")
    with slow_store(server, store, latency_ms=0, log=tmp_path / "log") as direct:
        assert quickest(direct) < 0.08
    with slow_store(server, store, latency_ms=80, log=tmp_path / "log") as late:
        assert quickest(late) >= 0.08
    with pytest.raises(OSError, match="refused"):
        quickest(late)
