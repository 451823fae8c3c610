//! Claims that only some configurations ask for: by path, as JSON, and no more of them than are asked for.
//!
//! A token carries a dozen claims that nobody reads. The ones that a policy or a header needs are picked out
//! once, when the token has been verified, and kept with it under a number. Start from [`WantedClaims`].

use std::fmt;

use serde_json::Value;

use super::super::denial::Denial;

/// Where a claim stands: its name or, inside objects, the names on the way to it.
///
/// Names are taken as they are, so that `custom:tenant` and `https://example.com/roles` need no escaping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(Box<[Box<str>]>);

impl ClaimPath {
    /// The claim that is reached by these names; `None` if there is none, or one is empty.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Option<Self> {
        let names: Box<[Box<str>]> = names.into_iter().map(Into::into).collect();
        (!names.is_empty() && names.iter().all(|name| !name.is_empty())).then_some(Self(names))
    }

    /// The first name.
    pub fn claim(&self) -> &str {
        self.0.first().map_or("", |name| name)
    }

    /// The value; `null` counts as none, as an empty text does where text is asked for.
    fn look_up<'v>(&self, claims: &'v Value) -> Option<&'v Value> {
        let value = self.0.iter().try_fold(claims, |value, name| value.get(&**name))?;
        Some(value).filter(|value| !value.is_null())
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// Number of a claim among the [`WantedClaims`], and so among the [`ExtraClaims`] of every token.
pub type WantedIndex = usize;

/// The claims that a configuration asks for, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedClaims {
    paths: Vec<ClaimPath>,
}

impl WantedClaims {
    /// Asks for a claim.
    pub fn want(&mut self, path: ClaimPath) -> WantedIndex {
        self.paths.iter().position(|known| *known == path).unwrap_or_else(|| {
            self.paths.push(path);
            self.paths.len() - 1
        })
    }

    /// Picks the claims out of a payload.
    ///
    /// # Errors
    /// [`Denial::MalformedToken`]: claims that cannot be read are not absent.
    pub(super) fn pick(&self, payload: &str) -> Result<ExtraClaims, Denial> {
        if self.paths.is_empty() {
            return Ok(ExtraClaims::default());
        }
        let claims: Value = serde_json::from_str(payload).map_err(|_| Denial::MalformedToken)?;
        Ok(ExtraClaims(self.paths.iter().map(|path| path.look_up(&claims).cloned()).collect()))
    }
}

/// What a token says of the [`WantedClaims`]. It has no `Debug`: it may say who somebody is.
#[derive(Default)]
pub struct ExtraClaims(Box<[Option<Value>]>);

impl ExtraClaims {
    /// The claim with this number, if the token has it.
    pub fn get(&self, index: WantedIndex) -> Option<&Value> {
        self.0.get(index)?.as_ref()
    }

    /// Bytes on the heap, about.
    pub fn heap_bytes(&self) -> usize {
        fn of(value: &Value) -> usize {
            match value {
                Value::String(text) => text.len(),
                Value::Array(members) => members.iter().map(|member| size_of::<Value>() + of(member)).sum(),
                // A node of the tree has room for eleven.
                Value::Object(members) => {
                    let each = |(name, member): (&String, &Value)| 2 * size_of::<Value>() + name.len() + of(member);
                    400 + members.iter().map(each).sum::<usize>()
                }
                _ => 0,
            }
        }
        size_of_val(&*self.0) + self.0.iter().flatten().map(of).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_are_found_by_their_path() {
        let payload =
            r#"{"a":1,"custom:tenant":"t","https://x/y.z":["r"],"o":{"p":{"q":true},"n":null},"n":null,"a.b":2}"#;
        let mut wanted = WantedClaims::default();
        let mut find = |names: &[&str]| {
            let index = wanted.want(ClaimPath::new(names.iter().copied()).unwrap());
            wanted.pick(payload).unwrap().get(index).cloned()
        };
        for (names, expected) in [
            (&["a"][..], Some(json!(1))),
            (&["custom:tenant"], Some(json!("t"))),
            (&["https://x/y.z"], Some(json!(["r"]))),
            (&["o", "p", "q"], Some(json!(true))),
            (&["a.b"], Some(json!(2))),
            (&["o", "p"], Some(json!({"q": true}))),
            (&["o.p"], None),
            (&["a", "b"], None),
            (&["o", "n"], None),
            (&["n"], None),
            (&["absent"], None),
            (&["https://x/y.z", "0"], None),
        ] {
            assert_eq!(find(names), expected, "{names:?}");
        }
        assert_eq!(wanted.paths.len(), 12);
        assert_eq!(wanted.want(ClaimPath::new(["a"]).unwrap()), 0, "each once");
        assert!(ClaimPath::new([]).is_none() && ClaimPath::new(["a", ""]).is_none());
        for unreadable in ["", "{", r#"{"a":1e999}"#, r#"{"a":1,"x":"\ud800"}"#] {
            assert_eq!(wanted.pick(unreadable).err(), Some(Denial::MalformedToken), "{unreadable}");
            assert!(WantedClaims::default().pick(unreadable).is_ok(), "nothing is read");
        }
    }
}
