"""What one connection may take of the server: uvicorn alone waits without end for the rest of a
request, and keeps replies for readers that have stopped reading.
"""

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_CONNECTIONS = 512  # open at once; further ones are closed


class TimedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 (`uvicorn.run(http=TimedProtocol)`). Closes a connection that does not
    send a whole head, or the rest of a refused body, within `head_seconds`, and one that takes no
    more of its reply for `read_seconds`. The time of a body is `body.py`'s."""

    head_seconds = 20.0
    read_seconds = 60.0
    _coming = _stuck = None  # timers

    def connection_made(self, transport):
        super().connection_made(transport)
        if len(self.connections) > _CONNECTIONS:
            transport.abort()
        self._watch()

    def data_received(self, data):
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self._coming = _stopped(self._coming)
        self._stuck = _stopped(self._stuck)

    def pause_writing(self):
        super().pause_writing()
        self._stuck = self.loop.call_later(self.read_seconds, self.transport.abort)

    def resume_writing(self):
        super().resume_writing()
        self._stuck = _stopped(self._stuck)

    def _watch(self):
        """Times what is to come while no request is being read or answered."""
        idle = self.conn.our_state in (h11.IDLE, h11.DONE)
        if not idle or self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._coming = _stopped(self._coming)
        elif self._coming is None:
            self._coming = self.loop.call_later(self.head_seconds, self.transport.abort)


def _stopped(timer) -> None:
    if timer is not None:
        timer.cancel()
