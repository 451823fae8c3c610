//! The answer to a verdict, described without a protocol: status, headers, body and metadata.
//!
//! Every caller protocol and `explain` write out the same [`Answer`]; none of them has a text, a status or a header of its
//! own.

use serde::Serialize;

use super::denial::{Denial, Fault, Realm};
use super::headers::{Mutation, OwnedHeaders};
use super::policy::Policy;
use super::request::{Header, RequestContext};
use super::ruleset::Ruleset;
use super::{Allowed, Decision, Verdict};

/// Seconds after which a caller may try again when the service could not decide (`Retry-After`).
const RETRY_AFTER: &str = "5";

/// The answer to one request.
pub enum Answer<'a> {
    /// The request passes, with changes to its headers.
    Pass(Pass<'a>),
    /// The caller gets this response instead.
    Refusal(Refusal<'a>),
}

/// What the upstream gets.
pub struct Pass<'a> {
    allowed: &'a Allowed<'a>,
    owned: &'a OwnedHeaders,
    request_headers: &'a [Header<'a>],
}

/// What the caller gets.
pub struct Refusal<'a> {
    denial: Denial,
    policy: Result<&'a Policy, &'a str>,
    requirement: Option<&'a str>,
    realm: &'a Realm,
}

/// Value of a metadata field.
pub enum MetadataValue<'v, 'i> {
    /// A text.
    Text(&'v str),
    /// A number of seconds since 1970.
    Time(i64),
    /// A list of texts.
    Texts(&'i mut dyn Iterator<Item = &'v str>),
}

/// Body of a refusal, as JSON.
#[derive(Serialize)]
struct Body {
    error: &'static str,
    reason: &'static str,
    message: &'static str,
}

impl<'a> Answer<'a> {
    /// The answer to a verdict that was reached by `rules` about `request`.
    pub fn new(
        verdict: &'a Verdict<'_>,
        rules: &'a Ruleset,
        request: Option<&'a RequestContext<'_>>,
        realm: &'a Realm,
    ) -> Self {
        match &verdict.decision {
            Decision::Allow(allowed) => {
                let request_headers = request.map_or(&[][..], |request| &request.headers);
                Self::Pass(Pass::new(allowed, &rules.headers, request_headers))
            }
            Decision::Deny(denial) => {
                let policy = verdict.trace.policy.and_then(|policy| rules.policies.get(policy));
                let given = request.and_then(|request| request.policy);
                let policy = policy.ok_or_else(|| rules.policies.name_without_choice(given));
                Self::Refusal(Refusal::new(*denial, policy, verdict.trace.requirement.as_deref(), realm))
            }
        }
    }

    /// HTTP status: 200 for a request that passes.
    pub fn status(&self) -> u16 {
        match self {
            Self::Pass(_) => 200,
            Self::Refusal(refusal) => refusal.denial.status(),
        }
    }

    /// Metadata about the decision, for access logs and RBAC: hands each field to `write`.
    pub fn metadata(&self, write: &mut impl FnMut(&'static str, MetadataValue<'_, '_>)) {
        match self {
            Self::Pass(pass) => pass.metadata(write),
            Self::Refusal(refusal) => refusal.metadata(write),
        }
    }
}

impl<'a> Pass<'a> {
    /// Describes a request that passes: its headers are `request_headers`, and those of `owned` are set or removed.
    pub fn new(allowed: &'a Allowed<'a>, owned: &'a OwnedHeaders, request_headers: &'a [Header<'a>]) -> Self {
        Self { allowed, owned, request_headers }
    }

    /// Changes to the request's headers: hands each one to `write`. Every owned header is set or removed, and so is
    /// everything among the request's headers that the upstream could take for one.
    pub fn mutations(&self, write: &mut impl FnMut(Mutation<'_>)) {
        let Allowed { policy, identity, .. } = self.allowed;
        self.owned.mutate(identity.values(), policy.removes_authorization, self.request_headers, write);
    }

    fn metadata(&self, write: &mut impl FnMut(&'static str, MetadataValue<'_, '_>)) {
        write("decision", MetadataValue::Text("allow"));
        write("policy", MetadataValue::Text(&self.allowed.policy.name));
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
    pub fn new(
        denial: Denial,
        policy: Result<&'a Policy, &'a str>,
        requirement: Option<&'a str>,
        realm: &'a Realm,
    ) -> Self {
        Self { denial, policy, requirement, realm }
    }

    /// Why the request is refused.
    pub fn denial(&self) -> Denial {
        self.denial
    }

    /// The requirement of the policy that the token does not meet.
    pub fn requirement(&self) -> Option<&str> {
        self.requirement
    }

    /// Value of `WWW-Authenticate`, if the response has one.
    pub fn www_authenticate(&self) -> Option<String> {
        self.denial.www_authenticate(self.realm, self.policy.ok().map(|policy| &policy.challenge))
    }

    /// Headers of the response.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers =
            vec![("content-type", "application/json".to_owned()), ("cache-control", "no-store".to_owned())];
        headers.extend(self.www_authenticate().map(|challenge| ("www-authenticate", challenge)));
        if self.denial.fault() == Fault::Service {
            headers.push(("retry-after", RETRY_AFTER.to_owned()));
        }
        headers
    }

    /// Body of the response: JSON.
    pub fn body(&self) -> String {
        let (error, reason, message) = (self.denial.error(), self.denial.reason(), self.denial.message());
        // Cannot fail: three texts.
        serde_json::to_string(&Body { error, reason, message }).unwrap_or_default()
    }

    fn metadata(&self, write: &mut impl FnMut(&'static str, MetadataValue<'_, '_>)) {
        write("decision", MetadataValue::Text("deny"));
        write("reason", MetadataValue::Text(self.denial.reason()));
        write("policy", MetadataValue::Text(self.policy.map_or_else(|name| name, |policy| &policy.name)));
        if let Some(requirement) = self.requirement {
            write("requirement", MetadataValue::Text(requirement));
        }
    }
}
