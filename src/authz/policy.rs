//! Policies: what a route asks for beyond a verified token, by name, and which of them a request chooses.
//!
//! Envoy chooses a policy with the context extension `policy` (`ExtAuthzPerRoute.check_settings.context_extensions`);
//! otherwise the file's routes do, and where none matches, the default. As soon as there are two policies to choose from, a
//! path that can be read in two ways is refused. Start from [`Policies::choose`].

use std::collections::HashMap;

use super::denial::{ChallengeDetails, Denial};
use super::headers::HeaderIndex;
use super::path::PlainPath;
use super::request::RequestContext;
use super::requirement::Requirements;
use super::route::{Found, Route, Routes};

/// Position of a policy in [`Policies`].
pub type PolicyIndex = usize;

/// What a route asks for.
#[derive(Debug, Default)]
pub struct Policy {
    /// Its name, a metric label and a member of the metadata.
    pub name: Box<str>,
    /// Who may pass.
    pub access: Access,
    /// Whether CORS preflights pass unasked.
    pub allows_preflight: bool,
    /// Headers that upstream gets from this policy, whoever calls.
    pub headers: Vec<(HeaderIndex, Box<str>)>,
    /// Whether upstream does not get the credential.
    pub removes_authorization: bool,
    /// What its challenges say.
    pub challenge: ChallengeDetails,
    /// `true` if a path that can be read in more than one way is no reason to refuse, unless routes with paths choose.
    pub allows_unsafe_paths: bool,
}

/// Who may pass.
#[derive(Debug)]
pub enum Access {
    /// Everybody. A credential is not even looked at.
    Public,
    /// Everybody, but a credential that is there has to be good.
    Optional,
    /// Whoever has a good token and meets the requirements.
    Required(Box<Requirements>),
}

impl Default for Access {
    fn default() -> Self {
        Self::Required(Box::default())
    }
}

/// The policies by name, and the routes to them.
#[derive(Debug)]
pub struct Policies {
    all: Vec<Policy>,
    by_name: HashMap<Box<str>, PolicyIndex>,
    default: PolicyIndex,
    routes: Routes,
    /// Whether a route names hosts.
    has_hosts: bool,
}

/// Name under which the default policy can always be asked for.
pub const DEFAULT: &str = "default";

impl Default for Policies {
    /// The one policy there is without a policy file.
    fn default() -> Self {
        Self::new(vec![Policy { name: DEFAULT.into(), ..Policy::default() }], 0, Routes::default())
    }
}

/// The policy of a request.
pub struct Chosen<'r, 'p> {
    /// Its position.
    pub index: PolicyIndex,
    /// The policy.
    pub policy: &'r Policy,
    /// The route that chose it and its place in the file, from 0.
    pub route: Option<(usize, &'r Route)>,
    path: Option<PlainPath<'p>>,
}

impl Chosen<'_, '_> {
    /// The segment of the request's path that the route's pattern calls `name`.
    pub fn segment(&self, name: &str) -> Option<&str> {
        let (_, route) = self.route?;
        let (_, place) = route.path.as_ref()?.variables().find(|(known, _)| *known == name)?;
        self.path.as_ref()?.segment(place)
    }
}

impl Policies {
    /// These policies, of which `default` is for requests that no route matches. Without such a policy nobody passes.
    pub fn new(policies: Vec<Policy>, default: PolicyIndex, routes: Routes) -> Self {
        let by_name = policies.iter().enumerate().map(|(index, policy)| (policy.name.clone(), index)).collect();
        let has_hosts = routes.iter().any(|route| !route.hosts.is_empty());
        Self { all: policies, by_name, default, routes, has_hosts }
    }

    /// The policy of a request. The name that Envoy's route gives takes precedence over our own routes; an unknown one is
    /// no policy: a typo can only make a route stricter.
    ///
    /// # Errors
    /// - [`Denial::UnknownPolicy`].
    /// - [`Denial::UnsafePath`] if a path that is not in plain form had a part in the choice. It has one if our routes have
    ///   paths, and it may have one in Envoy's routes if there is more than one policy that they can name.
    /// - [`Denial::NoHttpRequest`] if the host can be read in more than one way and a route names hosts.
    pub fn choose<'p>(&self, request: &RequestContext<'p>) -> Result<Chosen<'_, 'p>, Denial> {
        if let Some(name) = request.policy {
            let name = std::str::from_utf8(name).map_err(|_| Denial::UnknownPolicy)?;
            let alias = (name == DEFAULT).then_some(self.default);
            let index = self.by_name.get(name).copied().or(alias);
            return self.judged(self.chosen(index, None)?, request);
        }
        if self.has_hosts && !request.has_plain_host() {
            return Err(Denial::NoHttpRequest);
        }
        let found = self.routes.find(request).map_err(|_| Denial::UnsafePath)?;
        let index = found.as_ref().map_or(self.default, |found| found.route.policy);
        self.judged(self.chosen(Some(index), found)?, request)
    }

