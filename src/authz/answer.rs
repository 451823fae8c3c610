//! Protocol-independent answer to a request: status, headers, body and metadata.
//!
//! Each protocol and the command `explain` only encode an [`Answer`]. They define no text, status or header of their
//! own.

use std::borrow::Cow;

use serde::Serialize;

use super::Ruleset;
use super::credential::places::Places;
use super::denial::{ChallengeDetails, Denial, Fault, Realm};
use super::headers::{Mutation, OwnedHeaders};
use super::policy::{Policy, PolicyIndex};
use super::recent::Prepared;
use super::request::RequestContext;
use super::verdict::{Allowed, Decision, Verdict};

/// Seconds after which a caller should retry if the service could not decide (`Retry-After`).
const RETRY_AFTER: &str = "5";

/// Answer to one request.
pub enum Answer<'a> {
    /// The request is forwarded, with changes to its headers.
    Pass(Pass<'a>),
    /// The request is not forwarded; the caller gets this response.
    Refusal(Refusal<'a>),
}

/// Changes to a request that is forwarded to the upstream.
pub struct Pass<'a> {
    allowed: &'a Allowed<'a>,
    owned: &'a OwnedHeaders,
    request: Option<&'a RequestContext<'a>>,
    /// Refusal that the policy only reports (shadow mode).
    shadow: Option<Refusal<'a>>,
}

/// Response to a request that is not forwarded.
pub struct Refusal<'a> {
    denial: Denial,
    policy: Result<&'a Policy, &'a str>,
    /// Policy of the request, if `policy` is the one of a call in its body.
    chosen: Option<&'a Policy>,
    requirement: Option<&'a str>,
    realm: &'a Realm,
    /// Permission for the page that sent the request to read the response.
    cors: Option<CorsPermission<'a>>,
    /// Address of the sign-in to which the browser is redirected.
    location: Option<String>,
    /// Id of the request, which the caller can quote.
    request_id: Option<&'a str>,
}

/// Permission for pages of one other origin to read a response (Fetch standard section 3.2, CORS protocol).
#[derive(Clone, Copy)]
struct CorsPermission<'a> {
    origin: &'a str,
    /// `true` if the request may have used cookies.
    credentials: bool,
}

/// Value of a metadata field.
pub(crate) enum MetadataValue<'v, 'i> {
    /// Text.
    Text(&'v str),
    /// Unix time in seconds.
    Time(i64),
    /// List of texts.
    Texts(&'i mut dyn Iterator<Item = &'v str>),
}

/// JSON body of a refusal.
#[derive(Serialize)]
struct Body<'a> {
    error: &'static str,
    reason: &'static str,
    message: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

impl<'a> Answer<'a> {
    /// Describes the answer to `request`. `verdict` has to be the verdict of `rules` about it.
    pub fn new(
        verdict: &'a Verdict<'_>,
        rules: &'a Ruleset,
        request: Option<&'a RequestContext<'_>>,
        realm: &'a Realm,
    ) -> Self {
        let refusal = |denial: Denial| {
            let trace = &verdict.trace;
            let get = |policy: Option<PolicyIndex>| policy.and_then(|policy| rules.policies.get(policy));
            let given = request.and_then(|request| request.policy);
            let policy = get(trace.policy).ok_or_else(|| rules.policies.name_without_choice(given));
            let chosen = get(trace.chosen());
            let both = chosen.zip(request);
            let origin = both.and_then(|(policy, request)| policy.cors_origin(request));
            let credentials = rules.browser_sessions.is_some();
            let cors = origin.map(|origin| CorsPermission { origin, credentials });
            let location = both.and_then(|(policy, request)| policy.sign_in_location(denial, request));
            let chosen = chosen.filter(|_| trace.call.is_some());
            Refusal { chosen, cors, location, ..Refusal::new(denial, policy, trace.requirement.as_deref(), realm) }
        };
        match &verdict.decision {
            Decision::Allow(allowed) => {
                let shadow = allowed.shadow.map(refusal);
                Self::Pass(Pass { shadow, ..Pass::new(allowed, &rules.headers, request) })
            }
            Decision::Deny(denial) => Self::Refusal(refusal(*denial)),
        }
    }

