"""Creates a user pool, an app client and a user in the emulator, and prints `POOL CLIENT EMAIL PASSWORD`.

Usage: pool.py EMULATOR_URL. `up` runs it in the emulator's pod. The password works only with this emulator.
"""

from __future__ import annotations

import secrets
import sys

from emulator import Cognito

EMAIL = "ada@example.com"
HOUR = 3600


def main(emulator: str) -> None:
    cognito = Cognito(emulator)
    pool = cognito.create_pool("kind")
    client = cognito.create_client(pool, "web", token_seconds=HOUR)
    cognito.create_group(pool, "admins")
    password = f"{secrets.token_urlsafe(18)}aA1"
    cognito.call("AdminCreateUser", signed=True, UserPoolId=pool, Username=EMAIL, MessageAction="SUPPRESS",
                 UserAttributes=[{"Name": "email", "Value": EMAIL}, {"Name": "email_verified", "Value": "true"}])
    cognito.call("AdminSetUserPassword", signed=True, UserPoolId=pool, Username=EMAIL, Password=password,
                 Permanent=True)
    print(pool, client, EMAIL, password)


if __name__ == "__main__":
    main(sys.argv[1])
