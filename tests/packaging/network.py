"""A network with nobody else in it, and the servers that a test puts there: names, keys over TLS.

Every port is free there, so programs run with the ports that they have in production, and what is started is not
reachable from anywhere else. Needs root.
"""

from __future__ import annotations

import ctypes
import datetime
import fcntl
import json
import os
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

_libc = ctypes.CDLL(None, use_errno=True)


def can_be_had() -> str | None:
    """Why there can be no network of our own, if so. (Asked in another process: this one stays where it is.)"""
    if os.geteuid() != 0:
        return "not root: a network and a root directory of one's own need it"
    child = os.fork()
    if child == 0:
        os._exit(0 if _libc.unshare(_CLONE_NEWNET) == 0 else 1)
    return None if os.waitpid(child, 0)[1] == 0 else "this kernel, or this container, allows no network namespaces"


@contextmanager
def private_network() -> Iterator[None]:
    """This thread, and all that it starts meanwhile, sees nothing but a loopback interface."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if _libc.unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            request = struct.pack("16sh14x", b"lo", 0)
            flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[1]
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
        yield
    finally:
        _libc.setns(before, _CLONE_NEWNET)
        os.close(before)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet about connections that break, as they do when the client does not trust us; else as usual."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


@contextmanager
def http_server(address: tuple[str, int], handler: type[BaseHTTPRequestHandler],
                tls: ssl.SSLContext | None = None) -> Iterator[None]:
    with _Server(address, handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def documents(by_path: dict[str, Any], log: list[str]) -> type[BaseHTTPRequestHandler]:
    """Serves JSON at these paths; `log` gets the paths that were asked for."""

    class Documents(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            log.append(self.path)
            found = self.path in by_path
            body = json.dumps(by_path.get(self.path, {})).encode()
            self.send_response(200 if found else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet."""

    return Documents


@contextmanager
def name_server(names: set[str], log: list[str]) -> Iterator[None]:
    """Answers at 127.0.0.1 that these names are 127.0.0.1, and that there are no others (RFC 1035). `log` gets the
    names that were asked for."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))

        def serve() -> None:
            while True:
                query, client = server.recvfrom(512)
                if client[0] == "127.0.0.1" and query == b"end":
                    return
                labels, end = [], 12
                while query[end]:
                    labels.append(query[end + 1:end + 1 + query[end]].decode())
                    end += 1 + query[end]
                name = ".".join(labels).lower()
                log.append(name)
                is_address = query[end + 1:end + 5] == b"\0\1\0\1"  # type A, class IN; for AAAA: none
                answer = b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4\x7f\0\0\1" if name in names and is_address else b""
                flags = 0x8580 if name in names else 0x8583  # an authoritative answer; no such name
                header = query[:2] + struct.pack(">5H", flags, 1, 1 if answer else 0, 0, 0)
                server.sendto(header + query[12:end + 5] + answer, client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            server.sendto(b"end", ("127.0.0.1", 53))
            thread.join()


class Authority:
    """A certificate authority that nobody knows, and a server's certificate of it."""

    def __init__(self, name: str) -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(self._name, self._key.public_key(), [
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (x509.KeyUsage(False, False, False, False, False, True, True, False, False), True)])

    @property
    def pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def server(self, host: str, directory: Path) -> ssl.SSLContext:
        """For a server of that name. The directory is for the key's file, which is all that OpenSSL reads."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        certificate = self._sign(subject, key.public_key(), [
            (x509.SubjectAlternativeName([x509.DNSName(host)]), False),
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), False)])
        file = directory / "server.pem"
        file.touch(mode=0o600)
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey,
              extensions: list[tuple[x509.ExtensionType, bool]]) -> x509.Certificate:
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
                   .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
                   .not_valid_after(now + datetime.timedelta(days=1)))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self._key, hashes.SHA256())
