//! From the form of the policy file to the rules: names become what they name, and what cannot work is an error.
//!
//! Start from [`compile`].

mod pools;
mod requirements;
mod routes;

use std::collections::HashMap;

use serde_json::Value;

use super::locate::{Fault, Place};
use super::text::{Any, Parsed, Plain, WebUrl};
use super::values::{Name, OneOrMany};
use super::{CorsPreflight, ListForm, PolicyEntry, PolicyFile, UnsafePaths};
use crate::authz::denial::ChallengeDetails;
use crate::authz::headers::{ClaimHeader, HeaderIndex, HeaderName, ListEncoding, STANDARD};
use crate::authz::policy::DEFAULT;
use crate::authz::policy::opening::openings;
use crate::authz::token::claims::{ClaimPath, WantedClaims};
use crate::authz::{Access, OwnedHeaders, Policies, Policy};
use crate::config::check_endpoint;
use crate::config::rules::{Rules, RulesSource};
use crate::jwks::KeySet;
use crate::user_pool::UserPool;

/// Puts the file over what the flags say.
///
/// # Errors
/// The first [`Fault`].
pub(crate) fn compile(file: PolicyFile, source: &RulesSource) -> Result<Rules, Fault> {
    let root = Place::default();
    let mut compiler = Compiler {
        pools: Vec::new(),
        headers: source.owned_headers(),
        wanted: WantedClaims::default(),
        warnings: Vec::new(),
    };
    let secrets = compiler.pools(file.pools.0, source)?;
    let account = file.account.map(|account| compiler.account(account, &secrets)).transpose()?;

    let at = root.member("claim_headers");
    for (index, entry) in file.claim_headers.into_iter().enumerate() {
        let at = at.item(index);
        let claim = compiler.wanted.want(claim_path(&entry.claim, &at.member("claim"))?);
        let list = match entry.list {
            ListForm::Comma => ListEncoding::Comma,
            ListForm::Json => ListEncoding::Json,
            ListForm::Repeated => ListEncoding::Repeated,
        };
        let header = compiler.free(&entry.header, &at.member("header"))?;
        compiler.headers.add_claim(header, ClaimHeader { claim, list });
    }
    if let Some(header) = &file.whole_claims_header {
        let header = compiler.free(header, &root.member("whole_claims_header"))?;
        compiler.headers.add_whole_claims(header);
    }

    // A name of its own for what is always there.
    let implicit = file.default.is_none() && !file.policies.0.keys().any(|name| name.as_str() == DEFAULT);
    let mut policies = Vec::new();
    if implicit {
        policies.push(Policy {
            name: DEFAULT.into(),
            removes_authorization: file.remove_authorization,
            ..Policy::default()
        });
    }
    let taken = compiler.headers.names().len();
    for (name, entry) in file.policies.0 {
        let at = root.member("policies").member(name.as_str());
        policies.push(compiler.policy(&name, entry, file.remove_authorization, taken, &at)?);
    }
    let position = |name: &str| policies.iter().position(|policy| *policy.name == *name);
    let default = match &file.default {
        None if !file.routes.is_empty() => {
            return Err(root.member("routes").fault("a file with routes names its `default` policy"));
        }
        None => position(DEFAULT).unwrap_or_default(),
        Some(name) => {
            let at = root.member("default");
            if name.as_str() != DEFAULT && position(DEFAULT).is_some() {
                return Err(at.fault(format!(
                    "there is a policy called `default`, and {name} is the default one: rename the first"
                )));
            }
            position(name.as_str()).ok_or_else(|| at.fault(format!("there is no policy {name}")))?
        }
    };
    if let Some(segment) = policies.get(default).and_then(|policy| segments(policy).next()) {
        let why = format!("this policy compares with the segment {{{segment}}}, which only a route can give");
        return Err(root.member("default").fault(why));
    }
    let routes = compiler.routes(file.routes, &policies, file.case_insensitive)?;

    let Compiler { pools, headers, wanted, mut warnings } = compiler;
    let policies = Policies::new(policies, default, routes);
    warnings.extend(opened(&policies));
    Ok(Rules { pools, policies, headers, wanted, account, warnings, shown: Value::Null, seen: None })
}

/// What has been put together so far.
struct Compiler {
    pools: Vec<(UserPool, KeySet)>,
    headers: OwnedHeaders,
    wanted: WantedClaims,
    warnings: Vec<String>,
}

/// The secret files of pools, by name.
type SecretFiles = HashMap<Box<str>, std::path::PathBuf>;

