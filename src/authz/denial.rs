//! Every reason a request can be refused for, and what each fixes: metric label, status, challenge, text.
//!
//! A closed list: nothing a caller sends ever becomes a reason, and no reason repeats what a caller sent.
//! The table in the README is compared with this one by a test.

use std::str::FromStr;

/// Why a request is refused.
///
/// The order is the order of the checks, up to the ones that cannot be placed in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Denial {
    /// The check carries no HTTP request, or one whose host can be read in more than one way while a route names hosts.
    NoHttpRequest,
    /// The route names a policy that is not configured.
    UnknownPolicy,
    /// The path is not in plain form, and a policy depends on it.
    UnsafePath,
    /// No `Authorization`, an empty one, or another scheme.
    MissingCredential,
    /// More than one credential, the same one twice included.
    MultipleCredentials,
    /// The token is longer than [`MAX_TOKEN_BYTES`](super::token::MAX_TOKEN_BYTES).
    TokenTooLarge,
    /// Not one compact JWS, or a claim of the wrong type.
    MalformedToken,
    /// `alg` is not exactly `RS256`.
    UnsupportedAlgorithm,
    /// `crit` or `b64` in the header.
    UnsupportedHeader,
    /// No `kid` in the header.
    MissingKid,
    /// `iss` is none of the configured issuers.
    UnknownIssuer,
    /// `token_use` is not accepted here.
    WrongTokenUse,
    /// A required claim is absent.
    MissingClaim,
    /// `client_id` or `aud` is none of the accepted app clients.
    WrongClient,
    /// `exp` has passed.
    Expired,
    /// `nbf` has not come.
    NotYetValid,
    /// A key set fetched just now lacks the `kid`.
    UnknownKid,
    /// The signature is not the key's.
    BadSignature,
    /// The token lacks a scope that the policy asks for.
    InsufficientScope,
    /// The caller is in none of the groups that the policy asks for.
    InsufficientGroup,
    /// The token is not of the kind, or does not carry a claim as, the policy asks for.
    ClaimMismatch,
    /// The caller has to sign in again, or in a stronger way (RFC 9470).
    AuthTooOld,
    /// A page of another site may have made a browser send its session cookie.
    CrossSite,
    /// What upstream would have to be told does not fit into its headers.
    IdentityTooLarge,
    /// The pool's keys cannot be had, so that nothing can be said about the token.
    KeysUnavailable,
}

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

/// A row of the table of denials.
struct Row {
    reason: &'static str,
    status: u16,
    error: &'static str,
    challenge: Challenge,
    message: &'static str,
}

impl Denial {
    /// Every denial.
    pub const ALL: [Self; 25] = [
        Self::NoHttpRequest,
        Self::UnknownPolicy,
        Self::UnsafePath,
        Self::MissingCredential,
        Self::MultipleCredentials,
        Self::TokenTooLarge,
        Self::MalformedToken,
        Self::UnsupportedAlgorithm,
        Self::UnsupportedHeader,
        Self::MissingKid,
        Self::UnknownIssuer,
        Self::WrongTokenUse,
        Self::MissingClaim,
        Self::WrongClient,
        Self::Expired,
        Self::NotYetValid,
        Self::UnknownKid,
        Self::BadSignature,
        Self::InsufficientScope,
        Self::InsufficientGroup,
        Self::ClaimMismatch,
        Self::AuthTooOld,
        Self::CrossSite,
        Self::IdentityTooLarge,
        Self::KeysUnavailable,
    ];

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

    /// Whether the failure is ours and not the caller's; such a check is counted as `error`.
    pub fn is_ours(self) -> bool {
        self.status() >= 500
    }

    fn row(self) -> &'static Row {
        const fn bad_token(reason: &'static str, message: &'static str) -> Row {
            Row { reason, status: 401, error: "invalid_token", challenge: Challenge::Error, message }
        }
        const fn forbidden(reason: &'static str, message: &'static str) -> Row {
            Row { reason, status: 403, error: "access_denied", challenge: Challenge::None, message }
        }
        match self {
            Self::NoHttpRequest => {
                const {
                    &forbidden(
                        "no_http_request",
                        "The authorization check carried no HTTP request, or one with more than one host.",
                    )
                }
            }
            Self::UnknownPolicy => {
                const { &forbidden("unknown_policy", "This route names a policy that does not exist.") }
            }
            Self::UnsafePath => const { &forbidden("unsafe_path", "The path can be read in more than one way.") },
            Self::MissingCredential => &Row {
                reason: "missing_credential",
                status: 401,
                error: "missing_token",
                challenge: Challenge::Realm,
                message: "A Bearer token is required.",
            },
            Self::MultipleCredentials => &Row {
                reason: "multiple_credentials",
                status: 401,
                error: "invalid_request",
                challenge: Challenge::Error,
                message: "More than one credential was sent.",
            },
            Self::TokenTooLarge => const { &bad_token("token_too_large", "The token is too large.") },
            Self::MalformedToken => const { &bad_token("malformed_token", "The token is malformed.") },
            Self::UnsupportedAlgorithm => {
                const { &bad_token("unsupported_algorithm", "The token is not signed with RS256.") }
            }
            Self::UnsupportedHeader => {
                const { &bad_token("unsupported_header", "The token asks for a JWS extension that is not supported.") }
            }
            Self::MissingKid => const { &bad_token("missing_kid", "The token does not name its key.") },
            Self::UnknownIssuer => const { &bad_token("unknown_issuer", "The token is from an unknown issuer.") },
            Self::WrongTokenUse => const { &bad_token("wrong_token_use", "This kind of token is not accepted here.") },
            Self::MissingClaim => const { &bad_token("missing_claim", "The token lacks a required claim.") },
            Self::WrongClient => const { &bad_token("wrong_client", "The token was issued to another app client.") },
            Self::Expired => const { &bad_token("expired", "The token has expired.") },
            Self::NotYetValid => const { &bad_token("not_yet_valid", "The token is not valid yet.") },
            Self::UnknownKid => const { &bad_token("unknown_kid", "The token is signed with an unknown key.") },
            Self::BadSignature => const { &bad_token("bad_signature", "The signature of the token is not valid.") },
            Self::InsufficientScope => &Row {
                reason: "insufficient_scope",
                status: 403,
                error: "insufficient_scope",
                challenge: Challenge::Scope,
                message: "The token lacks a scope that is needed here.",
            },
            Self::InsufficientGroup => {
                const { &forbidden("insufficient_group", "The user is not in a group that may do this.") }
            }
            Self::ClaimMismatch => const { &forbidden("claim_mismatch", "The token is not meant for this.") },
            Self::AuthTooOld => &Row {
                reason: "auth_too_old",
                status: 401,
                error: "insufficient_user_authentication",
                challenge: Challenge::StepUp,
                message: "A more recent or a stronger sign-in is needed here.",
            },
            Self::CrossSite => const { &forbidden("cross_site", "This request may come from another site's page.") },
            Self::IdentityTooLarge => {
                const { &forbidden("identity_too_large", "The token carries more than can be passed on.") }
            }
            Self::KeysUnavailable => &Row {
                reason: "keys_unavailable",
                status: 503,
                error: "temporarily_unavailable",
                challenge: Challenge::None,
                message: "The token cannot be verified at the moment.",
            },
        }
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
        for denial in Denial::ALL {
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
