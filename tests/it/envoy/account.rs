//! The account API behind Envoy: the client address that its rate limits use.

use super::{Stage, published_key};
use crate::support::envoy::LISTENERS;
use crate::support::http1::send_from;

/// Whatever a client sends in `X-Forwarded-For`, its requests count for its own address.
#[tokio::test]
async fn no_value_of_x_forwarded_for_hides_the_client() {
    let keys = published_key().await;
    let flags = ["--jwks-url", &keys.url, "--trusted-hops=1", "--limit-address=3/1h"];
    let stage = Stage::start(&flags, |_| {}).await;
    let limited = async |listener: &str, client: &str, lines: &[&[u8]]| {
        let address = stage.envoy.address(listener);
        match send_from(client, address, "POST", "/auth/logout", lines).await.status {
            401 => false,
            429 => true,
            other => panic!("{other}"),
        }
    };
    for (number, listener) in LISTENERS.into_iter().enumerate() {
        let (client, other) = (format!("127.0.{number}.2"), format!("127.0.{number}.3"));
        for _ in 0..3 {
            assert!(!limited(listener, &client, &[]).await);
        }
        assert!(limited(listener, &client, &[]).await, "{listener}");
        for lines in [
            &[&b"x-forwarded-for: 192.0.2.1"[..]][..],
            &[b"x-forwarded-for: \xff"],
            &[b"x-forwarded-for: \xff, 192.0.2.1"],
            &[b"x-forwarded-for: 192.0.2.1, \xe4\xf6"],
            &["x-forwarded-for: ü".as_bytes()],
            &[b"x-forwarded-for: 192.0.2.1", b"x-forwarded-for: \x80,"],
            &[b"x-forwarded-for: ,,,"],
            &[b"x-forwarded-for: "],
        ] {
            assert!(limited(listener, &client, lines).await, "{listener} {lines:?}");
        }
        // Another client has a limit of its own, with and without such bytes.
        for lines in [&[][..], &[&b"x-forwarded-for: \xff"[..]], &[b"x-forwarded-for: \xff"]] {
            assert!(!limited(listener, &other, lines).await, "{listener} {lines:?}");
        }
        assert!(limited(listener, &other, &[b"x-forwarded-for: \xff"]).await, "{listener}");
    }
}
