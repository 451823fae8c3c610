//! Compiles the policy file: resolves names, checks rules that concern several members, and reports faults with their
//! place in the file.
//!
//! Start from [`PolicySource::read`].

pub(super) mod faults;
mod json_rpc;
mod known;
mod pools;
mod requirements;
mod resources;
mod routes;

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use self::faults::Faults;
use self::json_rpc::json_rpc;
use self::known::KnownPolicies;
use self::pools::Pools;
use self::requirements::{claim_path, demanding_member, requirements};
use self::resources::resources;
use self::routes::{routes, segments};
use super::error::ConfigError;
use super::file::fault::{Fault, YamlPath};
use super::file::form::{self, Form};
use super::file::json_rpc::JsonRpcEntry;
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
    /// One sentence for each fault. It names the file, and the path, line and column in it.
    pub fn read(&self) -> Result<CompiledPolicy, ConfigError> {
        self.read_with(Vec::new())
    }

    /// Checks the policy file as far as it does not depend on the pools, because the pool of the flags has an error.
    ///
    /// # Errors
    /// As [`PolicySource::read`].
    pub(super) fn check_file(&self) -> Result<(), ConfigError> {
        if self.file.is_none() {
            return Ok(());
        }
        self.read_with(vec![YamlPath::default().member("pools")]).map(drop)
    }

    /// Reads the file. The places `unknown` are not judged.
    fn read_with(&self, unknown: Vec<YamlPath>) -> Result<CompiledPolicy, ConfigError> {
        let Some(path) = &self.file else {
            let none = Form { content: Some(PolicyFile::default()), ..Form::default() };
            let error = |faults: Faults| faults.describe("").unwrap_or_else(|| ConfigError::new("there is a fault"));
            return compile(none, self).map_err(error);
        };
        let error = |why: &str| ConfigError::new(format!("{}: {why}", path.display()));
        let (bytes, seen) = files::read_version(path, MAX_TEXT_BYTES).map_err(|why| error(&why.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| error("is not UTF-8"))?;
        let mut form = PolicyFile::read(&text).map_err(|why| error(&why))?;
        form.unknown = unknown;
        let mut policy = compile(form, self)
            .map_err(|faults| faults.describe(&text).map_or_else(|| error("has a fault"), |why| why.map(error)))?;
        policy.seen = Some(seen);
        // The file contains no secrets: it names files that do.
        let content: Value = yaml_serde::from_str(&text).unwrap_or_default();
        let sha256 = digest(&SHA256, text.as_bytes());
        let sha256 = sha256.as_ref().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        policy.shown = json!({"path": path.display().to_string(), "sha256": sha256, "content": content});
        Ok(policy)
    }
}

/// Checks the form of a policy file alone.
///
/// # Errors
/// As [`PolicySource::read`], without faults that show only when the parts are compiled.
pub(super) fn check_form(path: &Path) -> Result<(), ConfigError> {
    let error = |why: &str| ConfigError::new(format!("{}: {why}", path.display()));
    let text = files::read_text(path, MAX_TEXT_BYTES).map_err(|why| error(&why.to_string()))?;
    let form = PolicyFile::read(&text).map_err(|why| error(&why))?;
    form::describe(&form.faults, &text).map_or(Ok(()), |errors| Err(errors.map(error)))
}

