//! `SECRET_HASH`: how an app client with a secret proves itself where it names a user.
//!
//! `Base64(HMAC-SHA256(secret, user name + client id))`. Which user name goes in is the caller's business: it is
//! the one of the same call, or the real one where the call names none (`cognito/mod.rs`).

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

use crate::user_pool::ClientId;

/// The hash over `user` for this client.
pub fn secret_hash(secret: &SecretString, user: &str, client: &ClientId) -> String {
    // The secret is used as text: it looks like base64 and is not decoded.
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
