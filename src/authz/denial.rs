//! All reasons for denying a request, with the metric label, status, challenge and text of each.
//!
//! The list is closed: a caller cannot add a reason, and no text repeats what a caller sent. The doc comment of a denial
//! is its description in `docs/reference/reasons.md`, which a test writes from this table.

use std::str::FromStr;

/// Parameters of `WWW-Authenticate` in addition to the realm (RFC 6750 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// The header is not sent, because another credential would not help.
    None,
    /// None, because the request has no credential (RFC 6750 section 3.1, last paragraph).
    Realm,
    /// `error` and `error_description`.
    Error,
    /// `error`, `error_description`, and the required scopes (RFC 6750 section 3.1, `insufficient_scope`).
    Scope,
    /// `error`, `error_description`, and the required sign-in (RFC 9470 section 3).
    StepUp,
}

/// Parameters of `WWW-Authenticate` that depend on the policy. None contains characters that need escaping in a
/// quoted-string.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChallengeDetails {
    /// Required scopes, separated by spaces (RFC 6750 section 3).
    pub(crate) scope: Box<str>,
    /// Longest accepted time since the sign-in, in seconds (RFC 9470 section 3).
    pub(crate) max_age: Option<i64>,
    /// Accepted values of `acr`, separated by spaces (RFC 9470 section 3).
    pub(crate) acr_values: Box<str>,
    /// URL of the protected resource metadata (RFC 9728 section 5.1).
    pub(crate) resource_metadata: Option<Box<str>>,
}

impl ChallengeDetails {
    /// Details for a call in the body of a request, whose token has to meet the requirements of both policies: `self` is
    /// of the request, `call` of the call. A client that obtains a token with the named scopes can make the call.
    pub(crate) fn with_call(&self, call: &Self) -> Self {
        let is_new = |scope: &&str| !self.scope.split(' ').any(|known| known == *scope);
        let scopes =
            self.scope.split(' ').chain(call.scope.split(' ').filter(is_new)).filter(|scope| !scope.is_empty());
        let acr_values = if call.acr_values.is_empty() { &self.acr_values } else { &call.acr_values };
        Self {
            scope: scopes.collect::<Vec<_>>().join(" ").into(),
            max_age: self.max_age.into_iter().chain(call.max_age).min(),
            acr_values: acr_values.clone(),
            // The resource is the one of the route.
            resource_metadata: self.resource_metadata.as_ref().or(call.resource_metadata.as_ref()).cloned(),
        }
    }
}

/// Row of the table of denials: the properties of one denial.
struct Row {
    reason: &'static str,
    status: u16,
    error: &'static str,
    challenge: Challenge,
    message: &'static str,
    fault: Fault,
    precedes_policy: bool,
    pool_known: PoolKnown,
}

impl Row {
    const fn new(reason: &'static str, status: u16, error: &'static str, message: &'static str) -> Self {
        let (challenge, fault, precedes_policy) = (Challenge::None, Fault::Caller, false);
        Self { reason, status, error, challenge, message, fault, precedes_policy, pool_known: PoolKnown::Never }
    }

    /// 401 for a token that fails a check (RFC 6750 section 3.1, `invalid_token`).
    const fn bad_token(reason: &'static str, message: &'static str) -> Self {
        Self::new(reason, 401, "invalid_token", message).challenge(Challenge::Error)
    }

    /// 403: another credential would not help.
    const fn forbidden(reason: &'static str, message: &'static str) -> Self {
        Self::new(reason, 403, "access_denied", message)
    }

    /// 503: the service cannot decide at the moment.
    const fn unavailable(reason: &'static str, message: &'static str) -> Self {
        Self { fault: Fault::Service, ..Self::new(reason, 503, "temporarily_unavailable", message) }
    }

    const fn challenge(self, challenge: Challenge) -> Self {
        Self { challenge, ..self }
    }

    /// Marks a denial that is decided after the pool of the token is known.
    const fn with_pool(self) -> Self {
        Self { pool_known: PoolKnown::Always, ..self }
    }

    /// Marks a denial that is decided before or after the pool of the token is known.
    const fn with_or_without_pool(self) -> Self {
        Self { pool_known: PoolKnown::Sometimes, ..self }
    }

    /// Marks a denial that is decided before the request has a policy, `json_rpc` aside.
    const fn before_policy(self) -> Self {
        Self { precedes_policy: true, ..self }
    }
}

