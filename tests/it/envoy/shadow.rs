//! Shadow mode of a policy, and the shadow mode of Envoy's filter beside it.

use super::{Stage, good_token, published_key};
use crate::support::envoy::LISTENERS;
use crate::support::http1::{bearer, fetch};
use crate::support::policy_file::PolicyFile;
use crate::support::token::{SUB, SigningKey, TokenBuilder};

const FILE: &str = "default: shadow\npolicies: {shadow: {mode: shadow, groups: {any: [admins]}}, strict: {}}\n\
                    routes: [{path_prefix: /strict, policy: strict}]\n";

const FORGED: [&str; 3] = ["x-auth-sub: root", "x_auth_sub: root", "X.Auth-Groups: admins"];

#[tokio::test]
async fn a_policy_in_shadow_mode_forwards_no_forged_header() {
    let (file, keys) = (PolicyFile::new(FILE), published_key().await);
    let stage = Stage::as_shipped(&file, &keys, |bootstrap| {
        for listener in LISTENERS {
            bootstrap.let_forged_headers_in(listener);
            let format = &mut bootstrap.manager(listener)["access_log"][0]["typed_config"]["log_format"];
            let field = "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:shadow_reason)%";
            format["json_format"]["shadow_reason"] = field.into();
        }
    })
    .await;
    let expired = TokenBuilder::access().expires_in(-3600).sign(SigningKey::shared());
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        for (path, token, sub, reason) in [
            ("/none", None, vec![], "missing_credential"),
            ("/bad", Some("garbage"), vec![], "malformed_token"),
            ("/expired", Some(&*expired), vec![], "expired"),
            ("/user", Some(&*good_token()), vec![SUB], "insufficient_group"),
        ] {
            let mut lines: Vec<String> = FORGED.map(str::to_owned).into();
            lines.extend(token.map(bearer));
            let seen = fetch(envoy, path, &lines).await.seen();
            assert_eq!(seen.header("x-auth-sub"), sub, "{listener} {path}");
            let forged = seen.identity().into_iter().filter(|(_, value)| ["root", "admins"].contains(value));
            assert_eq!(forged.count(), 0, "{listener} {path}: {seen:?}");
            let log = stage.envoy.access_log(path, 1).await;
            let line = log.last().unwrap();
            assert_eq!([&line["decision"], &line["shadow_reason"]], ["allow", reason], "{line}");
        }
        assert_eq!(fetch(envoy, "/strict", &FORGED).await.verdict(), (401, "missing_credential".into()));
        assert_eq!(fetch(envoy, "/strict/;x", &FORGED).await.verdict(), (403, "unsafe_path".into()));
    }
}

/// Envoy's own shadow mode ignores every decision. Forged headers stay, and a check without an answer passes as well.
#[tokio::test]
async fn envoys_shadow_mode_passes_without_an_answer_and_with_forged_headers() {
    let keys = published_key().await;
    let mut stage = Stage::start(&["--jwks-url", &keys.url], |bootstrap| {
        for listener in LISTENERS {
            bootstrap.let_forged_headers_in(listener);
            bootstrap.remove_rbac(listener);
            bootstrap.ext_authz(listener)["shadow_mode"] = true.into();
        }
    })
    .await;
    let forged = &FORGED[..1];
    for listener in LISTENERS {
        let seen = fetch(stage.envoy.address(listener), "/", forged).await.seen();
        assert_eq!(seen.header("x-auth-sub"), ["root"], "{listener}: a refusal removes no header");
        let seen = fetch(stage.envoy.address(listener), "/", &[forged[0], &bearer(&good_token())]).await.seen();
        assert_eq!(seen.header("x-auth-sub"), [SUB], "{listener}");
    }
    stage.service.stop();
    stage.service.join();
    for listener in LISTENERS {
        let seen = fetch(stage.envoy.address(listener), "/", forged).await.seen();
        assert_eq!(seen.header("x-auth-sub"), ["root"], "{listener}: the service has ended");
    }
}
