"""CPU time of verifying one access token in an application, with the libraries that applications use.

    tests/tools/setup --node
    tests/tools/venv/bin/python benches/libraries/measure.py

Compares PyJWT and AWS's own aws-jwt-verify (Node.js) with the bare RSA operation of OpenSSL, in interleaved rounds.
Each token is verified once, as in an application without a cache: signature, issuer, expiry, `token_use`, `client_id`.
`cargo bench --bench verify` measures the same work of cognito-authz. aws-jwt-verify is installed into a folder that is
removed afterwards.
"""

from __future__ import annotations

import base64
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jwt
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
NODE = ROOT / "tests" / "tools" / "venv" / "bin" / "node"
AWS_JWT_VERIFY = "aws-jwt-verify@5.2.1"

POOL, CLIENT, KID = "eu-west-1_AbC123xyz", "3n4b5urk1ft4fl3mg5e62d9ado", "measured"
ISSUER = f"https://cognito-idp.eu-west-1.amazonaws.com/{POOL}"
ROUNDS, TOKENS = 7, 1000


def token(key: rsa.RSAPrivateKey, number: int) -> str:
    """An access token as Cognito issues it."""
    now = int(time.time())
    claims = {
        "sub": f"{number:08x}-67be-46b0-9f39-69acf2e2f831", "cognito:groups": ["readers", "writers"], "iss": ISSUER,
        "client_id": CLIENT, "origin_jti": f"{number:08x}-0738-4f79-bb3f-1fa2a3463d51", "token_use": "access",
        "scope": "aws.cognito.signin.user.admin openid profile", "auth_time": now, "iat": now, "exp": now + 3600,
        "jti": f"{number:08x}-ba62-4080-94ed-2440a11df569", "username": f"user-{number}",
    }  # fmt: skip
    return jwt.encode(claims, key, algorithm="RS256", headers={"kid": KID})


def bare_rsa(key: rsa.RSAPublicKey, tokens: list[str]) -> float:
    parts = [text.rpartition(".") for text in tokens]
    signed = [(text.encode(), base64.urlsafe_b64decode(signature + "==")) for text, _, signature in parts]
    scheme, digest = padding.PKCS1v15(), SHA256()
    return per_token(signed, lambda one: key.verify(one[1], one[0], scheme, digest))


def pyjwt(key: rsa.RSAPublicKey, tokens: list[str]) -> float:
    def verify(text: str) -> None:
        # `aud` is not in Cognito's access tokens, so the application compares the client itself.
        claims = jwt.decode(text, key, algorithms=["RS256"], issuer=ISSUER, options={"require": ["exp", "sub"]})
        assert claims["token_use"] == "access"
        assert claims["client_id"] == CLIENT

    return per_token(tokens, verify)


def per_token(items: list[T], work: Callable[[T], None]) -> float:
    """CPU time of some work, in microseconds per item."""
    started = time.process_time()
    for item in items:
        work(item)
    return (time.process_time() - started) * 1e6 / len(items)


def aws_jwt_verify(folder: Path) -> float:
    done = subprocess.run([NODE, folder / "aws_jwt_verify.mjs", folder / "input.json"], capture_output=True, text=True,
                          check=True)
    return float(done.stdout)


def install(folder: Path) -> None:
    npm = NODE.resolve().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    options = ["--silent", "--ignore-scripts", "--no-audit", "--no-update-notifier", "--prefix", str(folder)]
    subprocess.run([NODE, npm, "install", *options, AWS_JWT_VERIFY], check=True)
    # Node.js looks for packages beside the module.
    (folder / "aws_jwt_verify.mjs").write_text((HERE / "aws_jwt_verify.mjs").read_text())


def main() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key()
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
    jwks = {"keys": [{**jwk, "kid": KID, "alg": "RS256", "use": "sig"}]}
    tokens = [token(key, number) for number in range(TOKENS)]
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install(folder)
        (folder / "input.json").write_text(json.dumps({"jwks": jwks, "pool": POOL, "client": CLIENT, "tokens": tokens}))
        ways: dict[str, Callable[[], float]] = {
            "bare RSA operation (OpenSSL, called from Python)": lambda: bare_rsa(public, tokens),
            f"PyJWT {jwt.__version__}": lambda: pyjwt(public, tokens),
            AWS_JWT_VERIFY.replace("@", " "): lambda: aws_jwt_verify(folder),
        }
        for number in range(ROUNDS):
            for label, way in list(ways.items())[:: 1 if number % 2 else -1]:
                found.setdefault(label, []).append(way())
    base = found["bare RSA operation (OpenSSL, called from Python)"]
    print(f"CPU µs per token of {len(tokens[0])} bytes: median of {ROUNDS} rounds of {TOKENS} (least to most)")
    for label in ways:
        ratio = statistics.median(one / other for one, other in zip(found[label], base, strict=True))
        times = found[label]
        print(f"{label:50} {statistics.median(times):6.1f} ({min(times):.1f} to {max(times):.1f})  {ratio:.2f}x")


if __name__ == "__main__":
    main()
