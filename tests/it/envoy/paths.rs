//! Unsafe paths: paths that Envoy, the service and the application can read in different ways.

use serde_json::json;

use super::policy::{FILE, sign};
use super::{Stage, published_key};
use crate::support::envoy::LISTENERS;
use crate::support::http1::{bearer, fetch};
use crate::support::policy_file::PolicyFile;
use crate::support::token::TokenBuilder;

#[tokio::test]
async fn unsafe_paths_are_denied_even_if_envoy_does_not_normalize_them() {
    let (file, keys) = (PolicyFile::new(FILE), published_key().await);
    let stage = Stage::with_file(&file, &keys, |bootstrap| {
        for listener in LISTENERS {
            bootstrap.leave_paths_alone(listener);
            let named = json!({"check_settings": {"context_extensions": {"policy": "guests"}}});
            bootstrap.add_route(listener, "/named", Some(named), None);
        }
    })
    .await;
    let admin = bearer(&sign(&TokenBuilder::access().claim("cognito:groups", json!(["admins"]))));
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        let before = stage.upstream.seen().len();
        for path in [
            "/open/../admin",
            "/open/./admin",
            "/open/%2e%2e/admin",
            "/open/.%2E/admin",
            "//admin",
            "/open//admin",
            "/open/..",
            "/open%2f..%2fadmin",
            "/open%5c..%5cadmin",
            "/open\\..\\admin",
            "/%61dmin",
            "/open/..;/admin",
            "/open;x/admin",
            "/open/%00",
            "/open/%",
            "/open/%zz",
            "/open/%252e%252e/admin",
            "/open/%c0%ae%c0%ae/admin",
            "/open/%E9",
        ] {
            for lines in [&[][..], &[&*admin]] {
                assert_eq!(fetch(envoy, path, lines).await.verdict(), (403, "unsafe_path".into()), "{listener} {path}");
            }
        }
        assert_eq!(stage.upstream.seen().len(), before, "a request with an unsafe path has reached the application");
        assert_eq!(fetch(envoy, "/open/caf%C3%A9?next=/../admin", &[""; 0]).await.seen().path, "/open/caf%C3%A9");
        // A policy that Envoy names does not make an unsafe path safe: the application may read the path differently.
        assert_eq!(fetch(envoy, "/named/../admin", &[""; 0]).await.verdict(), (403, "unsafe_path".into()));
        assert_eq!(fetch(envoy, "/named/admin", &[""; 0]).await.status, 200);
    }
}

/// File without routes: the routes of Envoy name the policies.
const NAMED_BY_ENVOY: &str = "default: members
policies:
  members: {}
  admin: {groups: {any: [admins]}}
  open: {public: true}
  objects: {unsafe_paths: allow}
";

#[tokio::test]
async fn unsafe_paths_are_denied_even_if_only_routes_of_envoy_select_policies() {
    let (file, keys) = (PolicyFile::new(NAMED_BY_ENVOY), published_key().await);
    // As shipped: `/admin` names the policy `admin`, everything else has the default.
    let stage = Stage::as_shipped(&file, &keys, |bootstrap| {
        for listener in LISTENERS {
            for policy in ["open", "objects"] {
                let named = json!({"check_settings": {"context_extensions": {"policy": policy}}});
                bootstrap.add_route(listener, &format!("/{policy}"), Some(named), None);
            }
        }
    })
    .await;
    let member = bearer(&sign(&TokenBuilder::access()));
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        let before = stage.upstream.seen().len();
        for path in [
            "/admin;x",
            "/;/admin",
            "/x;/admin",
            "/%2561dmin",
            "/admin%3Bx",
            "/admin%0a",
            "/admin%09",
            "/admin%3Fx",
            "/admin%23x",
            "/%25u0061dmin",
            "/admin%zz",
            "/%c1%a1dmin",
            "/open/%252e%252e/admin",
            "/open/..%3B/admin",
        ] {
            for lines in [&[][..], &[&*member]] {
                assert_eq!(fetch(envoy, path, lines).await.verdict(), (403, "unsafe_path".into()), "{listener} {path}");
            }
        }
        assert_eq!(stage.upstream.seen().len(), before, "a request with an unsafe path has reached the application");
        for (path, verdict) in [
            ("/orders?x=;/../admin", (200, "")),
            ("/caf%C3%A9/100%25", (200, "")),
            ("/admin/users", (403, "insufficient_group")),
            ("/open/a", (200, "")),
            // `unsafe_paths: allow` switches the rule off for this policy.
            ("/objects/a;b%3Fc", (200, "")),
        ] {
            let (status, reason) = verdict;
            let response = fetch(envoy, path, &[&member]).await;
            assert_eq!(response.status, status, "{listener} {path}: {response:?}");
            if status != 200 {
                assert_eq!(response.verdict().1, reason, "{path}");
            }
        }
    }
}