impl Compiler {
    /// A header that nothing has set so far.
    fn free<'h>(&self, Parsed(header): &'h Parsed<HeaderName>, at: &Place) -> Result<&'h HeaderName, Fault> {
        match self.headers.position(header.as_str()) {
            None => Ok(header),
            Some(index) if index < STANDARD => Err(at.fault(format!("{} is a standard header", header.as_str()))),
            Some(_) => Err(at.fault(format!("{} is set by another claim", header.as_str()))),
        }
    }

    fn policy(
        &mut self,
        name: &Name,
        mut entry: PolicyEntry,
        removes_authorization: bool,
        taken: HeaderIndex,
        at: &Place,
    ) -> Result<Policy, Fault> {
        if entry.public && entry.optional {
            return Err(at.member("optional").fault("a public policy looks at no token at all: choose one of the two"));
        }
        let open = entry.public || entry.optional;
        if let Some(member) = requirements::demanding_member(&entry).filter(|_| open) {
            return Err(at
                .member(member)
                .fault("everybody passes here, with or without a token, so nothing can be asked for"));
        }
        let mut headers = Vec::new();
        for (Parsed(header), value) in std::mem::take(&mut entry.headers).0 {
            let at = at.member("headers").member(header.as_str());
            if self.headers.position(header.as_str()).is_some_and(|index| index < taken) {
                return Err(at.fault("this header is set from the token"));
            }
            headers.push((self.headers.add(&header), (*value).into()));
        }
        headers.sort_unstable();

        let allows_unsafe_paths = entry.unsafe_paths == UnsafePaths::Allow;
        if allows_unsafe_paths {
            self.warnings.push(format!(
                "the policy {name} takes paths that can be read in more than one way (unsafe_paths: allow): Envoy's reading \
                 has to be the application's"
            ));
        }
        let requirements = self.requirements(&entry, at)?;
        let joined = |names: Vec<&str>| names.join(" ").into();
        let challenge = ChallengeDetails {
            scope: joined(requirements.scopes.names().collect()),
            max_age: requirements.max_auth_age.map(|(_, seconds)| seconds),
            acr_values: joined(requirements.acr.iter().flat_map(|(_, values)| values).map(|value| &**value).collect()),
            resource_metadata: match entry.resource_metadata {
                None => None,
                Some(Parsed(WebUrl(url))) => {
                    check_endpoint(&url, false).map_err(|why| at.member("resource_metadata").fault(why))?;
                    Some(url.as_str().into())
                }
            },
        };
        Ok(Policy {
            name: name.as_str().into(),
            access: match (entry.public, entry.optional) {
                (true, _) => Access::Public,
                (_, true) => Access::Optional,
                _ => Access::Required(Box::new(requirements)),
            },
            allows_preflight: entry.cors_preflight == CorsPreflight::Allow,
            headers,
            removes_authorization: entry.remove_authorization.unwrap_or(removes_authorization),
            challenge,
            allows_unsafe_paths,
        })
    }
}

/// What to say of templates that open part of what another route protects.
fn opened(policies: &Policies) -> Vec<String> {
    let shown = |place: usize| {
        let route = policies.routes().iter().nth(place)?;
        Some((route, policies.get(route.policy)?.name.clone()))
    };
    let openings = openings(policies);
    let mut warnings: Vec<String> = openings
        .found
        .iter()
        .filter_map(|opening| {
            let ((opener, open), (protected, strict)) = (shown(opening.opener)?, shown(opening.protected)?);
            Some(format!(
                "routes[{}]: {opener} (policy {open}) opens part of what routes[{}], {protected} (policy {strict}), protects: {path}. \
                 If that is not meant, add a route for {path} with the policy {strict}",
                opening.opener,
                opening.protected,
                path = opening.path
            ))
        })
        .collect();
    if openings.is_cut {
        warnings.push("there may be more routes that open part of what others protect: not all are told".into());
    }
    warnings
}

/// The path segments that a policy compares with.
fn segments(policy: &Policy) -> impl Iterator<Item = &str> {
    let claims = match &policy.access {
        Access::Required(requirements) => requirements.claims.as_slice(),
        Access::Public | Access::Optional => &[][..],
    };
    claims.iter().flat_map(|claim| claim.test.segments())
}

fn claim_path(OneOrMany(names): &OneOrMany<Plain<Any>>, at: &Place) -> Result<ClaimPath, Fault> {
    ClaimPath::new(names.iter().map(|name| &**name)).ok_or_else(|| at.fault("a claim's name is empty"))
}
