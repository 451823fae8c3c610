//! Steps of a check, in order. The command `explain` shows which steps a request passed and which one failed.

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        /// A step of a check.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Step {
            $($(#[$doc])* $name,)*
        }

        impl Step {
            /// Every step, in order.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Name of the step, as the documentation spells it.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

steps! {
    /// A policy is chosen, by Envoy's route or by a route of the policy file.
    #[default]
    Route = "route";
    /// The request carries exactly one credential.
    Credential = "credential";
    /// The token is not too long.
    Size = "size";
    /// The token is a compact JWS of two JSON objects (RFC 7515 section 7.1).
    Form = "form";
    /// `alg` is `RS256`.
    Algorithm = "alg";
    /// The header requires no extension (`crit`, `b64`).
    Critical = "crit";
    /// The header has a `kid`.
    Kid = "kid";
    /// `iss` names a configured pool.
    Issuer = "iss";
    /// `token_use` is accepted.
    TokenUse = "token_use";
    /// The token has a `sub`.
    Subject = "sub";
    /// `client_id` or `aud` is an accepted app client.
    Client = "client";
    /// `exp` has not passed, allowing for clock skew.
    Expiry = "exp";
    /// `nbf` is not in the future, allowing for clock skew.
    NotBefore = "nbf";
    /// The remaining claims have the right types.
    Types = "types";
    /// The pool has the key that `kid` names.
    Key = "key";
    /// The signature is valid.
    Signature = "signature";
    /// The token is not revoked. Revocation is not implemented yet, so every token passes.
    Revocation = "revocation";
    /// The token meets the requirements of the policy.
    Policy = "policy";
    /// The identity headers for the upstream fit their limit.
    Identity = "identity";
}
