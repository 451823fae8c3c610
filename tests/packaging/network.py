"""Servers for tests (HTTP, HTTPS, DNS), and a private network in which to run them.

In the private network every port is free, so programs use their production ports, and nothing is reachable from
outside. It needs root; the servers do not.
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
from typing import Any, final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

_libc = ctypes.CDLL(None, use_errno=True)


def why_not_private() -> str | None:
    """The reason why a private network cannot be created; `None` if it can. (A child process tries it.)"""
    if os.geteuid() != 0:
        return "not root: a private network and a root directory need it"
    child = os.fork()
    if child == 0:
        os._exit(0 if _libc.unshare(_CLONE_NEWNET) == 0 else 1)
    return None if os.waitpid(child, 0)[1] == 0 else "this kernel or container does not allow network namespaces"


@contextmanager
def private_network() -> Iterator[None]:
    """This thread, and everything that it starts in the block, has only a loopback interface."""
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
        """Ignores broken connections, which are normal if the client does not trust the certificate."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


@contextmanager
def http_server(address: tuple[str, int], handler: type[BaseHTTPRequestHandler],
                tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """An HTTP or HTTPS server; yields its address, `HOST:PORT`."""
    with _Server(address, handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield "{}:{}".format(*server.server_address)
        finally:
            server.shutdown()
            thread.join()


def documents(by_path: dict[str, Any], log: list[str]) -> type[BaseHTTPRequestHandler]:
    """A handler that serves JSON documents by path, and appends the path of each request to `log`."""

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
            """Does not log."""

    return Documents


@final
class NameServer:
    """A DNS server on 127.0.0.1 (RFC 1035). It answers with the A records of `addresses`, which a test can change.

    `questions` lists the queried names.
    """

    def __init__(self, addresses: dict[str, list[str]], port: int = 0) -> None:
        self.addresses = addresses
        self.questions: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> NameServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing the socket would not wake the thread up; a message that is too short for a query ends it.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def resolver(self) -> dict[str, Any]:
        """`typed_dns_resolver_config` of an Envoy cluster that uses this server."""
        address, port = self._socket.getsockname()
        return {"name": "envoy.network.dns_resolver.cares", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": [{"socket_address": {"protocol": "UDP", "address": address, "port_value": port}}],
            "dns_resolver_options": {"no_default_search_domain": True}}}

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(512)
            if len(query) < 12:
                return
            labels, end = [], 12
            while query[end]:
                labels.append(query[end + 1:end + 1 + query[end]].decode())
                end += 1 + query[end]
            name = ".".join(labels).lower()
            self.questions.append(name)
            is_ipv4 = query[end + 1:end + 5] == b"\0\1\0\1"  # type A, class IN; AAAA gets an empty answer
            found = [socket.inet_aton(address) for address in self.addresses.get(name, [])] if is_ipv4 else []
            flags = 0x8580 if name in self.addresses else 0x8583  # authoritative answer, or NXDOMAIN
            header = query[:2] + struct.pack("!5H", flags, 1, len(found), 0, 0)
            records = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 1, 4) + address for address in found)
            self._socket.sendto(header + query[12:end + 5] + records, client)


class Authority:
    """A new certificate authority that issues server certificates."""

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
        """TLS settings of a server for `host`. Writes the key to a file in `directory`: OpenSSL reads only files."""
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
        now = datetime.datetime.now(datetime.UTC)
        builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
                   .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
                   .not_valid_after(now + datetime.timedelta(days=1)))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self._key, hashes.SHA256())
