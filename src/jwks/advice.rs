//! Hints for errors of a fetch: the likely cause, and how an operator removes it.

use super::JwksError;
use super::fetch::FetchError;
use crate::user_pool::UserPool;

/// Returns the likely cause of an error with the keys, or another document, of a pool.
pub(crate) fn hint(error: &FetchError, pool: &UserPool) -> String {
    let region = pool.id.region();
    match error {
        FetchError::Status(400 | 403 | 404) => {
            format!(
                "is there a user pool {} in {region}? The part of the id before the last `_` is its region",
                pool.id
            )
        }
        FetchError::Status(300..=399) => "redirects are not followed; use the address that it redirects to".into(),
        FetchError::Status(429 | 500..) => {
            format!("Cognito, or a proxy in front of it, has a fault; see the AWS status of {region}")
        }
        FetchError::Status(_) => {
            "another server may answer at this address; see --cognito-endpoint and --jwks-url".into()
        }
        FetchError::Tls(_) => "the CA certificates of this machine cannot be read; see SSL_CERT_FILE".into(),
        FetchError::Connect(_) => {
            "does the name resolve, and may this machine connect (DNS, egress rules, HTTPS_PROXY, CA certificates)?"
                .into()
        }
        FetchError::Timeout => {
            "is the address reachable from here (egress rules, security groups, HTTPS_PROXY)?".into()
        }
        FetchError::TooLarge | FetchError::Document(JwksError::NotJson | JwksError::NotJwks) => {
            "another server answers at this address, such as a proxy or a sign-in page".into()
        }
        FetchError::Body(_) => "the connection ended early; a proxy may cut it".into(),
        FetchError::Document(JwksError::NoUsableKey) => {
            "the set needs an RSA key of at least 2048 bits for RS256; is it the key set of this pool?".into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user_pool::{AcceptedUse, Clients};

    #[test]
    fn a_pool_that_does_not_exist_is_named_with_its_region() {
        let pool = UserPool::new("p", "eu-west-1_A".parse().unwrap(), Clients::Any, AcceptedUse::Any).unwrap();
        let found = hint(&FetchError::Status(404), &pool);
        assert!(found.starts_with("is there a user pool eu-west-1_A in eu-west-1?"), "{found}");
        assert!(hint(&FetchError::Status(302), &pool).contains("redirects"));
        assert!(hint(&FetchError::Timeout, &pool).contains("reachable"));
    }
}