/// Compiles the file with the settings of the flags.
///
/// # Errors
/// All faults of the form, and all that show when the parts are compiled.
pub(super) fn compile(form: Form<PolicyFile>, source: &PolicySource) -> Result<CompiledPolicy, Faults> {
    let root = YamlPath::default();
    let Form { content, faults, removed, unknown, is_cut } = form;
    let mut faults = Faults::of_form(faults, [removed, unknown].concat(), is_cut);
    let Some(file) = content else { return Err(faults) };
    let mut warnings = Vec::new();
    let pools = Pools::build(file.pools.0, source, &root.member("pools"), &mut warnings, &mut faults);
    let account = file.account.map(|account| pools.account(account, &root.member("account"), &faults));
    let account = account.and_then(|account| faults.keep(account));
    let mut compiler = Compiler {
        pools,
        headers: source.owned_headers(),
        wanted: WantedClaims::default(),
        json_rpc: Vec::new(),
        sign_in: &source.sign_in,
        lacks_sign_in: false,
        warnings,
        faults,
    };

    compiler.claim_headers(file.claim_headers, &root.member("claim_headers"));
    if let Some(header) = &file.whole_claims_header {
        let header = compiler.unused(header, &root.member("whole_claims_header"));
        if let Some(header) = compiler.faults.keep(header) {
            compiler.headers.add_whole_claims(header);
        }
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
        let at = policy_place(&name);
        policies.push(compiler.policy(&name, entry, file.remove_authorization, from_token, &at));
    }
    for policy in &policies {
        let checked = compiler.credential_header(policy, &root.member("policies"));
        compiler.faults.keep(checked);
    }
    let Compiler { pools, headers, mut wanted, mut warnings, mut faults, json_rpc: calls, .. } = compiler;
    let mut policies = KnownPolicies::new(policies);
    json_rpc(calls, &mut policies, &root.member("policies"), &mut faults);
    let at = root.member("protected_resources");
    let resources = resources(&file.protected_resources, &mut policies, &pools, &mut wanted, &at, &mut faults);
    let default = default_policy(file.default.as_ref(), !file.routes.is_empty(), &policies, &root, &faults);
    let default = faults.keep(default).unwrap_or_default();
    let at = root.member("routes");
    let routes = routes(file.routes, &policies, file.case_insensitive, &at, &mut warnings, &mut faults);
    if faults.has_any() {
        return Err(faults);
    }
    let policies = Policies::new(policies.into_inner(), default, routes);
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

/// Place of a policy in the file.
fn policy_place(name: &Name) -> YamlPath {
    YamlPath::default().member("policies").member(name.as_str())
}

/// Creates the fault of a reference at `at` to a policy that does not exist.
fn unknown_policy(name: &Name, at: &YamlPath, policies: &[Policy], faults: &Faults) -> Fault {
    faults.unknown("policy", name.as_str(), at, &policy_place(name), policies.iter().map(|policy| &*policy.name))
}

/// Returns the policy of requests that no route matches.
fn default_policy(
    name: Option<&Name>,
    has_routes: bool,
    policies: &KnownPolicies,
    root: &YamlPath,
    faults: &Faults,
) -> Result<PolicyIndex, Fault> {
    let position = |name: &str| policies.index(name);
    let at = root.member("default");
    let default = match name {
        None if faults.touch(&at) => return Err(at.consequence()),
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
        Some(name) => position(name.as_str()).ok_or_else(|| unknown_policy(name, &at, policies, faults))?,
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
    faults: Faults,
    sign_in: &'s SignInSource,
    /// `true` once a policy needs the sign-in, and options of it are missing.
    lacks_sign_in: bool,
}

impl Compiler<'_> {
    /// Adds the headers that contain claims.
    fn claim_headers(&mut self, entries: Vec<ClaimHeaderEntry>, at: &YamlPath) {
        for (index, entry) in entries.into_iter().enumerate() {
            let at = at.item(index);
            let path = claim_path(&entry.claim, &at.member("claim"));
            let header = self.unused(&entry.header, &at.member("header"));
            let (path, header) = (self.faults.keep(path), self.faults.keep(header));
            let (Some(path), Some(header)) = (path, header) else { continue };
            let claim = self.wanted.want(path);
            let list = match entry.list {
                ListForm::Comma => ListEncoding::Comma,
                ListForm::Json => ListEncoding::Json,
                ListForm::Repeated => ListEncoding::Repeated,
            };
            self.headers.add_claim(header, ClaimHeader { claim, list });
        }
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
    ) -> Policy {
        if entry.public && entry.optional {
            let why = "a public policy ignores tokens; remove `public` or `optional`";
            self.faults.add(at.member("optional").fault(why));
        }
        let open = entry.public || entry.optional;
        if let Some(member) = demanding_member(&entry).filter(|_| open) {
            let why = "a public or optional policy allows requests without a token, so it cannot have requirements";
            self.faults.add(at.member(member).fault(why));
        }
        if entry.from.as_ref().is_some_and(PlacesEntry::is_empty) {
            let why = "`header`, `websocket_protocol` or `websocket_query` is required";
            self.faults.add(at.member("from").fault(why));
        }
        if entry.public && entry.from.is_some() {
            self.faults.add(at.member("from").fault("a public policy ignores tokens; remove `public` or `from`"));
        }
        let sign_in = entry.sign_in.map(|SignInEntry::Redirect| self.sign_in(entry.public, &at.member("sign_in")));
        let sign_in = sign_in.and_then(|sign_in| self.faults.keep(sign_in));
        if entry.public && entry.mode == Mode::Shadow {
            self.faults.add(at.member("mode").fault("a public policy denies nothing; remove `public` or `mode`"));
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
                self.faults.add(at.fault("this header is set from the token"));
                continue;
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
        let requirements =
            requirements(&entry, &self.pools, &mut self.wanted, &mut self.warnings, &mut self.faults, at);
        if let Some(Parsed(WebUrl(url))) = &entry.resource_metadata {
            let checked = check_endpoint(url, false).map_err(|why| at.member("resource_metadata").fault(why));
            self.faults.keep(checked);
        }
        let joined = |names: Vec<&str>| names.join(" ").into();
        let challenge = ChallengeDetails {
            scope: joined(requirements.scopes.names().collect()),
            max_age: requirements.max_auth_age.map(|(_, seconds)| seconds),
            acr_values: joined(requirements.acr.iter().flat_map(|(_, values)| values).map(|value| &**value).collect()),
            resource_metadata: entry.resource_metadata.map(|Parsed(WebUrl(url))| url.as_str().into()),
        };
        Policy {
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
        }
    }

    /// Returns the sign-in to which a policy redirects browsers. The policy must be able to deny, and the account API
    /// has to serve the sign-in.
    fn sign_in(&mut self, is_public: bool, at: &YamlPath) -> Result<SignIn, Fault> {
        if is_public {
            return Err(at.fault("a public policy denies nothing; remove `public` or `sign_in`"));
        }
        let needed = match self.sign_in.missing.as_slice() {
            [] => return Ok(self.sign_in.routes.clone()),
            [only] => only.clone(),
            [first @ .., last] => format!("{} and {last}", first.join(", ")),
        };
        // One sentence about the options is enough.
        if std::mem::replace(&mut self.lacks_sign_in, true) {
            return Err(at.consequence());
        }
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
