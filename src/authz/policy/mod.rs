//! Policies: named sets of requirements, and the choice of the policy for a request ([`Policies::choose`]).
//!
//! The policy of a request is the first of these that exists:
//! 1. the policy that Envoy's route names in the context extension `policy`
//!    (`ExtAuthzPerRoute.check_settings.context_extensions`),
//! 2. the policy of the matching route in the policy file,
//! 3. the default policy.
//!
//! With more than one policy, a request whose path can be read in more than one way is denied.

mod check;
pub(crate) mod json_rpc;
pub(crate) mod opening;
mod path;
pub(crate) mod pattern;
pub(crate) mod requirement;
pub(crate) mod route;
mod ties;

use std::collections::HashMap;

pub(crate) use self::check::RefusedCall;
use self::json_rpc::JsonRpc;
use self::path::PlainPath;
use self::requirement::Requirements;
use self::route::{Found, Route, Routes};
use super::credential::places::Places;
use super::denial::{ChallengeDetails, Denial};
use super::headers::HeaderIndex;
use super::request::RequestContext;
use super::sign_in::SignIn;

/// Index of a policy in [`Policies`].
pub(crate) type PolicyIndex = usize;

/// Requirements and settings for the requests of a route.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    /// Name; also a metric label and part of the metadata.
    pub(crate) name: Box<str>,
    /// Requests that the policy allows.
    pub(crate) access: Access,
    /// `true` if CORS preflight requests are allowed without a credential.
    pub(crate) allows_preflight: bool,
    /// Headers with fixed values, which are set for every caller.
    pub(crate) headers: Vec<(HeaderIndex, Box<str>)>,
    /// `true` if `Authorization` is removed before the request is forwarded.
    pub(crate) removes_authorization: bool,
    /// Parameters of `WWW-Authenticate`.
    pub(crate) challenge: ChallengeDetails,
    /// `true` if a path that can be read in more than one way is accepted. Has no effect on routes of the file with paths.
    pub(crate) allows_unsafe_paths: bool,
    /// Effect of a denial.
    pub(crate) mode: Mode,
    /// Origins whose pages may read denials, in the form that browsers send.
    pub(crate) cors_origins: Vec<Box<str>>,
    /// Further places of the credential.
    pub(crate) places: Places,
    /// Sign-in to which browsers are redirected; `None` if they get the denial itself.
    pub(crate) sign_in: Option<SignIn>,
    /// Requirements for the JSON-RPC messages in the body. `None`: the body is not read.
    pub(crate) json_rpc: Option<JsonRpc>,
}

impl Policy {
    /// `true` if requests that the policy would deny are forwarded.
    pub(crate) fn is_shadow(&self) -> bool {
        self.mode == Mode::Shadow
    }

    /// Returns the origin of a request if its pages may read denials: the request has exactly one `Origin`, and the
    /// policy lists it.
    pub(crate) fn cors_origin(&self, request: &RequestContext<'_>) -> Option<&str> {
        let mut sent = request.header_values("origin");
        let origin = sent.next().filter(|_| sent.next().is_none())?;
        self.cors_origins.iter().map(|listed| &**listed).find(|listed| listed.as_bytes() == origin)
    }

    /// Returns the address to which the browser that sent `request` is redirected after `denial`, if it is.
    pub(crate) fn sign_in_location(&self, denial: Denial, request: &RequestContext<'_>) -> Option<String> {
        self.sign_in.as_ref()?.location(denial, request, &self.places)
    }
}

/// Effect of a policy's denials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The request is denied.
    #[default]
    Enforce,
    /// The request is forwarded, and the denial is only reported.
    Shadow,
}

/// Requests that a policy allows.
#[derive(Debug)]
pub(crate) enum Access {
    /// All. Credentials are ignored.
    Public,
    /// Those without a credential, and those with a valid token.
    Optional,
    /// Those with a valid token that meets the requirements.
    Required(Box<Requirements>),
}

impl Default for Access {
    fn default() -> Self {
        Self::Required(Box::default())
    }
}

