//! `SECRET_HASH`, by which an app client with a secret authenticates in calls that name a user.
//!
//! The value is `Base64(HMAC-SHA256(secret, user name + client id))` ("Computing secret hash values" in the Amazon
//! Cognito developer guide). The user name is the one in the same call or, if the call has none, the user's real user
//! name (`Call::user` in `cognito/mod.rs`).

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

use crate::user_pool::ClientId;

/// Computes the secret hash of `client` for `user`.
pub(super) fn secret_hash(secret: &SecretString, user: &str, client: &ClientId) -> String {
    // The key is the text of the secret. It looks like base64 but must not be decoded.
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(user.as_bytes());
    context.update(client.as_str().as_bytes());
    STANDARD.encode(context.sign())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hashes() {
        let client = "7example23clientid45abcdefg".parse().unwrap();
        let secret = SecretString::from("1exampleclientsecret0123456789abcdefghijklmnopqrstu");
        for (user, expected) in [
            ("alice", "cvZTWlGdIW36QDaxQzC5LU7waxGzAJzESqskkc0oa7E="),
            ("ALICE", "mqPhu0GhurRIAzmkCv83nFfUMwOI6uvPlqguNJcx33Q="),
            ("alice@example.com", "OAry8+YPE0l/ImzteytnvRr2MSKr0PGB28q3n2OrhLc="),
            ("3f2504e0-4f89-41d3-9a0c-0305e82c3301", "RdUgLebmgKc5m8kLaZg6CEtYET0aIzgkx16dbTnUlCY="),
            ("zo\u{eb}", "NbKjWDfKNjnJbERPUsYpMbc8Y2NckeG+Et9Xwwj7spI="),
        ] {
            assert_eq!(secret_hash(&secret, user, &client), expected, "{user}");
        }
    }
}
