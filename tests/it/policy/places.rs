//! `from`: further places of the credential, and what the upstream gets of them.

use super::{Stage, ours};
use crate::support::client::{Answer, Ask};
use crate::support::service::run;
use crate::support::token::{CLIENT, POOL, SUB, TokenBuilder};

const FILE: &str = "
default: plain
policies:
  plain: {}
  header: {from: {header: X-Token}}
  hidden: {from: {header: X-Token}, remove_authorization: true}
  live: {from: {websocket_protocol: bearer, websocket_query: access_token, header: x-token}}
  any: {optional: true, from: {websocket_query: access_token}}
";

fn websocket(path: &str) -> Ask {
    Ask::get(path).header("upgrade", "websocket").policy("live")
}

/// Changes to headers that are not identity headers.
fn other_changes(answer: &Answer) -> Vec<String> {
    let set = answer.all_headers.iter().map(|(name, value)| format!("{name}: {value}"));
    let removed = answer.removed.iter().map(|name| format!("-{name}"));
    set.chain(removed).filter(|change| !change.trim_start_matches('-').starts_with("x-auth-")).collect()
}

#[tokio::test]
async fn a_policy_opts_in_to_each_place() {
    let stage = Stage::new(FILE).await;
    let token = ours(TokenBuilder::access());
    let in_query = format!("/live?x=1&access_token={token}&y=2");
    let (pair, prefixed) = (format!("bearer, {token}, chat"), format!("chat, bearer.{token}"));
    for (ask, expected, parameters) in [
        (Ask::get("/").policy("header").header("x-token", &token), &[][..], &[][..]),
        (Ask::get("/").policy("header").header("X-Token", &format!("Bearer {token}")), &[], &[]),
        (Ask::get("/").policy("hidden").header("x-token", &token), &["-authorization", "-x-token"], &[]),
        (Ask::get("/").policy("header").bearer(&token).header("x_token", "x"), &["-x_token"], &[]),
        (websocket("/").header("sec-websocket-protocol", &pair), &["sec-websocket-protocol: bearer, chat"], &[]),
        (websocket("/").header("sec-websocket-protocol", &prefixed), &["sec-websocket-protocol: chat"], &[]),
        (websocket(&in_query), &[], &["access_token"]),
    ] {
        let target = ask.target();
        let answer = stage.ask(ask.clone()).await;
        assert_eq!((answer.verdict(), answer.text("sub")), ((200, ""), SUB), "{target}");
        assert_eq!(other_changes(&answer), expected, "{target}");
        assert_eq!(answer.removed_parameters, parameters, "{target}");
        assert!(!format!("{answer:?}").contains(&token), "{target}: the token is in the answer");
        // Without the member, the same request has no credential.
        let plain = stage.ask(ask.policy("plain")).await;
        let has_bearer = target.contains("header") && plain.status == 200;
        assert!(has_bearer || plain.verdict() == (401, "missing_credential"), "{target}: {plain:?}");
    }
    // Only requests that open a WebSocket may have the token in the query; it is removed from others as well.
    let no_upgrade = Ask::get(&in_query);
    assert_eq!(stage.ask(no_upgrade.clone().policy("live")).await.verdict(), (401, "missing_credential"));
    let anonymous = stage.ask(no_upgrade.policy("any")).await;
    assert_eq!((anonymous.status, anonymous.text("sub")), (200, ""));
    assert_eq!(anonymous.removed_parameters, ["access_token"]);
}

// The command needs the key server, which runs in this process.
#[tokio::test(flavor = "multi_thread")]
async fn explain_reads_each_place_and_prints_no_token() {
    let stage = Stage::new(FILE).await;
    let token = ours(TokenBuilder::access());
    let payload = token.split('.').nth(1).unwrap();
    let (path, config) = (format!("/?a=1&access_token={token}"), stage.file.path());
    let protocol = format!("sec-websocket-protocol: bearer.{token}, chat");
    let header = format!("x-token: {token}");
    let upgrade = ["--header", "upgrade: websocket"];
    let pool = ["--user-pool-id", POOL, "--client-id", CLIENT, "--jwks-url", &stage.keys.url];
    for (more, line) in [
        (&["--path", &path][..], "removes      the query parameter access_token\n"),
        (&["--header", &protocol], "sets         sec-websocket-protocol: chat\n"),
        (&["--header", &header], "credential   passed\n"),
    ] {
        let common = ["explain", "--config", &config, "--context", "policy=live"];
        let (code, output, error) = run(&[&common[..], &pool, &upgrade, more].concat(), &[]);
        assert_eq!((code, &*error), (Some(0), ""), "{output}");
        assert!(output.contains(line) && output.contains(&format!("x-auth-sub: {SUB}\n")), "{output}");
        assert!(!output.contains(payload), "{output}");
    }
}

#[tokio::test]
async fn two_credentials_are_refused_wherever_they_are() {
    let stage = Stage::new(FILE).await;
    let (one, other) = (ours(TokenBuilder::access()), ours(TokenBuilder::access().claim("sub", "other")));
    let in_query = |token: &str| websocket(&format!("/?access_token={token}"));
    for ask in [
        in_query(&one).bearer(&other),
        in_query(&one).bearer(&one),
        in_query(&one).header("x-token", &other),
        in_query(&one).header("sec-websocket-protocol", &format!("bearer.{other}")),
        websocket("/").header("x-token", &one).bearer(&other),
        websocket("/").header("x-token", &one).header("X-Token", &other),
        websocket("/").header("x-token", &format!("{one},{other}")),
        websocket("/").header("sec-websocket-protocol", &format!("bearer, {one}, bearer, {other}")),
        websocket(&format!("/?access_token={one}&access%5Ftoken={other}")),
    ] {
        let target = ask.target();
        assert_eq!(stage.ask(ask).await.verdict(), (401, "multiple_credentials"), "{target}");
    }
    let bad = websocket("/").header("x-token", "Basic dTpw");
    assert_eq!(stage.ask(bad).await.verdict(), (401, "malformed_token"));
}