    /// Adds the id of the request, which the body of a refusal contains. It has to be well-formed.
    #[must_use]
    pub fn with_request_id(mut self, request_id: Option<&'a str>) -> Self {
        if let Self::Refusal(refusal) = &mut self {
            refusal.request_id = request_id;
        }
        self
    }

    /// Decision in words: `allow` or `deny`.
    pub(crate) fn decision(&self) -> &'static str {
        match self {
            Self::Pass(_) => "allow",
            Self::Refusal(_) => "deny",
        }
    }

    /// HTTP status: 200 if the request is forwarded.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Pass(_) => 200,
            Self::Refusal(refusal) => refusal.status(),
        }
    }

    /// Calls `write` with each metadata field of the decision. Envoy's access logs and RBAC filter can use them.
    pub(crate) fn metadata(&self, write: &mut impl FnMut(&'static str, MetadataValue<'_, '_>)) {
        write("decision", MetadataValue::Text(self.decision()));
        match self {
            Self::Pass(pass) => pass.metadata(write),
            Self::Refusal(refusal) => refusal.metadata(write),
        }
    }
}

impl<'a> Pass<'a> {
    /// Describes a `request` that is forwarded. Of its headers, the `owned` ones are set or removed.
    pub(crate) fn new(
        allowed: &'a Allowed<'a>,
        owned: &'a OwnedHeaders,
        request: Option<&'a RequestContext<'a>>,
    ) -> Self {
        Self { allowed, owned, request, shadow: None }
    }

    /// Refusal that the client would get if the policy were not in shadow mode.
    pub(crate) fn shadow(&self) -> Option<&Refusal<'a>> {
        self.shadow.as_ref()
    }

    /// Calls `write` with each change to the request's headers. Every owned header is set or removed. A request header
    /// that the upstream could take for an owned one is removed, and so is the credential where the policy hides it.
    pub(crate) fn mutations(&self, write: &mut impl FnMut(Mutation<'_>)) {
        let Allowed { policy, identity, .. } = self.allowed;
        let headers = self.request.map_or(&[][..], |request| &request.headers);
        self.owned.mutate(identity.values(), policy.removes_authorization, headers, write);
        if let Some(request) = self.request {
            policy.places.hide(policy.removes_authorization, request, write);
        }
    }

    /// Place for the encoded answer, if the answer depends on nothing but the rules, the policy and the token.
    ///
    /// It depends on the request if a header has to be removed that looks like an owned one, if there are session cookies to
    /// remove, and if the policy accepts further places of a credential, which are removed as well.
    pub(crate) fn prepared(&self) -> Option<&Prepared> {
        let Allowed { policy, identity, .. } = self.allowed;
        let request = self.request?;
        let depends_on_request = self.shadow.is_some()
            || policy.places != Places::default()
            || request.headers.iter().any(|header| self.owned.may_change(header.name));
        (!depends_on_request).then_some(&**identity)
    }

    /// Names of the query parameters to remove, because they can carry a credential. They are written as in the request's
    /// path, and each occurs once.
    pub(crate) fn query_parameters_to_remove(&self) -> Vec<&'a str> {
        self.request.map(|request| self.allowed.policy.places.query_parameters(request.path)).unwrap_or_default()
    }

    /// `true` if [`mutations`](Self::mutations) removes session cookies from `Cookie` whenever the request has any.
    pub(crate) fn hides_sessions(&self) -> bool {
        self.owned.hides_sessions()
    }

    fn metadata(&self, write: &mut impl FnMut(&'static str, MetadataValue<'_, '_>)) {
        write("policy", MetadataValue::Text(&self.allowed.policy.name));
        if let Some(refusal) = &self.shadow {
            write("shadow_reason", MetadataValue::Text(refusal.denial.reason()));
            refusal.requirement_metadata(write);
        }
        let Some(token) = &self.allowed.token else { return };
        let claims = &token.claims;
        write("sub", MetadataValue::Text(claims.sub()));
        write("client_id", MetadataValue::Text(claims.client_id()));
        write("token_use", MetadataValue::Text(claims.token_use().as_str()));
        write("exp", MetadataValue::Time(claims.expires()));
        for (name, claim) in [("username", claims.username()), ("scope", claims.scope())] {
            if let Some(claim) = claim {
                write(name, MetadataValue::Text(claim));
            }
        }
        if claims.groups().len() > 0 {
            write("groups", MetadataValue::Texts(&mut claims.groups()));
        }
    }
}

