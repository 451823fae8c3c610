//! The name that authenticator apps show: a warning if none is configured.

use serde_json::json;

use super::QUICK;
use crate::support::account::AccountClient;
use crate::support::client::get;
use crate::support::fake_cognito::FakeCognito;
use crate::support::jwks_server::Reply;
use crate::support::service::Program;
use crate::support::{PATIENCE, eventually};

/// Sets up authenticators with these flags. Returns the number of warnings, and the issuer in the URL.
async fn set_up(flags: &[&str]) -> (usize, String) {
    let fake = FakeCognito::start().await;
    fake.answers(|_, _| Reply::ok(json!({"SecretCode": "JBSWY3DPEHPK3PXP", "Session": "next"}).to_string()));
    let mut program = Program::start(&[&QUICK[..], &["--cognito-endpoint", &fake.url], flags].concat());
    eventually("ready", PATIENCE, async || get(&program.admin, "/readyz").await.0 == 200).await;
    let client = AccountClient::new(&program.admin);
    let mut issuer = String::new();
    for user in 0..3 {
        let body = json!({"session": format!("session-of-a-sign-in-{user}"), "email": "ada@example.test"});
        let setup = client.post("/mfa/totp", body).await;
        assert_eq!(setup.status, 200, "{:?}", setup.body);
        let url = url::Url::parse(setup.text("otpauthUrl")).unwrap();
        issuer = url.query_pairs().find(|(name, _)| name == "issuer").unwrap().1.into_owned();
    }
    program.signal("TERM");
    assert!(program.wait().success());
    assert!(!program.log.join("\n").contains("JBSWY3DPEHPK3PXP"));
    (program.log.iter().filter(|line| line.contains("--totp-issuer")).count(), issuer)
}

#[tokio::test]
async fn an_issuer_that_nobody_chose_is_warned_about_once() {
    assert_eq!(set_up(&[]).await, (1, "api".to_owned()), "once, however many users there are");
    assert_eq!(set_up(&["--totp-issuer", "Shop & Co"]).await, (0, "Shop & Co".to_owned()));
    assert_eq!(set_up(&["--realm", "shop"]).await, (0, "shop".to_owned()), "the realm is a name, too");
}