    /// Which policy Envoy names, and whether it names one, may depend on the path as Envoy reads it.
    fn judged<'r, 'p>(&self, chosen: Chosen<'r, 'p>, request: &RequestContext<'p>) -> Result<Chosen<'r, 'p>, Denial> {
        let is_judged = self.all.len() > 1 && !chosen.policy.allows_unsafe_paths && chosen.path.is_none();
        if is_judged && PlainPath::new(request.path).is_none() { Err(Denial::UnsafePath) } else { Ok(chosen) }
    }

    fn chosen<'r, 'p>(
        &'r self,
        index: Option<PolicyIndex>,
        found: Option<Found<'r, 'p>>,
    ) -> Result<Chosen<'r, 'p>, Denial> {
        let (index, policy) =
            index.and_then(|index| Some((index, self.all.get(index)?))).ok_or(Denial::UnknownPolicy)?;
        let (route, path) = found.map(|found| ((found.place, found.route), found.path)).unzip();
        Ok(Chosen { index, policy, route, path: path.flatten() })
    }

    /// The policy at this position.
    pub fn get(&self, index: PolicyIndex) -> Option<&Policy> {
        self.all.get(index)
    }

    /// Name for the metadata of a request for which no policy has been chosen: the one that Envoy's route gives, if it has
    /// the form of a policy's name; else that of the default policy.
    pub fn name_without_choice<'n>(&'n self, given: Option<&'n [u8]>) -> &'n str {
        let given = given.and_then(|name| std::str::from_utf8(name).ok()).filter(|name| is_name(name));
        given.or_else(|| self.get(self.default).map(|policy| &*policy.name)).unwrap_or(DEFAULT)
    }

    /// All policies, in the order of their [`PolicyIndex`].
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Policy> {
        self.all.iter()
    }

    /// The routes.
    pub fn routes(&self) -> &Routes {
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
    fn only_what_could_be_a_policys_name_is_passed_on() {
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
    fn without_a_file_there_is_the_default() {
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
    fn envoys_word_goes_before_the_routes() {
        let policies = policies(&["members", "admin"], 0, &[("/admin", 1)]);
        assert_eq!(choose(&policies, None, "/admin"), Ok("admin"));
        assert_eq!(choose(&policies, None, "/other"), Ok("members"));
        assert_eq!(choose(&policies, None, "/x/../admin"), Err(Denial::UnsafePath));
        assert_eq!(choose(&policies, Some(b"members"), "/admin"), Ok("members"));
        assert_eq!(choose(&policies, Some(b"admin"), "/x/../y"), Err(Denial::UnsafePath), "Envoy reads it in one way");
        assert_eq!(choose(&policies, Some(b"other"), "/x/../y"), Err(Denial::UnknownPolicy), "said first");
        assert_eq!(choose(&policies, Some(b"default"), "/admin"), Ok("members"), "the default has two names");
        assert_eq!(choose(&policies, Some(b"other"), "/admin"), Err(Denial::UnknownPolicy));
    }

    #[test]
    fn paths_are_judged_as_soon_as_there_is_a_choice() {
        let unsafe_path = "/admin;x";
        // One policy: whatever the path means, the same is asked for.
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
        // A policy that takes them does so by name and without our routes, not where our routes read the path.
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
    fn two_hosts_are_none() {
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
            assert_eq!(choose(&by_host, two, Some(b"members")), Ok(0), "{two}: Envoy's route needs no host");
            assert_eq!(choose(&with(&[]), two, None), Ok(1), "{two}: nothing depends on it");
        }
    }

    #[test]
    fn a_route_gives_names_to_segments() {
        let policies = policies(&["tenant"], 0, &[("/tenants/{tenant}/x/{id}", 0)]);
        let request = RequestContext { path: b"/tenants/a%20b/x/7?tenant=z", ..Default::default() };
        let chosen = policies.choose(&request).unwrap();
        assert_eq!(["tenant", "id", "other"].map(|name| chosen.segment(name)), [Some("a b"), Some("7"), None]);
        let other = RequestContext { path: b"/other", ..Default::default() };
        assert_eq!(policies.choose(&other).unwrap().segment("tenant"), None);
    }
}
