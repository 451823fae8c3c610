//! The steps of a check, in the order in which they are taken. `explain` shows how far a check got.

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        /// A step of a check.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Step {
            $($(#[$doc])* $name,)*
        }

        impl Step {
            /// Every step, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Name of the step, as the documentation spells it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

steps! {
    /// Envoy's route or a route of the policy file chooses a policy.
    #[default]
    Route = "route";
    /// The request carries one credential.
    Credential = "credential";
    /// Length of the token.
    Size = "size";
    /// A compact JWS of two JSON objects.
    Form = "form";
    /// `alg`
    Algorithm = "alg";
    /// `crit`
    Critical = "crit";
    /// `kid`
    Kid = "kid";
    /// `iss`, which selects the pool.
    Issuer = "iss";
    /// `token_use`
    TokenUse = "token_use";
    /// `sub`
    Subject = "sub";
    /// `client_id` or `aud`.
    Client = "client";
    /// `exp`
    Expiry = "exp";
    /// `nbf`
    NotBefore = "nbf";
    /// Types of the remaining claims.
    Types = "types";
    /// The key that `kid` names.
    Key = "key";
    /// The signature.
    Signature = "signature";
    /// Revocation. Nothing can be revoked yet, so every token passes this step.
    Revocation = "revocation";
    /// Requirements of the policy.
    Policy = "policy";
    /// Identity headers for the upstream.
    Identity = "identity";
}
