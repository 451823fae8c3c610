//! Every reason a request can be refused for, and what each fixes: metric label, status, challenge, text.
//!
//! A closed list: nothing a caller sends ever becomes a reason, and no reason repeats what a caller sent.
//! The table in the README is compared with this one by a test.

use std::str::FromStr;

/// What goes into `WWW-Authenticate` beside the realm (RFC 6750 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// No `WWW-Authenticate` at all: another credential would not help.
    None,
    /// The realm alone: no credential was sent (RFC 6750 section 3.1, last paragraph).
    Realm,
    /// The realm with `error` and `error_description`.
    Error,
    /// The same, and the scopes that are needed (RFC 6750 section 3.1, `insufficient_scope`).
    Scope,
    /// The same, and the sign-in that is needed (RFC 9470 section 3).
    StepUp,
}

/// Parameters of `WWW-Authenticate` that depend on the policy. All can stand in a quoted-string as they are.
#[derive(Debug, Default)]
pub struct ChallengeDetails {
    /// The scopes that are needed, with spaces between (RFC 6750 section 3).
    pub scope: Box<str>,
    /// Most seconds since a sign-in (RFC 9470 section 3).
    pub max_age: Option<i64>,
    /// Values of `acr` that are good enough, with spaces between (RFC 9470 section 3).
    pub acr_values: Box<str>,
    /// Where the resource describes itself (RFC 9728 section 5.1).
    pub resource_metadata: Option<Box<str>>,
}

/// Row of the table of denials: everything that a denial fixes.
struct Row {
    reason: &'static str,
    status: u16,
    error: &'static str,
    challenge: Challenge,
    message: &'static str,
    fault: Fault,
    precedes_policy: bool,
}

