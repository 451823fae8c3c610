//! Meaning of each message of the log.

/// Meaning of each message. A message is as in the source; `{…}` stands for a text that varies.
pub(super) const MEANINGS: &[(&str, &str)] = &[
    (
        "check",
        "One check. `reason` is absent if it was allowed. `shadow_reason` takes its place if the policy is in [shadow mode](../policy-testing.md#shadow-mode), with the level that the refusal would have. `kid` is shown if the key was missing, and `trace_id` and `span_id` if the check is [traced](../tracing.md). Allowed checks are `debug`, refused ones `info`, and those that could not be decided `warn`",
    ),
    (
        "keys could not be fetched",
        "A fetch of the key set failed. `hint` is the likely cause, `failures` the number of fetches that failed in a row, and `serving` says if there are keys of an earlier fetch",
    ),
    ("key is not used", "The set has a key that cannot verify tokens: `reason` says why. `position` counts from 0"),
    (
        "keys have been replaced",
        "A fetch returned another set than the one before. `keys` is the number of keys, `skipped` of those that are not used",
    ),
    ("a reload was requested, but no policy file is configured", "SIGHUP came, and `--config` is unset"),
    ("the policy file has been reloaded", "The changed file is in effect"),
    (
        "the policy file is not reloaded; the previous one stays in effect",
        "The changed file has an error, which `error` locates. The same error is logged once",
    ),
    (
        "the keys of a new pool could not be fetched so far; until they are, checks of its tokens answer 503",
        "A reload added a pool whose keys cannot be fetched",
    ),
    (
        "{note}",
        "What a default decided because of other settings, at startup: for example, why the account API is off. `check-config` prints the same",
    ),
    ("{warning}", "A warning about the configuration, at startup or in a reload. `check-config` prints the same"),
    (
        "the file has `protected_resources`, but the account API is off: challenges name metadata that this process does not serve",
        "The reloaded file has protected resources, and the account API, which serves their metadata, is off",
    ),
    ("the TLS certificates have been reloaded", "The changed files are in effect. `expires` is a Unix time"),
    (
        "the TLS certificates are not reloaded; the previous ones stay in effect",
        "`error` names the file. The same error is logged once",
    ),
    (
        "account request",
        "One request. `outcome` is `success`, `challenge` or the [code](account-errors.md) of the error. Success is `debug`, an error of the caller `info`, and a failure `warn`",
    ),
    (
        "the account API needs its operator",
        "A setting of the app client or of the pool has to change; `advice` says which",
    ),
    (
        "answered as a success (--account-hide-users)",
        "The response hides an error of Cognito, so that it does not reveal whether the user exists",
    ),
    (
        "Cognito's answer has neither tokens nor a challenge",
        "A sign-in or refresh got an answer that makes no sense. The client gets 502",
    ),
    (
        "Cognito's answer has no access token",
        "A sign-in or refresh got an answer that makes no sense. The client gets 502",
    ),
    (
        "Cognito issued a token that does not verify",
        "A new token is refused by the rules for checks; `reason` says by which. The client gets 502",
    ),
    (
        "Cognito's answer does not say who the user is",
        "The answer has no name of the user or no `sub`. The client gets 502",
    ),
    (
        "Cognito's answer has no secret for an authenticator",
        "The setup of an authenticator app failed. The client gets 502",
    ),
    ("Cognito's answer about passkeys is incomplete", "The client gets 502"),
    ("the hosted pages ended a sign-in", "The browser came back with an error, which `code` names"),
    (
        "{message}",
        "A warning about client addresses, once in the life of the process: `requests to the account API come through a proxy (X-Forwarded-For), and --trusted-hops is unset: …`, or `X-Forwarded-For does not have a client's address where --trusted-hops says: …`",
    ),
    (
        "the origin of a page is not listed in --cors-origins",
        "A preflight or a request with cookies was refused. `refused` counts them since the last such line, and `origin` and `request_id` are those of the last one. At most once a minute",
    ),
    (
        "the metadata of the pool has no sign-in pages, which clients of protected resources need; give the pool a domain",
        "The metadata of the authorization server cannot be served. The client gets 503",
    ),
    ("a token of Cognito's does not fit into cookies", "The client gets 502 with `session_too_large`"),
    (
        "Cognito refused a call",
        "Cognito answered with an error that the caller caused. `name` is Cognito's name of the error, `aws_request_id` AWS's id of the call",
    ),
    ("a call to Cognito failed", "Cognito did not answer, or answered with an error that the caller did not cause"),
    (
        "Cognito fails: it is left alone for a while",
        "`failures` calls failed in a row. Calls fail at once until one that is tried after `pause` succeeds",
    ),
    ("Cognito answers again", "Calls are made again"),
    (
        "cannot create the TLS client for calls to Cognito",
        "The TLS settings or the certificates of the system cannot be used. The client gets 503",
    ),
    (
        "revocation",
        "A sign-out or another operation revoked tokens. `by` is the operation, `kind` the claim, and `id` a digest of its value",
    ),
    ("revocation recorded", "A revocation is kept: in memory, in the file or in the store"),
    (
        "revocation not recorded",
        "A revocation could not be kept: there is no room for it, or the file or the store did not take it",
    ),
    ("the store did not take a revocation", "The shared store failed or was too slow"),
    (
        "removed an unfinished copy of the file of revocations",
        "The previous process ended while it rewrote the file. The file itself is whole",
    ),
    ("the file of revocations cannot be compacted", "The file grows until it can. Revocations are still written"),
    (
        "dropped an incomplete write at the end of the file of revocations",
        "The previous process ended while it wrote `bytes` bytes",
    ),
    (
        "the file of revocations is not complete: the file system does not answer",
        "The process ends without the last revocations in the file",
    ),
    (
        "the file of revocations lacks revocations, which end with this process",
        "The file could not be written until the end. `missing` is their number",
    ),
    ("the file of revocations can be written again", "What could not be written is written"),
    (
        "the file of revocations cannot be written",
        "Revocations are in effect, but do not survive a restart. They are written as soon as the file can be",
    ),
    (
        "the store of revocations is not loaded after {}s; going on without the revocations of other replicas",
        "Startup does not wait longer. The store is loaded as soon as it answers",
    ),
    ("the store of revocations answers", "The store can be read: at startup, and after it was lost"),
    ("the store of revocations is still lost", "Another attempt failed"),
    (
        "the store of revocations is lost",
        "The store cannot be reached. Checks go on with what is known, or answer 503 with `--revocation-required`",
    ),
    (
        "the store of revocations has lost records; reading everything again",
        "The store was emptied, or an older state of it is back. This replica appends what the store lacks",
    ),
    (
        "a record of the store is not readable; such records are skipped",
        "The first such record. Another program, or another version, writes to the same place",
    ),
    (
        "the store has more than twice as many revocations as --revocation-capacity allows; the rest is ignored",
        "Raise `--revocation-capacity` on this replica",
    ),
    ("the store of revocations is loaded", "`entries` revocations are in effect"),
    ("revocations that the store lacked were appended", "The store has `count` revocations of this replica again"),
    ("revocations could not be put back", "Another attempt follows"),
    ("connections refused", "A listener closed `refused` connections since the last such line; `why` names the limit"),
    ("the size of the send buffer cannot be set", "The connection has the system's default"),
    (
        "connection of a peer that may not use the port ended with an error",
        "`--http-callers` does not list the network of the peer",
    ),
    (
        "HTTP connection ended with an error",
        "The client closed it early, broke the protocol, or was too slow. `client` is the name in its certificate",
    ),
    ("the socket cannot be removed", "The file of a Unix socket is left after the shutdown"),
    (
        "cannot accept connections",
        "The system refuses new connections, for example because the limit on open files is reached. Another attempt follows after `pause_ms`",
    ),
    ("a TLS handshake was not complete in time", "The client was too slow"),
    (
        "TLS handshakes failed",
        "`failed` is their number since the last such line, `error` the last reason. At most once a minute",
    ),
    ("a TLS handshake failed", "One handshake of those that the line `TLS handshakes failed` counts"),
    ("a connection could not be passed to a worker", "The connection is closed; `error` is that of the system"),
    ("connection ended with an error", "A gRPC connection broke, or broke the protocol"),
    ("an answer cannot be encoded as HTTP", "A bug: the HTTP form answers 500"),
    ("metrics cannot be rendered", "A bug: `/metrics` answers 500"),
    (
        "revocation by an operator",
        "One change by an operator: [its fields](../operations-admin.md#revoking-tokens-as-an-operator)",
    ),
    ("wrong token for the admin port", "A client sent a wrong token. `peer` is its address"),
    ("the token for the admin port was read again", "The changed file is in effect"),
    (
        "the token for the admin port was not read again; the previous one stays valid",
        "`error` names the file, and what is wrong with it",
    ),
    (
        "log lines were left out",
        "How many lines the last second lacked: [its fields](../operations-metrics.md#log-caps). The level is that of the most severe line that is missing",
    ),
    (
        "the log level was changed by an operator",
        "`until` is the Unix time at which the configured level returns. The line is logged at `info`, or at the most verbose level that is logged",
    ),
    ("the log level is the configured one again", "The time of the change is over"),
    ("the collector rejects spans", "The collector took a part of a batch"),
    ("spans are exported again", "The collector takes spans again"),
    ("spans could not be exported", "The collector fails. Spans are lost, checks are not affected"),
    ("maximum number of open connections, by the limit on open files", "The limits of the listeners, at startup"),
    (
        "the limit on open files is too low; raise the hard limit",
        "The listeners have fewer connections than they need (`ulimit -Hn`)",
    ),
    (
        "the limit on open files allows fewer gRPC connections than --grpc-max-connections; raise the hard limit",
        "`grpc` is the number in effect (`ulimit -Hn`)",
    ),
    ("listening", "A listener accepts connections"),
    ("ready", "Every pool has keys"),
    ("shutting down", "SIGTERM or SIGINT came"),
    ("stopped", "All requests were answered"),
    ("stopped with requests in flight", "`--shutdown-deadline` ended the requests that were left"),
    ("the soft limit on open files cannot be raised to the hard limit", "The soft limit applies"),
    ("stopped by a failure", "The process ends with status 1"),
    ("stopped at once by a second signal", "The process ends with status 1, without waiting for requests"),
    ("a crypto provider is already installed", "Harmless"),
];
