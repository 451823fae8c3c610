//! Examples at the end of each command's `--help`, and in the manual page. A test runs them.

/// Example of a command.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// Command as its help names it; empty for the program without a command.
    pub command: &'static str,
    /// What the example does.
    pub what: &'static str,
    /// Command line for a POSIX shell.
    pub line: &'static str,
}

const fn example(command: &'static str, what: &'static str, line: &'static str) -> Example {
    Example { command, what, line }
}

/// Examples of all commands, in the order of the help. Lines have at most 76 characters, so that none is wrapped.
pub const EXAMPLES: &[Example] = &[
    example(
        "",
        "Check requests with the tokens of one app client",
        "cognito-authz --user-pool-id eu-west-1_AbC123xyz \\\n  --client-id 7example23clientid45abcdefg",
    ),
    example("", "The same with the settings of .env, and a policy file", "cognito-authz --config policy.yaml"),
    example("serve", "Serve with the settings of .env or the environment", "cognito-authz serve"),
    example(
        "serve",
        "Beside Envoy, over a Unix socket, with a policy file",
        "cognito-authz serve --grpc-listen unix:/run/cognito-authz/authz.sock \\\n  --config policy.yaml",
    ),
    example(
        "check-config",
        "Check the settings of .env and a policy file",
        "cognito-authz check-config --config policy.yaml",
    ),
    example(
        "check-config",
        "Check a policy file that defines no pool, where no pool is set",
        "cognito-authz check-config --config policy.yaml \\\n  --user-pool-id eu-west-1_AbC123xyz --client-id any",
    ),
    example(
        "check-config",
        "Fetch the keys of each pool, too",
        "cognito-authz check-config --config policy.yaml --online",
    ),
    example(
        "config-schema",
        "Let an editor complete and check policy files",
        "cognito-authz config-schema > policy.schema.json",
    ),
    example(
        "config-schema",
        "The same for the tables of `test-policy`",
        "cognito-authz config-schema --test-table > table.schema.json",
    ),
    example("healthcheck", "Ask the instance on this machine", "cognito-authz healthcheck"),
    example(
        "healthcheck",
        "Ask an instance over TLS",
        "cognito-authz healthcheck --admin https://authz.internal:9190 \\\n  --admin-ca-file ca.pem",
    ),
    example(
        "explain",
        "Show why a request is allowed or denied",
        "cognito-authz explain --config policy.yaml \\\n  --method POST --path /orders < token.txt",
    ),
    example(
        "explain",
        "The same with a body, as JSON",
        "cognito-authz explain --config policy.yaml --json \\\n  --method POST --path /mcp --body message.json < token.txt",
    ),
    example(
        "doctor",
        "Examine the settings and Envoy's configuration",
        "cognito-authz doctor --config policy.yaml --envoy envoy.yaml",
    ),
    example("doctor", "Ask Cognito, too", "cognito-authz doctor --config policy.yaml --online"),
    example(
        "test-policy",
        "Run the tests of a policy file",
        "cognito-authz test-policy --config policy.yaml requests.yaml",
    ),
    example(
        "revoke",
        "Refuse all tokens that a user has now",
        "cognito-authz revoke --sub 5f3c1b7e-0d0a-4c6e-9a51-2f1d8e7c4b10 \\\n  --reason \"lost laptop\" --admin-token-file admin-token.txt",
    ),
    example(
        "revoke",
        "Refuse one token",
        "cognito-authz revoke --jti 0a1b2c3d-1111-2222-3333-444455556666 \\\n  --admin-token-file admin-token.txt",
    ),
    example(
        "revocations",
        "List the revocations in effect",
        "cognito-authz revocations --admin-token-file admin-token.txt",
    ),
    example(
        "revocations",
        "Let the tokens of a revocation pass again",
        "cognito-authz revocations lift 00112233445566778899aabbccddeeff \\\n  --admin-token-file admin-token.txt",
    ),
    example(
        "revocations list",
        "Show the revocation of a user, as JSON",
        "cognito-authz revocations list --json \\\n  --sub 5f3c1b7e-0d0a-4c6e-9a51-2f1d8e7c4b10 \\\n  --admin-token-file admin-token.txt",
    ),
    example(
        "revocations lift",
        "Lift the revocation with the id that `revoke` printed",
        "cognito-authz revocations lift 00112233445566778899aabbccddeeff \\\n  --admin-token-file admin-token.txt",
    ),
    example("log-level", "Show the level in effect", "cognito-authz log-level --admin-token-file admin-token.txt"),
    example(
        "log-level",
        "Log more for ten minutes",
        "cognito-authz log-level debug --for 10m \\\n  --admin-token-file admin-token.txt",
    ),
    example(
        "completions",
        "bash",
        "cognito-authz completions bash \\\n  > ~/.local/share/bash-completion/completions/cognito-authz",
    ),
    example("completions", "zsh, with ~/.zfunc in fpath", "cognito-authz completions zsh > ~/.zfunc/_cognito-authz"),
    example(
        "completions",
        "fish",
        "cognito-authz completions fish \\\n  > ~/.config/fish/completions/cognito-authz.fish",
    ),
    example("man", "Read the manual page", "cognito-authz man | man -l -"),
    example("man", "Install it for this user", "cognito-authz man > ~/.local/share/man/man1/cognito-authz.1"),
];

/// Returns the examples of a command.
pub fn of(command: &str) -> impl Iterator<Item = Example> {
    EXAMPLES.iter().copied().filter(move |example| example.command == command)
}

/// Returns the examples of a command as the end of its help.
pub(super) fn text(command: &str) -> String {
    let shown = |Example { what, line, .. }| format!("\n  {what}:\n    {}", line.replace('\n', "\n    "));
    format!("Examples:{}", of(command).map(shown).collect::<String>())
}
