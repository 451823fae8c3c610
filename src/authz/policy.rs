//! Policies: what a route asks for beyond a verified token, by name.
//!
//! There is one, `default`, and it asks for nothing more. Envoy chooses a policy for a route with the context
//! extension `policy` (`ExtAuthzPerRoute.check_settings.context_extensions`).

/// Position of a policy in [`Policies`].
pub type PolicyIndex = usize;

/// What a route asks for.
#[derive(Debug)]
pub struct Policy {
    /// Its name, a metric label and a member of the metadata.
    pub name: Box<str>,
}

/// The policies by name.
#[derive(Debug)]
pub struct Policies {
    policies: Vec<Policy>,
}

/// Where the policy `default` stands.
const DEFAULT: PolicyIndex = 0;

impl Default for Policies {
    /// The one policy there is without a policy file.
    fn default() -> Self {
        Self { policies: vec![Policy { name: "default".into() }] }
    }
}

impl Policies {
    /// The policy that a route names, or the default one when it names none. An unknown name is no policy: a route
    /// must not become weaker by a slip of the pen.
    pub fn for_route(&self, named: Option<&[u8]>) -> Option<(PolicyIndex, &Policy)> {
        let index = match named {
            None => DEFAULT,
            Some(name) => self.policies.iter().position(|policy| policy.name.as_bytes() == name)?,
        };
        Some((index, self.policies.get(index)?))
    }

    /// All policies, in the order of their [`PolicyIndex`].
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Policy> {
        self.policies.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_gets_the_policy_it_names_or_the_default() {
        let policies = Policies::default();
        let name = |named: Option<&[u8]>| policies.for_route(named).map(|(_, policy)| &*policy.name);
        assert_eq!(name(None), Some("default"));
        assert_eq!(name(Some(b"default")), Some("default"));
        for unknown in [&b""[..], b"admin", b"Default", b"default ", b"\xff"] {
            assert_eq!(name(Some(unknown)), None);
        }
    }
}
