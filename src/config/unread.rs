//! Variables that look like settings of this program, and that nothing reads: typing errors, and settings of other
//! versions.

use crate::nearest::{distance, nearest};

/// Variable that nothing reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Name of the variable.
    pub name: String,
    /// Place where it is set: `environment`, or a line of `.env`.
    pub source: String,
    /// Name of a variable that is read, if one is similar.
    pub nearest: Option<String>,
}

/// Prefix of the variables that belong to this program alone.
const OWN: &str = "COGNITO_AUTHZ_";
/// Prefix that other programs use for their settings as well.
const SHARED: &str = "COGNITO_";
/// Most single-character changes between a variable without these prefixes and one that it is mistaken for.
const MAX_TYPOS: usize = 2;

/// Variable that is not read.
pub(super) struct Other {
    pub(super) name: String,
    /// Line of `.env`; `None` for the environment.
    pub(super) line: Option<usize>,
    /// `true` if the value begins with `tcp://`, as one that Kubernetes sets for a Service.
    pub(super) is_link: bool,
}

/// Returns the `others` that look as if they should be among the `known` variables.
pub(super) fn suspicious(others: &[Other], known: &[String]) -> Vec<Unread> {
    let mut found: Vec<Unread> = others
        .iter()
        .filter(|other| !is_service_link(&other.name, other.is_link))
        .filter_map(|Other { name, line, .. }| {
            let distances = known.iter().map(|known| (known, distance(name, known)));
            let (closest, distance) = distances.min_by_key(|(_, distance)| *distance)?;
            let is_meant = match &**name {
                _ if name.starts_with(OWN) => true,
                _ if name.starts_with(SHARED) => distance <= name.len() / 3,
                _ => distance <= MAX_TYPOS,
            };
            let nearest = if distance <= MAX_TYPOS { Some(closest) } else { by_rest(name, known) }.cloned();
            let source = line.map_or_else(|| "environment".to_owned(), |line| format!("line {line} of .env"));
            is_meant.then(|| Unread { name: name.clone(), source, nearest })
        })
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// `true` for a variable that Kubernetes sets for a Service whose name starts with `cognito-authz`
/// (`NAME_SERVICE_HOST`, `NAME_SERVICE_PORT_GRPC`, `NAME_PORT`, `NAME_PORT_9191_TCP_ADDR`).
fn is_service_link(name: &str, has_link_value: bool) -> bool {
    let after = |infix: &str| name.rsplit_once(infix).map(|(_, rest)| rest);
    let is_service = name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT");
    let is_numbered = after("_PORT_").is_some_and(|rest| {
        let (number, protocol) = rest.split_once('_').unwrap_or((rest, ""));
        number.bytes().all(|byte| byte.is_ascii_digit())
            && ["TCP", "UDP", "SCTP"].iter().any(|p| protocol.starts_with(p))
    });
    is_service || is_numbered || (name.ends_with("_PORT") && has_link_value)
}

/// Returns the known variable whose name without its prefix is nearest.
fn by_rest<'k>(name: &str, known: &'k [String]) -> Option<&'k String> {
    let rest = nearest(without_prefix(name), known.iter().map(|known| without_prefix(known)))?;
    known.iter().find(|known| without_prefix(known) == rest)
}

/// Returns a name without the prefix that most names share, so that only the rest counts.
fn without_prefix(name: &str) -> &str {
    name.strip_prefix(OWN).or_else(|| name.strip_prefix(SHARED)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nothing_reads_have_the_nearest_that_something_does() {
        let known: Vec<String> = [
            "COGNITO_USER_POOL_ID",
            "COGNITO_CLIENT_ID",
            "AWS_REGION",
            "COGNITO_AUTHZ_LEEWAY",
            "COGNITO_AUTHZ_GRPC_LISTEN",
            "COGNITO_AUTHZ_REALM",
        ]
        .map(String::from)
        .into();
        for (name, is_link, expected) in [
            ("COGNITO_AUTHZ_LEWAY", false, Some(Some("COGNITO_AUTHZ_LEEWAY"))),
            ("COGNITO_AUTHZ_USER_POOL_ID", false, Some(Some("COGNITO_USER_POOL_ID"))),
            ("COGNITO_AUTHZ_LISTEN", false, Some(Some("COGNITO_AUTHZ_GRPC_LISTEN"))),
            ("COGNITO_AUTHZ_SOMETHING_ELSE_ALTOGETHER", false, Some(None)),
            ("COGNITO_CLIENT_IDS", false, Some(Some("COGNITO_CLIENT_ID"))),
            ("CONGITO_CLIENT_ID", false, Some(Some("COGNITO_CLIENT_ID"))),
            ("COGNITO_DOMAIN_OF_THE_FRONTEND", false, None),
            ("AWS_REGON", false, Some(Some("AWS_REGION"))),
            ("AWS_PROFILE", false, None),
            ("PATH", false, None),
            ("COGNITO_AUTHZ_SERVICE_HOST", false, None),
            ("COGNITO_AUTHZ_ACCOUNT_SERVICE_PORT_HTTP", false, None),
            ("COGNITO_AUTHZ_PORT", true, None),
            ("COGNITO_AUTHZ_PORT", false, Some(None)),
            ("COGNITO_AUTHZ_PORT_9191_TCP", true, None),
            ("COGNITO_AUTHZ_PORT_9191_TCP_ADDR", false, None),
            ("COGNITO_AUTHZ_PORT_GRPC", false, Some(None)),
        ] {
            let found = suspicious(&[Other { name: name.into(), line: None, is_link }], &known);
            let found: Vec<Option<&str>> = found.iter().map(|unread| unread.nearest.as_deref()).collect();
            match expected {
                None => assert!(found.is_empty(), "{name}: {found:?}"),
                Some(expected) => assert_eq!(found, [expected], "{name}"),
            }
        }
    }
}
