//! Compiles the policy file: resolves names, checks rules that concern several members, and reports faults with their
//! place in the file.
//!
//! Start from [`PolicySource::read`].

mod json_rpc;
mod pools;
mod requirements;
mod resources;
mod routes;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use self::json_rpc::json_rpc;
use self::pools::Pools;
use self::requirements::{claim_path, demanding_member, requirements};
use self::resources::resources;
use self::routes::{routes, segments};
use super::error::ConfigError;
use super::file::json_rpc::JsonRpcEntry;
use super::file::locate::{Fault, YamlPath, locate};
use super::file::places::PlacesEntry;
use super::file::text::{Parsed, WebUrl};
use super::file::values::Name;
use super::file::{ClaimHeaderEntry, CorsPreflight, ListForm, Mode, PolicyEntry, PolicyFile, SignInEntry, UnsafePaths};
use super::parse::check_endpoint;
use super::policy::{CompiledPolicy, PolicySource, SignInSource};
use crate::authz::SignIn;
use crate::authz::credential::places::Places;
use crate::authz::denial::ChallengeDetails;
use crate::authz::headers::{ClaimHeader, HeaderIndex, HeaderName, ListEncoding, STANDARD};
use crate::authz::policy::opening::openings;
use crate::authz::policy::{self, DEFAULT, PolicyIndex};
use crate::authz::token::claims::WantedClaims;
use crate::authz::{Access, OwnedHeaders, Policies, Policy};
use crate::files::{self, MAX_TEXT_BYTES};

impl PolicySource {
    /// Reads and compiles the policy file as it is now. Without a file, one policy requires a valid token.
    ///
    /// # Errors
    /// One sentence that names the file, and the path, line and column in it.
    pub fn read(&self) -> Result<CompiledPolicy, ConfigError> {
        let Some(path) = &self.file else {
            return compile(PolicyFile::default(), self).map_err(|fault| ConfigError::new(fault.to_string()));
        };
        let error = |why: &str| ConfigError::new(format!("{}: {why}", path.display()));
        let (bytes, seen) = files::read_version(path, MAX_TEXT_BYTES).map_err(|why| error(&why.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| error("is not UTF-8"))?;
        let file = PolicyFile::read(&text).map_err(|why| error(&why))?;
        let mut policy = compile(file, self).map_err(|fault| error(&locate(&text, &fault)))?;
        policy.seen = Some(seen);
        // The file contains no secrets: it names files that do.
        let content: Value = yaml_serde::from_str(&text).unwrap_or_default();
        let sha256 = digest(&SHA256, text.as_bytes());
        let sha256 = sha256.as_ref().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        policy.shown = json!({"path": path.display().to_string(), "sha256": sha256, "content": content});
        Ok(policy)
    }
}

/// Compiles the file with the settings of the flags.
///
/// # Errors
/// The first [`Fault`].
pub(super) fn compile(file: PolicyFile, source: &PolicySource) -> Result<CompiledPolicy, Fault> {
    let root = YamlPath::default();
    let mut warnings = Vec::new();
    let pools = Pools::build(file.pools.0, source, &root.member("pools"), &mut warnings)?;
    let account = file.account.map(|account| pools.account(account, &root.member("account"))).transpose()?;
    let mut compiler = Compiler {
        pools,
        headers: source.owned_headers(),
        wanted: WantedClaims::default(),
        json_rpc: Vec::new(),
        sign_in: &source.sign_in,
        warnings,
    };

    compiler.claim_headers(file.claim_headers, &root.member("claim_headers"))?;
    if let Some(header) = &file.whole_claims_header {
        let header = compiler.unused(header, &root.member("whole_claims_header"))?;
        compiler.headers.add_whole_claims(header);
    }

    let mut policies = Vec::new();
    if file.default.is_none() && !file.policies.0.keys().any(|name| name.as_str() == DEFAULT) {
        policies.push(Policy {
            name: DEFAULT.into(),
            removes_authorization: file.remove_authorization,
            ..Policy::default()
        });
    }
    let from_token = compiler.headers.names().len();
    for (name, entry) in file.policies.0 {
        let at = root.member("policies").member(name.as_str());
        policies.push(compiler.policy(&name, entry, file.remove_authorization, from_token, &at)?);
    }
    json_rpc(std::mem::take(&mut compiler.json_rpc), &mut policies, &root.member("policies"))?;
    for policy in &policies {
        compiler.credential_header(policy, &root.member("policies"))?;
    }
    let resources = resources(
        &file.protected_resources,
        &mut policies,
        &compiler.pools,
        &mut compiler.wanted,
        &root.member("protected_resources"),
    )?;
    let default = default_policy(file.default.as_ref(), !file.routes.is_empty(), &policies, &root)?;
    let Compiler { pools, headers, wanted, mut warnings, .. } = compiler;
    let routes = routes(file.routes, &policies, file.case_insensitive, &root.member("routes"), &mut warnings)?;
    let policies = Policies::new(policies, default, routes);
    warnings.extend(opened(&policies));
    let pools = pools.into_inner();
    Ok(CompiledPolicy {
        pools,
        policies,
        headers,
        wanted,
        resources,
        account,
        warnings,
        shown: Value::Null,
        seen: None,
    })
}

/// Returns the policy of requests that no route matches.
fn default_policy(
    name: Option<&Name>,
    has_routes: bool,
    policies: &[Policy],
    root: &YamlPath,
) -> Result<PolicyIndex, Fault> {
    let position = |name: &str| policies.iter().position(|policy| *policy.name == *name);
    let at = root.member("default");
    let default = match name {
        None if has_routes => {
            return Err(root
                .member("routes")
                .fault("a file with `routes` needs the member `default`, which names a policy"));
        }
        None => position(DEFAULT).unwrap_or_default(),
        Some(name) if name.as_str() != DEFAULT && position(DEFAULT).is_some() => {
            let why =
                format!("there is a policy called `default`, but {name} is the default policy; rename the former");
            return Err(at.fault(why));
        }
        Some(name) => position(name.as_str()).ok_or_else(|| at.fault(format!("there is no policy {name}")))?,
    };
    match policies.get(default).and_then(|policy| segments(policy, policies).next()) {
        Some(segment) => {
            let why = format!("this policy compares with the segment {{{segment}}}, which only a route can provide");
            Err(at.fault(why))
        }
        None => Ok(default),
    }
}

/// Parts of the policy that were compiled so far.
struct Compiler<'s> {
    pools: Pools,
    headers: OwnedHeaders,
    wanted: WantedClaims,
    /// Members `json_rpc`, by policy. They are compiled once all policies are known.
    json_rpc: Vec<(Name, JsonRpcEntry)>,
    warnings: Vec<String>,
    sign_in: &'s SignInSource,
}

