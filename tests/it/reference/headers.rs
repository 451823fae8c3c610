//! `headers.md`: what the application and Envoy learn about the caller. The names are those of the code.

use std::collections::BTreeSet;

use super::{assert_names, code, page, plain, source, table};

const ABOUT: &str = "\
Identity headers and dynamic metadata: the facts about the caller that your application and Envoy
receive with each decision.";

const CAREFUL: &str = "\
[`--header-prefix`](options.md#header-prefix) changes `x-auth-`. The policy file can add [further
headers](../policy.md#headers-for-the-application): any claim (`claim_headers`), all claims in one
header (`whole_claims_header`), and fixed texts of a policy. It can also remove `Authorization`
where the application does not need it (`remove_authorization`).

On every allowed request, each of these headers is overwritten or removed, on public routes too. A
client's copies in other spellings (`x_auth_sub`, `X.Auth.Sub`) and with other names under the
prefix are removed as well. [Forged identity
headers](../../deploy/envoy/README.md#forged-identity-headers) says what Envoy has to do for this.

### Encoding

Values are percent-encoded (RFC 3986, over UTF-8). The encoding applies to bytes outside 0x20 to
0x7E, to `%`, to spaces at either end, and in the list also to `,`. So split the list first, then
decode. If the headers exceed 16 KiB in all, the request is refused with
[`identity_too_large`](reasons.md#identity_too_large); no header is ever truncated.

## Dynamic metadata

The same facts, unencoded, are dynamic metadata under `envoy.filters.http.ext_authz`, for access
logs and RBAC. A refused request has nothing from the token.
";

const POLICY: &str = "\
`policy` is the policy that was chosen or, if a [call in the
body](../mcp-policy.md#json-rpc-calls-in-the-body) is refused, the policy of the call. Some requests are
refused before a policy is chosen ([`unknown_policy`](reasons.md#unknown_policy),
[`unsafe_path`](reasons.md#unsafe_path), and [`no_http_request`](reasons.md#no_http_request) without
a requirement). They have the name that Envoy's route gives, if that has the form of a policy name;
otherwise the name of the default policy. In `cognito_authz_checks_total` the label is empty in
these cases.
";

/// Headers without their prefix: value, and condition.
const HEADERS: &[(&str, &str, &str)] = &[
    ("sub", "`sub`", "always"),
    ("username", "`username`; in ID tokens `cognito:username`", "not for client credentials"),
    ("client-id", "the app client: `client_id`; in ID tokens the accepted member of `aud`", "always"),
    ("token-use", "`access` or `id`", "always"),
    ("scope", "`scope` as issued, separated by spaces", "if the token has it"),
    ("groups", "`cognito:groups`, separated by commas", "if there are any"),
    ("email", "`email`", "ID tokens with `email_verified`"),
];

/// Fields of the metadata: type, value, and condition.
const METADATA: &[(&str, &str, &str, &str)] = &[
    ("decision", "text", "`allow` or `deny`", "always"),
    ("policy", "text", "name of the policy", "always"),
    ("sub", "text", "user or app client", "allowed, with a token"),
    ("client_id", "text", "app client", "allowed, with a token"),
    ("token_use", "text", "`access` or `id`", "allowed, with a token"),
    ("exp", "number", "Unix time at which the token expires", "allowed, with a token"),
    ("username", "text", "name of the user", "allowed, if the token has it"),
    ("scope", "text", "scopes, separated by spaces", "allowed, if the token has it"),
    ("groups", "list of texts", "groups of the user", "allowed, if there are any"),
    ("reason", "text", "the [reason](reasons.md)", "refused"),
    (
        "requirement",
        "text",
        "the requirement of the policy that the request does not meet, such as `claims.custom:tenant`",
        "refused by a requirement, also in shadow mode",
    ),
    (
        "shadow_reason",
        "text",
        "the reason for which the policy would refuse the request",
        "allowed because the policy is in [shadow mode](../policy-testing.md#shadow-mode)",
    ),
];

#[test]
fn headers() {
    let names = source("authz/headers.rs");
    let (_, names) = names.split_once("const SUFFIXES: [&str; STANDARD] = [").unwrap();
    let names = names.split(']').next().unwrap().split('"').skip(1).step_by(2);
    assert_names(HEADERS.iter().map(|(name, ..)| *name), names, "HEADERS");
    let answer = source("authz/answer.rs");
    let functions = answer.split("metadata(&self").skip(1).map(|rest: &str| rest.split("\n    }\n").next().unwrap());
    let written = functions.flat_map(|code| code.split("(\"").skip(1)).map(|rest| rest.split('"').next().unwrap());
    let written: BTreeSet<&str> = written.collect();
    assert_names(METADATA.iter().map(|(name, ..)| *name), written, "METADATA");

    let rows = HEADERS.iter().map(|(name, value, when)| [code(&format!("x-auth-{name}")), plain(value), plain(when)]);
    let headers = table(["header", "value", "present"], rows);
    let rows = METADATA.iter().map(|(name, kind, value, when)| [code(name), plain(kind), plain(value), plain(when)]);
    let metadata = table(["field", "type", "value", "present"], rows);
    let body = format!("## Identity headers\n\n{headers}\n{CAREFUL}\n{metadata}\n{POLICY}");
    page("headers.md", "Identity headers and metadata", ABOUT, &body);
}
