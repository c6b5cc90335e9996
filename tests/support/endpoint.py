"""An endpoint of OpenAI's chat form that replies as a test says."""

import contextlib
import http.server
import json
import threading
import time


def chat_reply(text: str) -> tuple[int, bytes]:
    """The status and body of a reply."""
    body = {"model": "made-1", "choices": [{"message": {"role": "assistant", "content": text}}]}
    return 200, json.dumps(body).encode()


@contextlib.contextmanager
def endpoint(reply):
    """(base URL, the requests so far, each (body, headers)).

    reply: of (body, number of the request from 0) -> (status, body), ... and headers; or a number
    of seconds, after which the connection ends without a reply.
    """
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((body, dict(self.headers)))
            answer = reply(body, len(seen) - 1)
            if isinstance(answer, float):
                time.sleep(answer)
                return
            status, content, *headers = answer
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):  # who asked has left
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