impl Row {
    const fn new(reason: &'static str, status: u16, error: &'static str, message: &'static str) -> Self {
        let (challenge, fault, precedes_policy) = (Challenge::None, Fault::Caller, false);
        Self { reason, status, error, challenge, message, fault, precedes_policy }
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

    /// Marks a denial that is decided before the request has a policy.
    const fn before_policy(self) -> Self {
        Self { precedes_policy: true, ..self }
    }
}

macro_rules! denials {
    ($($(#[$doc:meta])* $name:ident = $row:expr;)*) => {
        /// Why a request is refused.
        ///
        /// The order is the order of the checks, up to the ones that cannot be placed in it.
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
    /// The check carries no HTTP request.
    NoHttpRequest = Row::forbidden("no_http_request", "The authorization check carried no HTTP request.").before_policy();
    /// The route names a policy that is not configured.
    UnknownPolicy = Row::forbidden("unknown_policy", "This route names a policy that does not exist.").before_policy();
    /// The path is not in plain form, and a policy depends on it.
    UnsafePath = Row::forbidden("unsafe_path", "The path can be read in more than one way.").before_policy();
    /// No `Authorization`, an empty one, or another scheme.
    MissingCredential = Row::new("missing_credential", 401, "missing_token", "A Bearer token is required.")
        .challenge(Challenge::Realm);
    /// More than one credential, the same one twice included.
    MultipleCredentials = Row::new("multiple_credentials", 401, "invalid_request", "More than one credential was sent.")
        .challenge(Challenge::Error);
    /// The token is longer than [`MAX_TOKEN_BYTES`](super::token::MAX_TOKEN_BYTES).
    TokenTooLarge = Row::bad_token("token_too_large", "The token is too large.");
    /// Not one compact JWS, or a claim of the wrong type.
    MalformedToken = Row::bad_token("malformed_token", "The token is malformed.");
    /// `alg` is not exactly `RS256`.
    UnsupportedAlgorithm = Row::bad_token("unsupported_algorithm", "The token is not signed with RS256.");
    /// `crit` or `b64` in the header.
    UnsupportedHeader = Row::bad_token("unsupported_header", "The token asks for a JWS extension that is not supported.");
    /// No `kid` in the header.
    MissingKid = Row::bad_token("missing_kid", "The token does not name its key.");
    /// `iss` is none of the configured issuers.
    UnknownIssuer = Row::bad_token("unknown_issuer", "The token is from an unknown issuer.");
    /// `token_use` is not accepted here.
    WrongTokenUse = Row::bad_token("wrong_token_use", "This kind of token is not accepted here.");
    /// A required claim is absent.
    MissingClaim = Row::bad_token("missing_claim", "The token lacks a required claim.");
    /// `client_id` or `aud` is none of the accepted app clients.
    WrongClient = Row::bad_token("wrong_client", "The token was issued to another app client.");
    /// `exp` has passed.
    Expired = Row::bad_token("expired", "The token has expired.");
    /// `nbf` is in the future.
    NotYetValid = Row::bad_token("not_yet_valid", "The token is not valid yet.");
    /// A key set fetched just now lacks the `kid`.
    UnknownKid = Row::bad_token("unknown_kid", "The token is signed with an unknown key.");
    /// The signature is not the key's.
    BadSignature = Row::bad_token("bad_signature", "The signature of the token is not valid.");
    /// The token lacks a scope that the policy requires.
    InsufficientScope = Row::new("insufficient_scope", 403, "insufficient_scope", "The token lacks a scope that is needed here.")
        .challenge(Challenge::Scope);
    /// The caller is in none of the groups that the policy requires.
    InsufficientGroup = Row::forbidden("insufficient_group", "The user is not in a group that may do this.");
    /// The token is not of the kind, or does not carry a claim as, the policy requires.
    ClaimMismatch = Row::forbidden("claim_mismatch", "The token is not meant for this.");
    /// The caller has to sign in again, or in a stronger way (RFC 9470).
    AuthTooOld = Row::new(
        "auth_too_old",
        401,
        "insufficient_user_authentication",
        "A more recent or a stronger sign-in is needed here.",
    )
    .challenge(Challenge::StepUp);
    /// A page of another site may have made a browser send its session cookie.
    CrossSite = Row::forbidden("cross_site", "This request may come from another site's page.");
    /// The identity headers would exceed their limit.
    IdentityTooLarge = Row::forbidden("identity_too_large", "The token carries more than can be passed on.");
    /// The pool's keys are not available, so the token cannot be verified.
    KeysUnavailable = Row::unavailable("keys_unavailable", "The token cannot be verified at the moment.");
}

/// Who has to act on a denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller, with another credential or another request.
    Caller,
    /// The operator of this service; such a check is counted as `error`.
    Service,
}

impl Denial {
    /// The word for it: metric label, `reason` in metadata and body.
    pub fn reason(self) -> &'static str {
        self.row().reason
    }

    /// HTTP status of the answer.
    pub fn status(self) -> u16 {
        self.row().status
    }

    /// `error` in the body and, where there is one, in the challenge.
    pub fn error(self) -> &'static str {
        self.row().error
    }

    /// Which challenge the answer carries.
    pub fn challenge(self) -> Challenge {
        self.row().challenge
    }

    /// A sentence for the caller: `message` in the body, `error_description` in the challenge.
    pub fn message(self) -> &'static str {
        self.row().message
    }

    /// `WWW-Authenticate` (RFC 6750 section 3, RFC 9470 section 3, RFC 9728 section 5.1), if the answer carries one. Every
    /// text in it is ours or the operator's, and of characters that need no escaping.
    pub fn www_authenticate(self, realm: &Realm, details: Option<&ChallengeDetails>) -> Option<String> {
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

    /// Who has to act on it.
    pub fn fault(self) -> Fault {
        self.row().fault
    }

    /// `true` if the request has no policy yet when this denial is decided.
    pub fn precedes_policy(self) -> bool {
        self.row().precedes_policy
    }
}

/// `realm` of a challenge: a text that can stand in a quoted-string as it is (RFC 9110 section 5.6.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realm(Box<str>);

impl Realm {
    /// The text.
    pub fn as_str(&self) -> &str {
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
    fn every_denial_has_its_own_row() {
        let reasons: HashSet<_> = Denial::ALL.iter().map(|d| d.reason()).collect();
        assert_eq!(reasons.len(), Denial::ALL.len());
        assert!(Denial::ALL.is_sorted(), "in the order of the checks");
        for &denial in Denial::ALL {
            assert!([401, 403, 503].contains(&denial.status()), "{denial:?}");
            let has_challenge = denial.status() == 401 || denial == Denial::InsufficientScope;
            assert_eq!(denial.challenge() != Challenge::None, has_challenge, "{denial:?}");
            // Stands in a quoted-string (RFC 9110 section 5.6.4) and in JSON as it is.
            assert!(
                denial.message().bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\'),
                "{denial:?}"
            );
        }
    }
}
