//! `reasons.md`: every denial, from the table in `src/authz/denial.rs` and its doc comments.

use cognito_authz::authz::{Challenge, Denial, Fault};

use super::{assert_names, code, page, plain, source, table};

const ABOUT: &str = "\
Why `cognito-authz` refuses a request. The table lists the checks in the order in which they run;
the first one that fails determines the reason.";

const RESPONSE: &str = r#"
## The response to a refusal

A refusal is JSON, with `Cache-Control: no-store`:

```json
{"error": "invalid_token", "reason": "expired", "message": "The token has expired.", "request_id": "5e1b9c3a-…"}
```

- `request_id` leads to the [log line](../operations-metrics.md#a-request-that-a-user-quotes).
- Challenges are `WWW-Authenticate: Bearer realm="api"` (RFC 6750, [`--realm`](options.md#realm)),
  with `error` and `error_description` if a token was sent.
- If the policy has [`sign_in: redirect`](../policy-browsers.md#sign-in-by-redirect), a browser that opens a
  page gets 302 to the sign-in in place of a 401.
- The policy file can make refusals [readable for pages of other
  origins](../policy-browsers.md#refusals-that-pages-of-other-origins-can-read).
- gRPC callers receive status 16 (401), 7 (403) or 14 (503) through Envoy.

The [metric](metrics.md) `cognito_authz_checks_total` has the reason in the label `reason`, and the
column *decision* in the label `decision`. The dynamic metadata has [both as
well](headers.md#dynamic-metadata). [Troubleshooting](../troubleshooting.md) starts from what users
see, and [`cognito-authz explain`](../policy-testing.md#explaining-a-decision) goes through one request.

## Checks without a decision

Every message that can be decoded gets a decision. gRPC errors remain for three cases: a message
that cannot be decoded (`INVALID_ARGUMENT`), a message larger than
[`--grpc-max-message-bytes`](options.md#grpc-max-message-bytes) (`RESOURCE_EXHAUSTED`), and a passed
deadline (`DEADLINE_EXCEEDED`). With Envoy's `failure_mode_allow: true`, such an error lets the
request pass, so leave that setting off.

## Each reason
"#;

/// Pages about a reason.
const MORE: &[(&str, &str)] = &[
    (
        "no_http_request",
        "[hosts](../policy-routes.md#hosts-that-can-be-read-in-two-ways) and [bodies](../mcp-policy.md#bodies-that-are-refused) that can be read in two ways",
    ),
    ("unknown_policy", "[how Envoy names a policy](../policy.md#naming-a-policy-in-envoy)"),
    ("unsafe_path", "[paths that can be read in two ways](../policy-routes.md#paths-that-can-be-read-in-two-ways)"),
    (
        "missing_credential",
        "[other places of the credential](../policy-browsers.md#other-places-of-the-credential), and [everyone gets 401 although the clients send a token](../troubleshooting-401.md#everyone-gets-401-although-the-clients-send-a-token)",
    ),
    ("malformed_token", "[the rules for tokens](../security.md#tokens)"),
    (
        "unknown_issuer",
        "[everyone gets 401 since the pool was changed](../troubleshooting-401.md#everyone-gets-401-since-the-pool-was-changed)",
    ),
    (
        "wrong_client",
        "[everyone gets 401 since the app client was changed](../troubleshooting-401.md#everyone-gets-401-since-the-app-client-was-changed)",
    ),
    (
        "expired",
        "[some requests get 401, and the users did not notice anything](../troubleshooting-401.md#some-requests-get-401-and-the-users-did-not-notice-anything)",
    ),
    (
        "unknown_kid",
        "[some requests get 401 with an unknown key](../troubleshooting-401.md#some-requests-get-401-with-an-unknown-key)",
    ),
    ("revoked", "[revocation](../revocation.md)"),
    ("insufficient_scope", "[requirements of a policy](../policy.md#requirements)"),
    (
        "insufficient_group",
        "[some users get 403 on one page](../troubleshooting-403.md#some-users-get-403-on-one-page)",
    ),
    (
        "claim_mismatch",
        "[claims](../policy.md#claims), and [one tenant is refused since a deploy](../troubleshooting-403.md#one-tenant-is-refused-since-a-deploy)",
    ),
    ("auth_too_old", "[requirements of a policy](../policy.md#requirements)"),
    (
        "cross_site",
        "[browser sessions in cookies](../account-browsers.md#browser-sessions-in-cookies), and [reading works, and writing gets 403](../troubleshooting-403.md#reading-works-and-writing-gets-403)",
    ),
    ("identity_too_large", "[identity headers](headers.md)"),
    ("keys_unavailable", "[checks get 503](../troubleshooting-503.md)"),
    ("revocation_unavailable", "[the shared store](../revocation-store.md)"),
];

/// Descriptions of the denials, in order: the name of each, and its doc comment.
fn descriptions(code: &str) -> Vec<(String, String)> {
    let (_, rows) = code.split_once("\ndenials! {\n").unwrap();
    let (rows, _) = rows.split_once("\n}\n").unwrap();
    let mut found = Vec::new();
    let mut text = String::new();
    for line in rows.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)) {
        if let Some(more) = line.strip_prefix("///") {
            text.push_str(more);
        } else if let Some((name, _)) = line.split_once(" =").filter(|_| line.starts_with(|c: char| c.is_uppercase())) {
            found.push((name.to_owned(), plain(&std::mem::take(&mut text))));
        }
    }
    found
}

fn decision(denial: Denial) -> &'static str {
    if denial.fault() == Fault::Service { "error" } else { "deny" }
}

/// Header of the response that is special for this denial.
fn header(denial: Denial) -> String {
    let error =
        format!("WWW-Authenticate: Bearer realm=\"api\", error=\"{}\", error_description=\"…\"", denial.error());
    match denial.challenge() {
        Challenge::Realm => code("WWW-Authenticate: Bearer realm=\"api\""),
        Challenge::Error => code(&error),
        Challenge::Scope => code(&format!("{error}, scope=\"…\"")),
        Challenge::StepUp => code(&format!("{error}, acr_values=\"…\", max_age=\"…\"")),
        Challenge::None if denial.fault() == Fault::Service => code("Retry-After: 5"),
        Challenge::None => code(""),
    }
}

#[test]
fn reasons() {
    let text = source("authz/denial.rs");
    let descriptions = descriptions(&text);
    let names: Vec<String> = Denial::ALL.iter().map(|denial| format!("{denial:?}")).collect();
    assert_eq!(descriptions.iter().map(|(name, _)| name).collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    let reasons = || Denial::ALL.iter().map(|denial| denial.reason());
    assert_names(MORE.iter().map(|(reason, _)| *reason), reasons().filter(|reason| has_more(reason)), "MORE");

    let rows = Denial::ALL.iter().map(|denial| {
        let reason = denial.reason();
        let link = format!("[`{reason}`](#{reason})");
        [link, denial.status().to_string(), code(denial.error()), code(decision(*denial))]
    });
    let overview = table(["reason", "status", "`error`", "decision"], rows);
    let sections: Vec<String> = Denial::ALL
        .iter()
        .zip(&descriptions)
        .map(|(denial, (name, about))| {
            assert!(!about.is_empty(), "{name} has no description");
            let reason = denial.reason();
            let more = MORE.iter().find(|(known, _)| *known == reason);
            let more = more.map(|(_, more)| format!("\n\nMore: {more}.")).unwrap_or_default();
            let (status, message, header) = (denial.status(), denial.message(), header(*denial));
            let answer = table(["status", "message", "header"], [[status.to_string(), plain(message), header]]);
            format!("### `{reason}`\n\n{about}\n\n{}{more}\n\n", answer.trim())
        })
        .collect();
    page("reasons.md", "Reasons", ABOUT, &format!("{overview}{RESPONSE}\n{}", sections.concat()));
}

fn has_more(reason: &str) -> bool {
    MORE.iter().any(|(known, _)| *known == reason)
}
