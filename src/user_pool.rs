//! User pools: ids, app clients, issuers, and the URLs of their keys and API.
//!
//! Issuers, JWKS URLs and API endpoint are derived from the pool id, and each can be overridden on its own: with FIPS
//! and VPC endpoints, the second issuer format and emulators they do not share one base URL. This file does not fetch,
//! verify or configure anything. Start from [`UserPools`].

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use url::Url;

/// Id of a user pool, such as `eu-west-1_AbC123xyz`: 1 to 55 characters of `[\w-]+_[0-9a-zA-Z]+`
/// (`UserPoolIdType` of the Cognito service model).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserPoolId(Box<str>);

impl UserPoolId {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// AWS region: the part before the *last* underscore.
    pub(crate) fn region(&self) -> &str {
        self.0.rsplit_once('_').map_or("", |(region, _)| region)
    }
}

/// DNS suffix of a region's AWS partition.
fn dns_suffix(region: &str) -> &'static str {
    PARTITIONS.iter().find(|(prefix, _)| region.starts_with(prefix)).map_or("amazonaws.com", |(_, suffix)| suffix)
}

/// Partitions whose host names do not end in `amazonaws.com`, by region prefix. No prefix starts with another one, so
/// the order does not matter.
const PARTITIONS: [(&str, &str); 6] = [
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
];

impl FromStr for UserPoolId {
    type Err = UserPoolError;

    fn from_str(text: &str) -> Result<Self, UserPoolError> {
        let word = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        match text.rsplit_once('_') {
            Some((region, rest))
                if text.len() <= 55
                    && !region.is_empty()
                    && word(region)
                    && !rest.is_empty()
                    && rest.bytes().all(|b| b.is_ascii_alphanumeric()) =>
            {
                Ok(Self(text.into()))
            }
            _ => Err(UserPoolError::Id),
        }
    }
}

impl fmt::Display for UserPoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Id of an app client: 1 to 128 characters of `[\w+]+` (`ClientIdType` of the Cognito service model).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientId(Box<str>);

impl ClientId {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientId {
    type Err = UserPoolError;

    fn from_str(text: &str) -> Result<Self, UserPoolError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'+';
        if (1..=128).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(UserPoolError::Client)
        }
    }
}

/// App clients whose tokens are accepted. To accept all of them an operator has to write `any`: an empty list does not
/// mean "all".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Tokens of these app clients.
    Only(Vec<ClientId>),
    /// Tokens of every app client of the pool (`--client-id any`).
    Any,
}

impl Clients {
    /// `true` if tokens of `client` are accepted.
    pub(crate) fn accept(&self, client: &ClientId) -> bool {
        match self {
            Self::Any => true,
            Self::Only(clients) => clients.contains(client),
        }
    }
}

/// Kinds of token that are accepted (`--token-use`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptedUse {
    /// Access tokens only.
    Access,
    /// ID tokens only.
    Id,
    /// Access tokens and ID tokens.
    Any,
}

/// User pool: its names, and the checks that its tokens have to pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserPool {
    /// Name in the policy file, in logs and in metric labels. The pool of the command line is called `default`.
    pub(crate) name: Box<str>,
    /// Id that AWS assigned.
    pub(crate) id: UserPoolId,
    /// Values of `iss` that name this pool. They are compared byte for byte and never fetched.
    pub(crate) issuers: Vec<String>,
    /// URLs of the keys. If a server answers 403 or 404, the next URL is tried.
    pub(crate) jwks_urls: Vec<Url>,
    /// Base URL of the user-pool API, which the account API calls to sign users up, in and out.
    pub(crate) endpoint: Url,
    /// App clients whose tokens are accepted.
    pub(crate) clients: Clients,
    /// Kinds of token that are accepted.
    pub(crate) token_use: AcceptedUse,
}

impl UserPool {
    /// Creates a pool with the issuers and URLs that AWS assigns: both issuer formats, and the JWKS URL of each.
    ///
    /// The host of the updated format (`issuer-cognito-idp`) answers 403 for pools that do not use that format, so its
    /// JWKS URL comes second.
    ///
    /// # Errors
    /// [`UserPoolError::Url`] if the region is not valid in a host name.
    pub fn new(name: &str, id: UserPoolId, clients: Clients, token_use: AcceptedUse) -> Result<Self, UserPoolError> {
        let suffix = dns_suffix(id.region());
        let issuers: Vec<String> = ["cognito-idp", "issuer-cognito-idp"]
            .iter()
            .map(|service| format!("https://{service}.{}.{suffix}/{id}", id.region()))
            .collect();
        let jwks_urls = issuers.iter().map(|issuer| jwks_url(issuer)).collect::<Result<_, _>>()?;
        let endpoint = format!("https://cognito-idp.{}.{suffix}/", id.region());
        let endpoint = Url::parse(&endpoint).map_err(|_| UserPoolError::Url)?;
        Ok(Self { name: name.into(), id, issuers, jwks_urls, endpoint, clients, token_use })
    }