/// All policies, and the routes that choose them.
#[derive(Debug)]
pub struct Policies {
    all: Vec<Policy>,
    by_name: HashMap<Box<str>, PolicyIndex>,
    default: PolicyIndex,
    routes: Routes,
    /// `true` if at least one route names hosts.
    has_hosts: bool,
}

/// Alias of the default policy, whatever its name.
pub(crate) const DEFAULT: &str = "default";

impl Default for Policies {
    /// The only policy if there is no policy file. It requires a valid token.
    fn default() -> Self {
        Self::new(vec![Policy { name: DEFAULT.into(), ..Policy::default() }], 0, Routes::default())
    }
}

/// Policy that was chosen for a request.
pub(crate) struct Chosen<'r, 'p> {
    /// Index of the policy.
    pub(crate) index: PolicyIndex,
    /// Policy.
    pub(crate) policy: &'r Policy,
    /// Route that chose the policy, with its position in the file, from 0. `None` if no route of the file did.
    pub(crate) route: Option<(usize, &'r Route)>,
    path: Option<PlainPath<'p>>,
}

impl Chosen<'_, '_> {
    /// Returns the segment of the request's path that the route's pattern calls `name`.
    pub(crate) fn segment(&self, name: &str) -> Option<&str> {
        let (_, route) = self.route?;
        let (_, position) = route.path.as_ref()?.variables().find(|(known, _)| *known == name)?;
        self.path.as_ref()?.segment(position)
    }
}

impl Policies {
    /// Creates the set. `default` is the policy of requests that no route matches; if it does not exist, they are denied.
    pub(crate) fn new(policies: Vec<Policy>, default: PolicyIndex, routes: Routes) -> Self {
        let by_name = policies.iter().enumerate().map(|(index, policy)| (policy.name.clone(), index)).collect();
        let has_hosts = routes.iter().any(|route| !route.hosts.is_empty());
        Self { all: policies, by_name, default, routes, has_hosts }
    }

    /// Chooses the policy of a request. A name from Envoy's route takes precedence over the routes of the file.
    ///
    /// # Errors
    /// - [`Denial::UnknownPolicy`] if Envoy's route names a policy that does not exist. There is no fallback, so that a typo
    ///   can only make a route stricter.
    /// - [`Denial::UnsafePath`] if the path is not in plain form and the choice can depend on it. It does if routes of the
    ///   file have paths. It may if Envoy's routes can name more than one policy.
    /// - [`Denial::NoHttpRequest`] if the host can be read in more than one way and a route names hosts.
    pub(crate) fn choose<'p>(&self, request: &RequestContext<'p>) -> Result<Chosen<'_, 'p>, Denial> {
        if let Some(name) = request.policy {
            let name = std::str::from_utf8(name).map_err(|_| Denial::UnknownPolicy)?;
            let alias = (name == DEFAULT).then_some(self.default);
            let index = self.by_name.get(name).copied().or(alias);
            return self.with_safe_path(self.chosen(index, None)?, request);
        }
        if self.has_hosts && !request.has_plain_host() {
            return Err(Denial::NoHttpRequest);
        }
        let found = self.routes.find(request).map_err(|_| Denial::UnsafePath)?;
        let index = found.as_ref().map_or(self.default, |found| found.route.policy);
        self.with_safe_path(self.chosen(Some(index), found)?, request)
    }

    /// Denies a path that is not in plain form, because Envoy's choice of a route, and so of the policy, can depend on how
    /// Envoy reads the path.
    fn with_safe_path<'r, 'p>(
        &self,
        chosen: Chosen<'r, 'p>,
        request: &RequestContext<'p>,
    ) -> Result<Chosen<'r, 'p>, Denial> {
        let is_checked = self.all.len() > 1 && !chosen.policy.allows_unsafe_paths && chosen.path.is_none();
        if is_checked && PlainPath::new(request.path).is_none() { Err(Denial::UnsafePath) } else { Ok(chosen) }
    }

    fn chosen<'r, 'p>(
        &'r self,
        index: Option<PolicyIndex>,
        found: Option<Found<'r, 'p>>,
    ) -> Result<Chosen<'r, 'p>, Denial> {
        let (index, policy) =
            index.and_then(|index| Some((index, self.all.get(index)?))).ok_or(Denial::UnknownPolicy)?;
        let (route, path) = found.map(|found| ((found.position, found.route), found.path)).unzip();
        Ok(Chosen { index, policy, route, path: path.flatten() })
    }