macro_rules! denials {
    ($($(#[$doc:meta])* $name:ident = $row:expr;)*) => {
        /// Reason for denying a request.
        ///
        /// Denials are in the order of the checks, except those that have no place in that order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Denial {
            $($(#[$doc])* $name,)*
        }

        impl Denial {
            /// Every denial, in the order of the checks.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            fn row(self) -> &'static Row {
                match self {
                    $(Self::$name => const { &$row },)*
                }
            }
        }
    };
}

denials! {
    /// The check carries no HTTP request, for example because a network filter sent it. Or its host has more than one
    /// possible reading (two `Host` lines), and a route of the policy file names hosts. Or its policy reads the body
    /// (`json_rpc`), and the check carries none, a part of it, or one with more than one possible reading.
    NoHttpRequest = Row::forbidden(
        "no_http_request",
        "The authorization check did not carry all of the request that the policy needs.",
    )
    .before_policy();
    /// The route names a policy that does not exist.
    UnknownPolicy = Row::forbidden("unknown_policy", "This route names a policy that does not exist.").before_policy();
    /// The path has more than one possible reading, and the choice of the policy depends on it.
    UnsafePath = Row::forbidden("unsafe_path", "The path can be read in more than one way.").before_policy();
    /// `Authorization` is missing or empty, or its scheme is not Bearer.
    MissingCredential = Row::new("missing_credential", 401, "missing_token", "A Bearer token is required.")
        .challenge(Challenge::Realm);
    /// The request has more than one credential; the same one twice counts as two.
    MultipleCredentials = Row::new("multiple_credentials", 401, "invalid_request", "More than one credential was sent.")
        .challenge(Challenge::Error);
    /// The token is longer than 16,384 bytes.
    TokenTooLarge = Row::bad_token("token_too_large", "The token is too large.");
    /// The token is not one compact JWS, has white space other than spaces and tabs around it, has a claim of the wrong
    /// type, or contains JSON that parsers disagree about.
    MalformedToken = Row::bad_token("malformed_token", "The token is malformed.")
    .with_or_without_pool();
    /// `alg` is not exactly `RS256`.
    UnsupportedAlgorithm = Row::bad_token("unsupported_algorithm", "The token is not signed with RS256.");
    /// The token header has `crit` or `b64`.
    UnsupportedHeader = Row::bad_token("unsupported_header", "The token asks for a JWS extension that is not supported.");
    /// The token header has no `kid`, or an empty one.
    MissingKid = Row::bad_token("missing_kid", "The token does not name its key.");
    /// `iss` does not equal a configured issuer, byte for byte.
    UnknownIssuer = Row::bad_token("unknown_issuer", "The token is from an unknown issuer.");
    /// `--token-use` does not accept this `token_use`.
    WrongTokenUse = Row::bad_token("wrong_token_use", "This kind of token is not accepted here.")
    .with_pool();
    /// `iss`, `token_use`, `sub`, `exp` or `client_id` (in ID tokens `aud`) is missing or empty.
    MissingClaim = Row::bad_token("missing_claim", "The token lacks a required claim.")
    .with_or_without_pool();
    /// `client_id` (in ID tokens `aud`) is not listed in `--client-id`.
    WrongClient = Row::bad_token("wrong_client", "The token was issued to another app client.")
    .with_pool();
    /// `exp` passed longer ago than the leeway (`--leeway`).
    Expired = Row::bad_token("expired", "The token has expired.")
    .with_pool();
    /// `nbf` is further in the future than the leeway (`--leeway`).
    NotYetValid = Row::bad_token("not_yet_valid", "The token is not valid yet.")
    .with_pool();
    /// `exp` is later than `iat` plus `--max-token-life`, the time for which revocations are kept. Without `iat`,
    /// `auth_time` counts, and without both the time of the check.
    TokenLifeExceeded = Row::bad_token("token_life_exceeded", "The token is valid for longer than is accepted here.")
    .with_pool();
    /// A key set that was fetched within the last ten seconds does not have the `kid`.
    UnknownKid = Row::bad_token("unknown_kid", "The token is signed with an unknown key.")
    .with_pool();
    /// The signature does not verify with the key.
    BadSignature = Row::bad_token("bad_signature", "The signature of the token is not valid.")
    .with_pool();
    /// The token, its session, or all sessions of its user up to its sign-in were revoked.
    Revoked = Row::bad_token("revoked", "The session of the token has ended.")
    .with_pool();
    /// The policy requires a scope that the token lacks.
    InsufficientScope = Row::new("insufficient_scope", 403, "insufficient_scope", "The token lacks a scope that is needed here.")
        .challenge(Challenge::Scope)
    .with_pool();
    /// The policy requires a group that the user is not in.
    InsufficientGroup = Row::forbidden("insufficient_group", "The user is not in a group that may do this.")
    .with_pool();
    /// The policy requires another kind of token, pool, client, audience or claim. The metadata field `requirement`
    /// names it.
    ClaimMismatch = Row::forbidden("claim_mismatch", "The token is not meant for this.")
    .with_pool();
    /// The policy requires a more recent or a stronger sign-in (RFC 9470).
    AuthTooOld = Row::new(
        "auth_too_old",
        401,
        "insufficient_user_authentication",
        "A more recent or a stronger sign-in is needed here.",
    )
    .challenge(Challenge::StepUp)
    .with_pool();
    /// The request uses a browser's session cookie and an unsafe method, and nothing shows that it comes from the site
    /// itself.
    CrossSite = Row::forbidden("cross_site", "A request with a session cookie has to send the Origin of this host or one of --cors-origins, or without an Origin `Sec-Fetch-Site: same-origin`. A client that is not a browser sends a Bearer token instead.");
    /// The identity headers would exceed 16 KiB.
    IdentityTooLarge = Row::forbidden("identity_too_large", "The token carries more than can be passed on.")
    .with_or_without_pool();
    /// The keys of the pool could not be fetched, or not in time.
    KeysUnavailable = Row::unavailable("keys_unavailable", "The token cannot be verified at the moment.")
    .with_pool();
    /// The shared store of revocations is lost, and `--revocation-required` is set.
    RevocationUnavailable =
        Row::unavailable("revocation_unavailable", "It is not known at the moment whether the token was revoked.")
    .with_pool();
}

/// Says if the pool of the token is known when a denial is decided. A denial of a token whose issuer was not checked yet
/// has no pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PoolKnown {
    /// It is not known.
    Never,
    /// It is known.
    Always,
    /// It depends on the request.
    Sometimes,
}

/// Party that has to act on a denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller, by sending another credential or another request.
    Caller,
    /// The operator of this service. The check is counted as `error`.
    Service,
}

