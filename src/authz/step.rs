//! The steps of a check, in the order in which they are taken. How far a check got is what `explain` shows.

/// A step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Envoy's route or ours chooses a policy.
    #[default]
    Route,
    /// One Bearer token among the headers.
    Credential,
    /// Its length.
    Size,
    /// A compact JWS of two JSON objects.
    Form,
    /// `alg`
    Algorithm,
    /// `crit`
    Critical,
    /// `kid`
    Kid,
    /// `iss`, which selects the pool.
    Issuer,
    /// `token_use`
    TokenUse,
    /// `sub`
    Subject,
    /// `client_id` or `aud`.
    Client,
    /// `exp`
    Expiry,
    /// `nbf`
    NotBefore,
    /// The types of the remaining claims.
    Types,
    /// The key that `kid` names.
    Key,
    /// The signature.
    Signature,
    /// Whether the session has been ended. There is nothing yet that could say so.
    Revocation,
    /// What the policy asks for.
    Policy,
    /// What upstream is told.
    Identity,
}

impl Step {
    /// Every step.
    pub const ALL: [Self; 19] = [
        Self::Route,
        Self::Credential,
        Self::Size,
        Self::Form,
        Self::Algorithm,
        Self::Critical,
        Self::Kid,
        Self::Issuer,
        Self::TokenUse,
        Self::Subject,
        Self::Client,
        Self::Expiry,
        Self::NotBefore,
        Self::Types,
        Self::Key,
        Self::Signature,
        Self::Revocation,
        Self::Policy,
        Self::Identity,
    ];

    /// Its name, in the words of the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Credential => "credential",
            Self::Size => "size",
            Self::Form => "form",
            Self::Algorithm => "alg",
            Self::Critical => "crit",
            Self::Kid => "kid",
            Self::Issuer => "iss",
            Self::TokenUse => "token_use",
            Self::Subject => "sub",
            Self::Client => "client",
            Self::Expiry => "exp",
            Self::NotBefore => "nbf",
            Self::Types => "types",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Revocation => "revocation",
            Self::Policy => "policy",
            Self::Identity => "identity",
        }
    }
}
