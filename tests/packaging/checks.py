"""Sends checks to cognito-authz as Envoy does: gRPC over HTTP/2 through a Unix socket, one check at a time."""

from __future__ import annotations

import socket
from pathlib import Path

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, StreamEnded, StreamReset, TrailersReceived
from h2.settings import SettingCodes

_CALL = [
    (":method", "POST"), (":scheme", "http"), (":path", "/envoy.service.auth.v3.Authorization/Check"),
    (":authority", "cognito-authz"), ("te", "trailers"), ("grpc-timeout", "10S"), ("content-type", "application/grpc"),
    ("x-envoy-internal", "true"), ("x-forwarded-for", "10.0.0.7"), ("x-envoy-expected-rq-timeout-ms", "10000"),
]
_HEADERS = {
    ":authority": "api.example.test", ":method": "GET", ":path": "/v1/orders/7f3c?expand=items&limit=50",
    ":scheme": "https", "accept": "application/json, text/plain, */*", "accept-encoding": "gzip, deflate, br, zstd",
    "accept-language": "en-GB,en;q=0.9,de;q=0.8", "origin": "https://app.example.test",
    "referer": "https://app.example.test/orders", "sec-fetch-dest": "empty", "sec-fetch-mode": "cors",
    "sec-fetch-site": "same-site",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 "
                  "Safari/537.36",
    "x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https",
    "x-request-id": "4a8f0f61-2f5b-4c0e-9d53-0d3f6f5b7c11",
}
_WINDOW = 2**31 - 1


def message(token: str | None) -> bytes:
    """A `CheckRequest` (envoy/service/auth/v3) of a browser's request, with this Bearer token or without one."""
    headers = _HEADERS if token is None else _HEADERS | {"authorization": f"Bearer {token}"}
    http = b"".join([
        _text(2, "GET"), *(_field(3, _text(1, name) + _text(2, value)) for name, value in headers.items()),
        _text(4, "/v1/orders/7f3c?expand=items&limit=50"), _text(5, "api.example.test"), _text(10, "HTTP/2"),
    ])
    return _field(1, _field(4, _field(2, http)))


def _text(number: int, value: str) -> bytes:
    return _field(number, value.encode())


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited field of protobuf's wire format."""
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    low = bytearray()
    while value > 0x7F:
        low.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*low, value])


class Checker:
    """A connection. Each check is written with one system call, so that the server reads it with one.

    The windows for answers are as large as possible: the client never sends anything between two checks.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        self._socket.connect(str(path))
        self._h2 = H2Connection(H2Configuration(header_encoding=False))
        self._h2.initiate_connection()
        self._h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW})
        self._h2.increment_flow_control_window(_WINDOW - self._h2.inbound_flow_control_window)
        self._socket.sendall(self._h2.data_to_send())

    def check(self, content: bytes) -> bytes:
        """Sends a `CheckRequest` and returns the `CheckResponse`. Raises `AssertionError` if the call fails."""
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, _CALL)
        framed = b"\0" + len(content).to_bytes(4, "big") + content
        size = self._h2.max_outbound_frame_size
        for start in range(0, len(framed), size):
            self._h2.send_data(stream, framed[start:start + size])
        self._h2.end_stream(stream)
        self._socket.sendall(self._h2.data_to_send())
        answer, status = b"", None
        while True:
            received = self._socket.recv(65536)
            assert received, "the connection ended"
            for event in self._h2.receive_data(received):
                if isinstance(event, DataReceived):
                    answer += event.data
                elif isinstance(event, TrailersReceived):
                    status = dict(event.headers or []).get(b"grpc-status")
                elif isinstance(event, StreamEnded):
                    assert status == b"0", f"grpc-status {status!r}"
                    return answer[5:]
                assert not isinstance(event, StreamReset | ConnectionTerminated), event
            if settings := self._h2.data_to_send():  # acknowledgements of settings and pings
                self._socket.sendall(settings)

    def close(self) -> None:
        self._socket.close()