impl Denial {
    /// Value of the metric label `reason`, and of `reason` in the metadata and the body.
    pub fn reason(self) -> &'static str {
        self.row().reason
    }

    /// HTTP status of the response: 401, 403 or 503.
    pub fn status(self) -> u16 {
        self.row().status
    }

    /// Value of `error` in the body and in the challenge, if there is one.
    pub fn error(self) -> &'static str {
        self.row().error
    }

    /// Kind of challenge in the response.
    pub fn challenge(self) -> Challenge {
        self.row().challenge
    }

    /// Explanation for the caller: `message` in the body, `error_description` in the challenge.
    pub fn message(self) -> &'static str {
        self.row().message
    }

    /// Value of `WWW-Authenticate` (RFC 6750 section 3, RFC 9470 section 3, RFC 9728 section 5.1), if the response has
    /// one. All its texts come from this program or its configuration, and none needs escaping.
    pub(crate) fn www_authenticate(self, realm: &Realm, details: Option<&ChallengeDetails>) -> Option<String> {
        let mut challenge = format!("Bearer realm=\"{}\"", realm.as_str());
        let mut add = |name: &str, value: &str| {
            if !value.is_empty() {
                challenge.extend([", ", name, "=\"", value, "\""]);
            }
        };
        match self.challenge() {
            Challenge::None => return None,
            Challenge::Realm => {}
            Challenge::Error | Challenge::Scope | Challenge::StepUp => {
                add("error", self.error());
                add("error_description", self.message());
            }
        }
        if let Some(details) = details {
            match self.challenge() {
                Challenge::Scope => add("scope", &details.scope),
                Challenge::StepUp => {
                    add("acr_values", &details.acr_values);
                    add("max_age", &details.max_age.map(|seconds| seconds.to_string()).unwrap_or_default());
                }
                Challenge::None | Challenge::Realm | Challenge::Error => {}
            }
            add("resource_metadata", details.resource_metadata.as_deref().unwrap_or_default());
        }
        Some(challenge)
    }

    /// Says if the pool of the token is known.
    pub(crate) fn pool_known(self) -> PoolKnown {
        self.row().pool_known
    }

    /// Party that has to act on this denial.
    pub fn fault(self) -> Fault {
        self.row().fault
    }

    /// `true` if this denial is decided before the request has a policy. `no_http_request` also comes later, if the policy
    /// has `json_rpc`.
    pub(crate) fn precedes_policy(self) -> bool {
        self.row().precedes_policy
    }
}

/// `realm` of a challenge: 1 to 128 characters that need no escaping in a quoted-string (RFC 9110 section 5.6.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realm(Box<str>);

impl Realm {
    /// Text without quotes.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Realm {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |b: u8| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\';
        if (1..=128).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text.into()))
        } else {
            Err("not 1 to 128 printable ASCII characters without quotes and backslashes")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn denials_are_unique_ordered_and_well_formed() {
        let reasons: HashSet<_> = Denial::ALL.iter().map(|d| d.reason()).collect();
        assert_eq!(reasons.len(), Denial::ALL.len());
        assert!(Denial::ALL.is_sorted(), "in the order of the checks");
        for &denial in Denial::ALL {
            assert!([401, 403, 503].contains(&denial.status()), "{denial:?}");
            let has_challenge = denial.status() == 401 || denial == Denial::InsufficientScope;
            assert_eq!(denial.challenge() != Challenge::None, has_challenge, "{denial:?}");
            // The message is written unescaped into a quoted-string (RFC 9110 section 5.6.4).
            assert!(
                denial.message().bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\'),
                "{denial:?}"
            );
        }
    }
}