    /// Sets the API endpoint to `base` and the JWKS URL to a path below it, as on FIPS and VPC endpoints and emulators.
    ///
    /// # Errors
    /// [`UserPoolError::Url`] if no path can be appended to `base`.
    pub(crate) fn with_endpoint(mut self, base: &Url) -> Result<Self, UserPoolError> {
        self.jwks_urls = vec![jwks_url(&format!("{}/{}", base.as_str().trim_end_matches('/'), self.id))?];
        self.endpoint = base.clone();
        Ok(self)
    }

    /// Returns the URL of the pool's `OpenID` Provider configuration, below the API endpoint (`OpenID` Connect Discovery 1.0
    /// section 4).
    pub(crate) fn openid_configuration_url(&self) -> Url {
        let mut url = self.endpoint.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/{}/.well-known/openid-configuration", self.id));
        url
    }

    /// Adds the issuer of a replica of the pool in `region`. Tokens issued by the replica have this issuer if the pool
    /// uses the original issuer format; the updated format always names the primary region.
    ///
    /// # Errors
    /// [`UserPoolError::Region`] if `region` is not the name of a region, or is the pool's own or was added before.
    pub(crate) fn with_replica(mut self, region: &str) -> Result<Self, UserPoolError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let issuer = format!("https://cognito-idp.{region}.{}/{}", dns_suffix(region), self.id);
        if region.is_empty() || !region.bytes().all(plain) || self.issuers.contains(&issuer) {
            return Err(UserPoolError::Region);
        }
        self.issuers.push(issuer);
        Ok(self)
    }
}

fn jwks_url(base: &str) -> Result<Url, UserPoolError> {
    Url::parse(&format!("{base}/.well-known/jwks.json")).map_err(|_| UserPoolError::Url)
}

/// All pools, indexed by issuer and by name. A token selects its pool by the claim `iss` alone.
#[derive(Debug, Default)]
pub struct UserPools {
    pools: Vec<UserPool>,
    by_issuer: HashMap<Box<str>, PoolIndex>,
    by_name: HashMap<Box<str>, PoolIndex>,
}

/// Index of a pool in [`UserPools`] and in every list that has one element per pool.
pub(crate) type PoolIndex = usize;

impl UserPools {
    /// Indexes `pools` by issuer.
    ///
    /// # Errors
    /// [`UserPoolError::SharedIssuer`] if two pools have the same issuer.
    pub fn new(pools: Vec<UserPool>) -> Result<Self, UserPoolError> {
        let mut all = Self::default();
        pools.into_iter().try_for_each(|pool| all.add(pool))?;
        Ok(all)
    }

    /// Adds a pool, whose index is the number of pools before.
    ///
    /// # Errors
    /// [`UserPoolError::SharedIssuer`] if another pool has one of its issuers.
    pub(crate) fn add(&mut self, pool: UserPool) -> Result<(), UserPoolError> {
        if let Some((issuer, (_, other))) =
            pool.issuers.iter().find_map(|issuer| Some((issuer, self.by_issuer(issuer)?)))
        {
            return Err(UserPoolError::SharedIssuer { issuer: issuer.clone(), pool: other.name.clone() });
        }
        let index = self.pools.len();
        self.by_issuer.extend(pool.issuers.iter().map(|issuer| (issuer.as_str().into(), index)));
        self.by_name.entry(pool.name.clone()).or_insert(index);
        self.pools.push(pool);
        Ok(())
    }

    /// Returns the pool that has this issuer. The comparison is byte for byte.
    pub(crate) fn by_issuer(&self, issuer: &str) -> Option<(PoolIndex, &UserPool)> {
        let index = *self.by_issuer.get(issuer)?;
        Some((index, self.pools.get(index)?))
    }

    pub(crate) fn get(&self, index: PoolIndex) -> Option<&UserPool> {
        self.pools.get(index)
    }

    /// Returns the pool whose [`name`](UserPool::name) this is.
    pub(crate) fn named(&self, name: &str) -> Option<&UserPool> {
        self.get(self.index(name)?)
    }

    /// Returns the index of the pool that has this name.
    pub(crate) fn index(&self, name: &str) -> Option<PoolIndex> {
        self.by_name.get(name).copied()
    }

    /// All pools, in the order of their [`PoolIndex`].
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &UserPool> + Clone {
        self.pools.iter()
    }

    /// All pools, in the order of their [`PoolIndex`].
    pub(crate) fn into_inner(self) -> Vec<UserPool> {
        self.pools
    }
}

