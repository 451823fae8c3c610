"""Creates a user pool, an app client and a user in the emulator, and prints `POOL CLIENT EMAIL PASSWORD`.

Usage: pool.py EMULATOR_URL. `up` runs it in the emulator's pod. The password works only with this emulator.
"""

from __future__ import annotations

import sys

from emulator import Cognito

EMAIL = "ada@example.com"
HOUR = 3600


def main(emulator: str) -> None:
    cognito = Cognito(emulator)
    pool = cognito.create_pool("kind")
    client = cognito.create_client(pool, "web", token_seconds=HOUR)
    cognito.create_group(pool, "admins")
    password = cognito.create_user(pool, EMAIL)
    print(pool, client, EMAIL, password)


if __name__ == "__main__":
    main(sys.argv[1])
