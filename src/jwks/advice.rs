//! Hints for errors of a fetch: the likely cause, and what an operator can look at.

use super::JwksError;
use super::fetch::FetchError;
use crate::user_pool::UserPool;

/// Returns the likely cause of an error with the keys of a pool, as a question or a clause without a full stop.
pub(crate) fn hint(error: &FetchError, pool: &UserPool) -> String {
    const WRONG_ADDRESS: &str = "is this the address of the key set? See --jwks-url, --cognito-endpoint and jwks_url";
    let (id, region) = (&pool.id, pool.id.region());
    match error {
        FetchError::Status(400 | 401 | 403 | 404)
            if pool.jwks_urls.iter().any(|url| url.path().contains(id.as_str())) =>
        {
            format!("is there a pool {id} in {region}? The part of the id before the last `_` is its region")
        }
        FetchError::Status(300..=399) => {
            "redirects are not followed: set the address that the server redirects to".into()
        }
        FetchError::Status(429 | 500..) => {
            format!("Cognito in {region}, or a proxy before it, is overloaded or has a fault; fetches are repeated")
        }
        FetchError::Status(_) => WRONG_ADDRESS.into(),
        FetchError::Tls(_) => "can the CA certificates of this machine be read? See SSL_CERT_FILE".into(),
        FetchError::Resolve(_) => "does this machine have DNS, and is the host right?".into(),
        FetchError::Refused => format!("nothing listens at this address and port; {WRONG_ADDRESS}"),
        FetchError::Handshake(_) => {
            "is the server's CA among those of this machine (SSL_CERT_FILE), and does a proxy open the connection?"
                .into()
        }
        FetchError::Connect(_) | FetchError::Timeout => {
            "is the address reachable from here (routes, egress rules, security groups, HTTPS_PROXY)?".into()
        }
        FetchError::Body(_) => "does a proxy between here and the server end or change responses?".into(),
        FetchError::TooLarge | FetchError::Document(JwksError::NotJson | JwksError::NotJwks) => {
            format!("another server, such as a proxy or a sign-in page, answers; {WRONG_ADDRESS}")
        }
        FetchError::Document(JwksError::NoUsableKey) => {
            format!("tokens need an RSA key of at least 2048 bits for RS256; is this the key set of {id}?")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user_pool::{AcceptedUse, Clients};

    #[test]
    fn each_error_has_a_hint_that_fits() {
        let pool = || UserPool::new("p", "eu-west-1_A".parse().unwrap(), Clients::Any, AcceptedUse::Any).unwrap();
        let of = |error: FetchError| hint(&error, &pool());
        for status in [400, 403, 404] {
            assert!(
                of(FetchError::Status(status)).starts_with("is there a pool eu-west-1_A in eu-west-1?"),
                "{status}"
            );
        }
        let mut own = pool();
        own.jwks_urls = vec!["https://keys.example/jwks".parse().unwrap()];
        assert!(hint(&FetchError::Status(404), &own).starts_with("is this the address of the key set?"));
        for (error, part) in [
            (FetchError::Status(302), "redirects"),
            (FetchError::Status(503), "Cognito in eu-west-1"),
            (FetchError::Status(204), "--jwks-url"),
            (FetchError::Tls(String::new()), "SSL_CERT_FILE"),
            (FetchError::Resolve(String::new()), "DNS"),
            (FetchError::Refused, "nothing listens"),
            (FetchError::Handshake(String::new()), "CA"),
            (FetchError::Connect(String::new()), "reachable"),
            (FetchError::Timeout, "egress"),
            (FetchError::Body(String::new()), "proxy"),
            (FetchError::TooLarge, "another server"),
            (JwksError::NotJson.into(), "sign-in page"),
            (JwksError::NotJwks.into(), "another server"),
            (JwksError::NoUsableKey.into(), "2048"),
        ] {
            let hint = of(error.clone());
            assert!(hint.contains(part) && !hint.ends_with('.'), "{error:?}: {hint}");
        }
    }
}