/// Error in the description of a pool.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UserPoolError {
    /// The text is not a user pool id.
    #[error("not a user pool id such as eu-west-1_AbC123xyz")]
    Id,
    /// The text is not an app client id.
    #[error("not an app client id (1 to 128 letters, digits, '_' or '+')")]
    Client,
    /// The text is not a region, or the pool has an issuer in this region already.
    #[error("not another region such as us-east-1")]
    Region,
    /// The pool's URLs would not be valid.
    #[error("the region or the endpoint does not give a valid URL for this pool")]
    Url,
    /// Another pool has the same issuer.
    #[error("the pool {pool} has the issuer {issuer}, too; an issuer can belong to one pool only")]
    SharedIssuer {
        /// Issuer that both pools have.
        issuer: String,
        /// Name of the pool that was added first.
        pool: Box<str>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(id: &str) -> UserPool {
        UserPool::new("default", id.parse().unwrap(), Clients::Any, AcceptedUse::Any).unwrap()
    }

    #[test]
    fn ids_follow_the_service_model() {
        for good in [
            "eu-west-1_AbC123xyz",
            "us-gov-west-1_a",
            "local_3x",
            "a_b_C",
            "us-east-1_0123456789abcdef0123456789abcdef",
        ] {
            assert!(good.parse::<UserPoolId>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "_",
            "eu-west-1",
            "eu-west-1_",
            "_abc",
            "eu-west-1_a-b",
            "eu west_a",
            "é_a",
            &format!("r_{}", "a".repeat(54)),
        ] {
            assert_eq!(bad.parse::<UserPoolId>(), Err(UserPoolError::Id), "{bad}");
        }
    }

    #[test]
    fn client_ids_follow_the_service_model() {
        for good in ["3n4b5urk1ft4fl3mg5e62d9ado", "a", "A_+9"] {
            assert!(good.parse::<ClientId>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a-b", "é", &"a".repeat(129)] {
            assert_eq!(bad.parse::<ClientId>(), Err(UserPoolError::Client), "{bad}");
        }
    }

    #[test]
    fn issuers_and_urls_depend_on_the_partition() {
        for (id, host) in [
            ("eu-west-1_A", "cognito-idp.eu-west-1.amazonaws.com"),
            ("us-gov-west-1_A", "cognito-idp.us-gov-west-1.amazonaws.com"),
            ("cn-north-1_A", "cognito-idp.cn-north-1.amazonaws.com.cn"),
            ("eusc-de-east-1_A", "cognito-idp.eusc-de-east-1.amazonaws.eu"),
            ("us-iso-east-1_A", "cognito-idp.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1_A", "cognito-idp.us-isob-east-1.sc2s.sgov.gov"),
        ] {
            let pool = pool(id);
            assert_eq!(pool.issuers, [format!("https://{host}/{id}"), format!("https://issuer-{host}/{id}")]);
            assert_eq!(pool.endpoint.as_str(), format!("https://{host}/"));
            let urls: Vec<_> = pool.jwks_urls.iter().map(Url::as_str).collect();
            assert_eq!(urls, pool.issuers.iter().map(|i| format!("{i}/.well-known/jwks.json")).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_endpoint_changes_the_jwks_url_but_not_the_issuers() {
        for base in ["http://127.0.0.1:9229", "http://127.0.0.1:9229/"] {
            let pool = pool("us-east-1_A").with_endpoint(&base.parse().unwrap()).unwrap();
            assert_eq!(pool.jwks_urls[0].as_str(), "http://127.0.0.1:9229/us-east-1_A/.well-known/jwks.json");
            assert_eq!(pool.endpoint.as_str(), "http://127.0.0.1:9229/");
            assert_eq!(pool.issuers[0], "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_A");
        }
    }

    #[test]
    fn a_replica_adds_an_issuer() {
        let pool = pool("eu-west-1_A").with_replica("us-east-1").unwrap().with_replica("cn-north-1").unwrap();
        assert_eq!(pool.issuers[2], "https://cognito-idp.us-east-1.amazonaws.com/eu-west-1_A");
        assert_eq!(pool.issuers[3], "https://cognito-idp.cn-north-1.amazonaws.com.cn/eu-west-1_A");
        assert_eq!(pool.jwks_urls.len(), 2, "keys are fetched from the pool's own region");
        for bad in ["eu-west-1", "us-east-1", "", "US-EAST-1", "us_east_1", "a/b"] {
            assert_eq!(pool.clone().with_replica(bad), Err(UserPoolError::Region), "{bad}");
        }
    }

    #[test]
    fn a_pool_is_found_by_its_exact_issuer() {
        let pools = UserPools::new(vec![pool("us-east-1_A"), pool("us-east-1_B")]).unwrap();
        let b = "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_B";
        assert_eq!(pools.by_issuer(b).map(|(index, _)| index), Some(1));
        for other in [&format!("{b}/"), &b[1..], "https://COGNITO-IDP.us-east-1.amazonaws.com/us-east-1_B", ""] {
            assert!(pools.by_issuer(other).is_none(), "{other}");
        }
        assert!(matches!(
            UserPools::new(vec![pool("us-east-1_A"), pool("us-east-1_A")]),
            Err(UserPoolError::SharedIssuer { .. })
        ));
    }
}