impl Compiler<'_> {
    /// Adds the headers that contain claims.
    fn claim_headers(&mut self, entries: Vec<ClaimHeaderEntry>, at: &YamlPath) -> Result<(), Fault> {
        for (index, entry) in entries.into_iter().enumerate() {
            let at = at.item(index);
            let claim = self.wanted.want(claim_path(&entry.claim, &at.member("claim"))?);
            let list = match entry.list {
                ListForm::Comma => ListEncoding::Comma,
                ListForm::Json => ListEncoding::Json,
                ListForm::Repeated => ListEncoding::Repeated,
            };
            let header = self.unused(&entry.header, &at.member("header"))?;
            self.headers.add_claim(header, ClaimHeader { claim, list });
        }
        Ok(())
    }

    /// Returns `header` unless it is a standard header, or contains another claim.
    fn unused<'h>(&self, Parsed(header): &'h Parsed<HeaderName>, at: &YamlPath) -> Result<&'h HeaderName, Fault> {
        match self.headers.position(header.as_str()) {
            None => Ok(header),
            Some(index) if index < STANDARD => Err(at.fault(format!("{} is a standard header", header.as_str()))),
            Some(_) => Err(at.fault(format!("{} is set by another claim", header.as_str()))),
        }
    }

    /// Compiles a policy. The first `from_token` headers are set from the token.
    fn policy(
        &mut self,
        name: &Name,
        mut entry: PolicyEntry,
        removes_authorization: bool,
        from_token: HeaderIndex,
        at: &YamlPath,
    ) -> Result<Policy, Fault> {
        if entry.public && entry.optional {
            return Err(at.member("optional").fault("a public policy ignores tokens; remove `public` or `optional`"));
        }
        let open = entry.public || entry.optional;
        if let Some(member) = demanding_member(&entry).filter(|_| open) {
            return Err(at
                .member(member)
                .fault("a public or optional policy allows requests without a token, so it cannot have requirements"));
        }
        if entry.from.as_ref().is_some_and(PlacesEntry::is_empty) {
            return Err(at.member("from").fault("`header`, `websocket_protocol` or `websocket_query` is required"));
        }
        if entry.public && entry.from.is_some() {
            return Err(at.member("from").fault("a public policy ignores tokens; remove `public` or `from`"));
        }
        let sign_in = entry.sign_in.map(|SignInEntry::Redirect| self.sign_in(entry.public, &at.member("sign_in")));
        let sign_in = sign_in.transpose()?;
        if entry.public && entry.mode == Mode::Shadow {
            return Err(at.member("mode").fault("a public policy denies nothing; remove `public` or `mode`"));
        }
        if entry.mode == Mode::Shadow {
            self.warnings.push(format!(
                "the policy {name} is in shadow mode (mode: shadow): requests that it would deny pass, and are only \
                 counted and logged"
            ));
        }
        self.json_rpc.extend(entry.json_rpc.take().map(|json_rpc| (name.clone(), json_rpc)));
        let mut headers = Vec::new();
        for (Parsed(header), value) in std::mem::take(&mut entry.headers).0 {
            let at = at.member("headers").member(header.as_str());
            if self.headers.position(header.as_str()).is_some_and(|index| index < from_token) {
                return Err(at.fault("this header is set from the token"));
            }
            headers.push((self.headers.add(&header), (*value).into()));
        }
        headers.sort_unstable();

        let allows_unsafe_paths = entry.unsafe_paths == UnsafePaths::Allow;
        if allows_unsafe_paths {
            self.warnings.push(format!(
                "the policy {name} allows ambiguous paths (unsafe_paths: allow); Envoy and the application have to \
                 interpret them alike"
            ));
        }
        let requirements = requirements(&entry, &self.pools, &mut self.wanted, &mut self.warnings, at)?;
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
            mode: match entry.mode {
                Mode::Enforce => policy::Mode::Enforce,
                Mode::Shadow => policy::Mode::Shadow,
            },
            cors_origins: entry.cors_origins.iter().map(|Parsed(origin)| origin.as_str().into()).collect(),
            places: entry.from.map(places).unwrap_or_default(),
            sign_in,
            // See `Compiler::json_rpc`.
            json_rpc: None,
        })
    }

    /// Returns the sign-in to which a policy redirects browsers. The policy must be able to deny, and the account API
    /// has to serve the sign-in.
    fn sign_in(&self, is_public: bool, at: &YamlPath) -> Result<SignIn, Fault> {
        if is_public {
            return Err(at.fault("a public policy denies nothing; remove `public` or `sign_in`"));
        }
        let needed = match self.sign_in.missing.as_slice() {
            [] => return Ok(self.sign_in.routes.clone()),
            [only] => only.clone(),
            [first @ .., last] => format!("{} and {last}", first.join(", ")),
        };
        Err(at.fault(format!("browsers are redirected to the sign-in of the account API, which needs {needed}")))
    }

    /// Checks that the header in which a policy accepts the credential is not one that the service sets or removes.
    fn credential_header(&self, policy: &Policy, at: &YamlPath) -> Result<(), Fault> {
        let Some(header) = &policy.places.header else { return Ok(()) };
        let header = header.as_str();
        if self.headers.position(header).is_none() && !self.headers.is_lookalike(header.as_bytes()) {
            return Ok(());
        }
        let at = at.member(&*policy.name).member("from").member("header");
        Err(at.fault(format!(
            "{header} is, or reads as, a header that only this service sets, so requests never pass with it; accept the \
             credential in another header, or change --header-prefix"
        )))
    }
}

/// Compiles the further places of the credential.
fn places(entry: PlacesEntry) -> Places {
    Places {
        header: entry.header.map(|Parsed(header)| header),
        websocket_protocol: entry.websocket_protocol.map(|name| (*name).into()),
        websocket_query: entry.websocket_query.map(|name| (*name).into()),
    }
}

/// Returns a warning for each route whose template opens a part of the paths that another route protects.
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
                 If that is not intended, add a route for {path} with the policy {strict}",
                opening.opener,
                opening.protected,
                path = opening.path
            ))
        })
        .collect();
    if openings.is_cut {
        warnings
            .push("more routes may open a part of the paths that other routes protect; the search was cut off".into());
    }
    warnings
}