    /// Returns the policy with this index.
    pub(crate) fn get(&self, index: PolicyIndex) -> Option<&Policy> {
        self.all.get(index)
    }

    /// Policy name for the metadata of a request that has no policy: the name that Envoy's route gave, if it has the form of
    /// a policy name; otherwise the name of the default policy.
    pub(crate) fn name_without_choice<'n>(&'n self, given: Option<&'n [u8]>) -> &'n str {
        let given = given.and_then(|name| std::str::from_utf8(name).ok()).filter(|name| is_name(name));
        given.or_else(|| self.get(self.default).map(|policy| &*policy.name)).unwrap_or(DEFAULT)
    }

    /// All policies, in the order of their [`PolicyIndex`].
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Policy> {
        self.all.iter()
    }

    /// Routes of the file.
    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }
}

/// `true` for 1 to 63 letters, digits, `.`, `_` and `-`: the form of every name in a policy file.
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=63).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_only_contains_well_formed_policy_names() {
        let policies = policies(&["members"], 0, &[]);
        let long = "a".repeat(64);
        for text in ["a", "A-b_c.9", &long[1..], &long, "", "a b", "a\n", "é", "a,b", "{a}"] {
            let is_name = text.parse::<crate::config::file::values::Name>().is_ok();
            let expected = if is_name { text } else { "members" };
            assert_eq!(policies.name_without_choice(Some(text.as_bytes())), expected, "{text:?}");
        }
        assert_eq!(policies.name_without_choice(None), "members");
        assert_eq!(policies.name_without_choice(Some(b"\xff")), "members");
        assert_eq!(Policies::default().name_without_choice(None), "default");
    }

    fn policies(names: &[&str], default: PolicyIndex, routes: &[(&str, PolicyIndex)]) -> Policies {
        let policies = names.iter().map(|name| Policy { name: (*name).into(), ..Policy::default() }).collect();
        let route = |(path, policy): &(&str, PolicyIndex)| Route {
            hosts: Vec::new(),
            methods: Vec::new(),
            path: Some(path.parse().unwrap()),
            policy: *policy,
        };
        Policies::new(policies, default, Routes::new(routes.iter().map(route).collect(), false).unwrap())
    }

    fn choose<'p>(policies: &'p Policies, named: Option<&[u8]>, path: &str) -> Result<&'p str, Denial> {
        let request = RequestContext { policy: named, path: path.as_bytes(), method: b"GET", ..Default::default() };
        policies.choose(&request).map(|chosen| &*chosen.policy.name)
    }

    #[test]
    fn without_a_file_there_is_only_the_default_policy() {
        let policies = Policies::default();
        for path in ["/", "/a/../b", ""] {
            assert_eq!(choose(&policies, None, path), Ok("default"));
            assert_eq!(choose(&policies, Some(b"default"), path), Ok("default"));
        }
        for unknown in [&b""[..], b"admin", b"Default", b"default ", b"\xff"] {
            assert_eq!(choose(&policies, Some(unknown), "/"), Err(Denial::UnknownPolicy));
        }
    }

    #[test]
    fn the_name_from_envoy_takes_precedence_over_the_routes() {
        let policies = policies(&["members", "admin"], 0, &[("/admin", 1)]);
        assert_eq!(choose(&policies, None, "/admin"), Ok("admin"));
        assert_eq!(choose(&policies, None, "/other"), Ok("members"));
        assert_eq!(choose(&policies, None, "/x/../admin"), Err(Denial::UnsafePath));
        assert_eq!(choose(&policies, Some(b"members"), "/admin"), Ok("members"));
        assert_eq!(
            choose(&policies, Some(b"admin"), "/x/../y"),
            Err(Denial::UnsafePath),
            "Envoy may read the path in another way"
        );
        assert_eq!(choose(&policies, Some(b"other"), "/x/../y"), Err(Denial::UnknownPolicy), "is checked first");
        assert_eq!(choose(&policies, Some(b"default"), "/admin"), Ok("members"), "the default has two names");
        assert_eq!(choose(&policies, Some(b"other"), "/admin"), Err(Denial::UnknownPolicy));
    }

    #[test]
    fn paths_must_be_plain_if_there_is_more_than_one_policy() {
        let unsafe_path = "/admin;x";
        // With one policy, the requirements do not depend on the path.
        for named in [None, Some(&b"members"[..]), Some(b"default")] {
            assert_eq!(choose(&policies(&["members"], 0, &[]), named, unsafe_path), Ok("members"));
        }
        let two = || policies(&["members", "objects"], 0, &[]);
        for (named, expected) in [(None, "members"), (Some(&b"objects"[..]), "objects"), (Some(b"default"), "members")]
        {
            assert_eq!(choose(&two(), named, "/a%20b?x=;/../y"), Ok(expected));
            for path in
                [unsafe_path, "/;/admin", "/%2561dmin", "/admin%3Bx", "/admin%0a", "/admin%3Fx", "//admin", "", "*"]
            {
                assert_eq!(choose(&two(), named, path), Err(Denial::UnsafePath), "{named:?} {path}");
            }
        }
        // `allows_unsafe_paths` works for a policy that Envoy names and for the default, but not with paths in routes.
        let mut allowing = two();
        allowing.all[1].allows_unsafe_paths = true;
        assert_eq!(choose(&allowing, Some(b"objects"), unsafe_path), Ok("objects"));
        assert_eq!(choose(&allowing, None, unsafe_path), Err(Denial::UnsafePath));
        allowing.default = 1;
        assert_eq!(choose(&allowing, None, unsafe_path), Ok("objects"));
        let mut routed = policies(&["members", "objects"], 1, &[("/x", 0)]);
        routed.all[1].allows_unsafe_paths = true;
        assert_eq!(choose(&routed, Some(b"objects"), unsafe_path), Ok("objects"));
        assert_eq!(choose(&routed, None, unsafe_path), Err(Denial::UnsafePath));
    }

    #[test]
    fn a_request_with_two_hosts_is_denied_if_routes_name_hosts() {
        let with = |hosts: &[&str]| {
            let hosts = hosts.iter().map(|host| (*host).into()).collect();
            let route = Route { hosts, methods: vec!["GET".into()], path: None, policy: 1 };
            let names = ["members", "admin"].map(|name| Policy { name: name.into(), ..Policy::default() });
            Policies::new(names.into(), 0, Routes::new(vec![route], false).unwrap())
        };
        let choose = |policies: &Policies, host: &str, named: Option<&'static [u8]>| {
            let request = RequestContext {
                host: host.as_bytes(),
                method: b"GET",
                path: b"/",
                policy: named,
                ..Default::default()
            };
            policies.choose(&request).map(|chosen| chosen.index)
        };
        let by_host = with(&["admin.test"]);
        assert_eq!(choose(&by_host, "admin.test", None), Ok(1));
        assert_eq!(choose(&by_host, "other.test", None), Ok(0));
        for two in ["other.test,admin.test", "admin.test,admin.test", "other.test, admin.test"] {
            assert_eq!(choose(&by_host, two, None), Err(Denial::NoHttpRequest), "{two}");
            assert_eq!(choose(&by_host, two, Some(b"members")), Ok(0), "{two}: Envoy names the policy");
            assert_eq!(choose(&with(&[]), two, None), Ok(1), "{two}: no route names hosts");
        }
    }

    #[test]
    fn segments_are_found_by_the_names_of_the_pattern() {
        let policies = policies(&["tenant"], 0, &[("/tenants/{tenant}/x/{id}", 0)]);
        let request = RequestContext { path: b"/tenants/a%20b/x/7?tenant=z", ..Default::default() };
        let chosen = policies.choose(&request).unwrap();
        assert_eq!(["tenant", "id", "other"].map(|name| chosen.segment(name)), [Some("a b"), Some("7"), None]);
        let other = RequestContext { path: b"/other", ..Default::default() };
        assert_eq!(policies.choose(&other).unwrap().segment("tenant"), None);
    }
}
