//! The path that the account API's routes are below.

use std::str::FromStr;

/// Where the account API is: a path such as `/auth`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(Box<str>);

impl Prefix {
    /// The path, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What of `path` is below, with its slash.
    pub(super) fn below<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.strip_prefix(&*self.0).filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for Prefix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
        let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(plain);
        match text.strip_prefix('/') {
            Some(rest) if text.len() <= 128 && rest.split('/').all(is_segment) => Ok(Self(text.into())),
            _ => Err("not a path such as /auth"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        for good in ["/auth", "/api/v1/auth", "/a-b_c.d~e"] {
            assert!(good.parse::<Prefix>().is_ok(), "{good}");
        }
        for bad in ["", "/", "auth", "/auth/", "//auth", "/a b", "/a/../b", "/a?b", "/ä", "/%61"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
        let prefix: Prefix = "/auth".parse().unwrap();
        for (path, below) in [
            ("/auth/login", Some("/login")),
            ("/auth", Some("")),
            ("/auth/", Some("/")),
            ("/authors", None),
            ("/metrics", None),
            ("/x/auth/login", None),
        ] {
            assert_eq!(prefix.below(path), below, "{path}");
        }
    }
}
