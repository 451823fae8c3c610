"""Creates the user pool, app client, group and user in the emulator, and writes cognito-authz's settings to a file.

Usage: setup.py EMULATOR_URL FILE. It uses deploy/local/emulator.py, so that both stacks have the same kind of pool.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import web
from emulator import REGION, Cognito

EMAIL = "ada@example.com"
DAY = 24 * 3600
WAIT_SECONDS = 60.0


def main(emulator: str, file: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not web.is_ok(f"{emulator}/_ministack/health"):
        if time.monotonic() > deadline:
            sys.exit(f"the emulator at {emulator} is not ready after {WAIT_SECONDS:.0f} s")
        time.sleep(0.2)
    cognito = Cognito(emulator)
    pool = cognito.create_pool("compose")
    client = cognito.create_client(pool, "web", token_seconds=DAY)
    cognito.create_group(pool, "admins")
    password = cognito.create_user(pool, EMAIL)
    # Written under another name and renamed, so that the file is complete or absent, even if this program is killed.
    new = file.with_suffix(".new")
    new.write_text(f"AWS_REGION={REGION}\nCOGNITO_USER_POOL_ID={pool}\nCOGNITO_CLIENT_ID={client}\n")
    new.rename(file)
    # This password works only with this emulator.
    print(f"""Sign in, then send a request with the access token:

curl -s http://127.0.0.1:8081/auth/login -H 'Content-Type: application/json' \\
  -d '{{"email": "{EMAIL}", "password": "{password}"}}'
curl -i http://127.0.0.1:8081/orders -H "Authorization: Bearer $ACCESS_TOKEN" """, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