impl<'a> Refusal<'a> {
    /// Describes a refusal. `policy` is that of the request or, if it has none, a name for the metadata; `requirement` is the
    /// one that was not met.
    pub(crate) fn new(
        denial: Denial,
        policy: Result<&'a Policy, &'a str>,
        requirement: Option<&'a str>,
        realm: &'a Realm,
    ) -> Self {
        Self { denial, policy, chosen: None, requirement, realm, cors: None, location: None, request_id: None }
    }

    /// Reason for the refusal.
    pub(crate) fn denial(&self) -> Denial {
        self.denial
    }

    /// Requirement of the policy that the token does not meet.
    pub(crate) fn requirement(&self) -> Option<&str> {
        self.requirement
    }

    /// HTTP status: that of the denial, or 302 if the browser is redirected to the sign-in.
    pub(crate) fn status(&self) -> u16 {
        if self.location.is_some() { 302 } else { self.denial.status() }
    }

    /// Value of `Location`, if the response is a redirect: a path and query of the account API.
    pub(crate) fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    /// Value of `WWW-Authenticate`, if the response has one. A redirect has none.
    pub(crate) fn www_authenticate(&self) -> Option<String> {
        if self.location.is_some() {
            return None;
        }
        self.denial.www_authenticate(self.realm, self.challenge().as_deref())
    }

    /// Parameters of the challenge that depend on the policy.
    fn challenge(&self) -> Option<Cow<'a, ChallengeDetails>> {
        let policy = self.policy.ok()?;
        Some(match self.chosen {
            Some(chosen) => Cow::Owned(chosen.challenge.with_call(&policy.challenge)),
            None => Cow::Borrowed(&policy.challenge),
        })
    }

    /// Headers of the response, with lower-case names.
    pub(crate) fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers =
            vec![("content-type", "application/json".to_owned()), ("cache-control", "no-store".to_owned())];
        headers.extend(self.location.clone().map(|location| ("location", location)));
        headers.extend(self.www_authenticate().map(|challenge| ("www-authenticate", challenge)));
        if self.denial.fault() == Fault::Service {
            headers.push(("retry-after", RETRY_AFTER.to_owned()));
        }
        if let Some(CorsPermission { origin, credentials }) = self.cors {
            headers.push(("access-control-allow-origin", origin.to_owned()));
            if credentials {
                headers.push(("access-control-allow-credentials", "true".to_owned()));
            }
            headers.push(("access-control-expose-headers", "www-authenticate, retry-after".to_owned()));
            headers.push(("vary", "origin".to_owned()));
        }
        headers
    }

    /// Body of the response, as JSON.
    pub(crate) fn body(&self) -> String {
        let (error, reason, message) = (self.denial.error(), self.denial.reason(), self.denial.message());
        // Serializing strings cannot fail.
        let body = Body { error, reason, message, request_id: self.request_id };
        serde_json::to_string(&body).unwrap_or_default()
    }

    fn metadata(&self, write: &mut impl FnMut(&'static str, MetadataValue<'_, '_>)) {
        write("reason", MetadataValue::Text(self.denial.reason()));
        write("policy", MetadataValue::Text(self.policy.map_or_else(|name| name, |policy| &policy.name)));
        self.requirement_metadata(write);
    }

    fn requirement_metadata(&self, write: &mut impl FnMut(&'static str, MetadataValue<'_, '_>)) {
        if let Some(requirement) = self.requirement {
            write("requirement", MetadataValue::Text(requirement));
        }
    }
}
