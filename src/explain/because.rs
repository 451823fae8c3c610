//! Reason for a denial, for the holder of the token: the value that the request has, and the values that are accepted.
//!
//! The values come from the caller's own token and from the configuration. Neither the token nor its signature is among
//! them. Values that were read before the step `signature` are not verified. Start from [`because`].

use serde_json::{Value, json};

use super::requirement;
use super::shown::{shown, shown_text, time};
use crate::authz::credential::places::Places;
use crate::authz::token::MAX_TOKEN_BYTES;
use crate::authz::{Decoded, Denial, MAX_IDENTITY_BYTES, RequestContext, Ruleset, Step, TimeLimits, Trace, UnixTime};
use crate::clock::format_rfc3339;
use crate::nearest::nearest;
use crate::revocation::Entry;
use crate::user_pool::{AcceptedUse, ClientId, Clients, UserPool};

/// Value that a denied request has, and what is accepted instead.
pub(super) struct Because {
    /// Name of the claim, or of another part of the request.
    pub(super) what: String,
    /// Value in the request; null if it is absent.
    pub(super) has: Value,
    /// Accepted values: a text, a list, or an object such as `{"any": […]}`.
    pub(super) accepted: Value,
    /// Further explanation, or how to mend it.
    pub(super) hint: Option<String>,
}

impl Because {
    pub(super) fn new(what: impl Into<String>, has: Value, accepted: impl Into<Value>) -> Self {
        Self { what: what.into(), has, accepted: accepted.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Describes it as JSON.
    pub(super) fn to_value(&self) -> Value {
        let Self { what, has, accepted, hint } = self;
        json!({"what": what, "has": has, "accepted": accepted, "hint": hint})
    }
}

/// Everything that a reason can depend on.
pub(super) struct Findings<'f> {
    pub(super) rules: &'f Ruleset,
    pub(super) request: &'f RequestContext<'f>,
    pub(super) trace: &'f Trace,
    /// Credential of the request, if it has exactly one.
    pub(super) token: Option<&'f str>,
    pub(super) now: UnixTime,
    pub(super) limits: TimeLimits,
    /// Error of the last fetch of the pool's keys, and a hint.
    pub(super) fetch: Option<(String, String)>,
    /// Entry by which the token is revoked.
    pub(super) revoked: Option<Entry>,
}

impl Findings<'_> {
    pub(super) fn pool(&self) -> Option<&UserPool> {
        self.trace.pool.and_then(|pool| self.rules.pools.get(pool))
    }
}

/// Explains a denial.
pub(super) fn because(denial: Denial, findings: &Findings<'_>) -> Option<Because> {
    let Findings { rules, request, trace, token, now, limits, .. } = findings;
    let (header, claims) = token
        .and_then(|token| Decoded::new(token).ok())
        .map_or_else(|| (Value::Null, Value::Null), |decoded| decoded.content());
    let claim = |name: &str| shown(claims.get(name).unwrap_or(&Value::Null));
    let in_header = |name: &str| shown(header.get(name).unwrap_or(&Value::Null));
    let number = |name: &str| claims.get(name).and_then(Value::as_f64);
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and only shows a time")]
    let at = |name: &str| number(name).map_or(Value::Null, |seconds| time(seconds.floor() as i64, *now));
    let policy = trace.policy.and_then(|policy| rules.policies.get(policy));
    Some(match denial {
        Denial::NoHttpRequest => match policy {
            Some(_) => {
                Because::new("the body", Value::Null, "a JSON-RPC body that is complete (the policy has `json_rpc`)")
                    .hint("Envoy sends bodies only with `with_request_body`; here, use --body")
            }
            None => Because::new(
                "the host",
                text(request.host),
                "one host that can be read in one way only, because routes name hosts",
            ),
        },
        Denial::UnknownPolicy => {
            let names: Vec<&str> = rules.policies.iter().map(|policy| &*policy.name).collect();
            let given = request.policy.and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
            let nearest = nearest(given, names.iter().copied()).map(|name| format!("did you mean {name}?"));
            let because =
                Because::new("the context extension policy", request.policy.map_or(Value::Null, text), names.clone());
            Because { hint: nearest, ..because }
        }
        Denial::UnsafePath => Because::new(
            "the path",
            text(request.path),
            "a path that can be read in one way only: no empty, `.` or `..` segments, `;`, `\\`, or encoded `/`",
        ),
        Denial::MissingCredential => {
            let places = policy.map(|policy| places(&policy.places, rules)).unwrap_or_default();
            Because::new("the credential", Value::Null, places)
        }
        Denial::MultipleCredentials => Because::new("the credential", json!("more than one"), "exactly one"),
        Denial::TokenTooLarge => {
            let length = token
                .map_or(Value::Null, |token| format!("{} bytes or more", token.len().min(MAX_TOKEN_BYTES + 1)).into());
            Because::new("the length of the token", length, format!("at most {MAX_TOKEN_BYTES} bytes"))
        }
        Denial::MalformedToken if trace.step <= Step::Form => {
            let segments = token.map_or(Value::Null, |token| format!("{} segments", token.split('.').count()).into());
            Because::new(
                "the form of the token",
                segments,
                "three segments of base64url without padding; the first two are JSON objects without repeated names",
            )
        }
        Denial::MalformedToken | Denial::MissingClaim => mistyped(trace.step, &claims),
        Denial::UnsupportedAlgorithm => Because::new("alg", in_header("alg"), json!(["RS256"])),
        Denial::UnsupportedHeader => {
            let has = json!({"crit": in_header("crit"), "b64": in_header("b64")});
            Because::new("the header of the token", has, "neither crit nor b64")
        }
        Denial::MissingKid => Because::new("kid", in_header("kid"), "the id of a key of the pool"),
        Denial::UnknownIssuer => {
            let issuers: Vec<&str> =
                rules.pools.iter().flat_map(|pool| pool.issuers.iter()).map(String::as_str).collect();
            Because::new("iss", claim("iss"), issuers)
                .hint("the token is from another user pool or region, or the pool is missing in the configuration")
        }
        Denial::WrongTokenUse => {
            let is_session =
                rules.browser_sessions.is_some() && request.header_values("authorization").next().is_none();
            let accepted = match findings.pool().map(|pool| pool.token_use) {
                Some(AcceptedUse::Id) if !is_session => json!(["id"]),
                Some(AcceptedUse::Any) if !is_session => json!(["access", "id"]),
                _ => json!(["access"]),
            };
            Because::new("token_use", claim("token_use"), accepted)
                .hint("--token-use, or `token_use` of the pool, says which kinds are accepted")
        }
        Denial::WrongClient => {
            let name = if claims.get("token_use").and_then(Value::as_str) == Some("id") { "aud" } else { "client_id" };
            let accepted: Vec<&str> = match findings.pool().map(|pool| &pool.clients) {
                Some(Clients::Only(clients)) => clients.iter().map(ClientId::as_str).collect(),
                Some(Clients::Any) | None => Vec::new(),
            };
            Because::new(name, claim(name), accepted)
                .hint("--client-id, or `client_ids` of the pool, lists the app clients that are accepted")
        }
        Denial::Expired => Because::new(
            "exp",
            at("exp"),
            format!(
                "later than {} (now, minus the leeway of {} s)",
                format_rfc3339(now.saturating_sub(limits.leeway)),
                limits.leeway
            ),
        ),
        Denial::NotYetValid => Because::new(
            "nbf",
            at("nbf"),
            format!(
                "not later than {} (now, plus the leeway of {} s)",
                format_rfc3339(now.saturating_add(limits.leeway)),
                limits.leeway
            ),
        )
        .hint("is the clock of this machine right?"),
        Denial::TokenLifeExceeded => {
            let life = number("exp")
                .zip(number("iat").or(number("auth_time")))
                .map(|(exp, iat)| format!("{} s", exp.floor() - iat.floor()));
            Because::new(
                "exp - iat",
                life.map_or(Value::Null, Value::from),
                format!("at most {} s (--max-token-life)", limits.max_life),
            )
        }
        Denial::UnknownKid => {
            let kids = trace.pool.map(|pool| rules.keys.kids(pool)).unwrap_or_default();
            Because::new("kid", in_header("kid"), kids)
                .hint("the keys were fetched just now; was the token signed by another pool, or by an emulator?")
        }
        Denial::KeysUnavailable => keys_unavailable(findings, &in_header("kid")),
        Denial::BadSignature => Because::new(
            "the signature",
            json!(format!("not of the key {}", in_header("kid"))),
            "one that the named key made over header and payload",
        )
        .hint("the token was changed, cut or re-encoded after it was signed, or signed by another pool"),
        Denial::Revoked => revoked(findings),
        Denial::RevocationUnavailable => {
            Because::new("the revocations", json!("not known"), "a store that answers (--revocation-required)")
        }
        Denial::InsufficientScope | Denial::InsufficientGroup | Denial::ClaimMismatch | Denial::AuthTooOld => {
            return requirement::unmet(findings, &claims);
        }
        Denial::CrossSite => {
            let sent = |name: &str| request.header_values(name).next().map_or(Value::Null, text);
            let has =
                json!({"origin": sent("origin"), "sec-fetch-site": sent("sec-fetch-site"), "host": text(request.host)});
            let origins = rules.browser_sessions.iter().flat_map(|sessions| &sessions.origins);
            let origins = origins.map(|origin| format!(", or of {}", String::from_utf8_lossy(origin)));
            let accepted = format!("a page of the same origin{}", origins.collect::<String>());
            Because::new("the page that caused the request", has, accepted).hint(
                "a session cookie counts only if no page of another site can have caused the request; see --cors-origins",
            )
        }
        Denial::IdentityTooLarge => Because::new(
            "the identity headers",
            json!("too large"),
            format!("at most {MAX_IDENTITY_BYTES} bytes together"),
        )
        .hint("the token has long claims or many groups; pass on fewer `claim_headers`"),
    })
}

/// Text that the caller sent.
fn text(bytes: &[u8]) -> Value {
    shown_text(&String::from_utf8_lossy(bytes)).into()
}

/// Places in which the policy looks for a credential.
fn places(places: &Places, rules: &Ruleset) -> Vec<String> {
    let header = places.header.as_ref().map(|name| format!("the header {}", name.as_str()));
    let protocol = places.websocket_protocol.as_ref().map(|name| format!("Sec-WebSocket-Protocol: {name}.TOKEN"));
    let query = places.websocket_query.as_ref().map(|name| format!("the query parameter {name} of a WebSocket"));
    let session = rules.browser_sessions.as_ref().map(|_| "a session cookie".to_owned());
    let bearer = "Authorization: Bearer TOKEN".to_owned();
    [Some(bearer), header, protocol, query, session].into_iter().flatten().collect()
}

/// Names the claim that is absent or has the wrong type.
fn mistyped(step: Step, claims: &Value) -> Because {
    let get = |name: &str| claims.get(name).unwrap_or(&Value::Null);
    let is_id = get("token_use").as_str() == Some("id");
    let client = if is_id { "aud" } else { "client_id" };
    let is_text = |name: &str| claims.get(name).is_none_or(Value::is_string);
    let is_texts = |name: &str| {
        let all_texts = |members: &Vec<Value>| members.iter().all(Value::is_string);
        claims.get(name).is_none_or(|value| value.as_array().is_some_and(all_texts))
    };
    let is_flag = |name: &str| claims.get(name).is_none_or(|value| value.is_boolean() || value.is_string());
    let name = match step {
        Step::Issuer => "iss",
        Step::TokenUse => "token_use",
        Step::Subject => "sub",
        Step::Client => client,
        Step::Expiry => "exp",
        Step::NotBefore => "nbf",
        Step::Life => "iat",
        _ if is_id && !is_text("cognito:username") => "cognito:username",
        _ if !is_id && !is_text("username") => "username",
        _ if is_id && !is_flag("email_verified") => "email_verified",
        _ if !is_text("scope") => "scope",
        _ if !is_texts("cognito:groups") => "cognito:groups",
        _ => "email",
    };
    let accepted = match name {
        "exp" => "a number of seconds since 1970",
        "nbf" | "iat" => "a number of seconds since 1970, or no such claim",
        "cognito:groups" => "a list of texts, or no such claim",
        "email_verified" => "true, false, or no such claim",
        "iss" | "token_use" | "sub" | "client_id" => "a text that is not empty",
        "aud" => "a text, or a list of texts",
        _ => "a text, or no such claim",
    };
    Because::new(name, shown(get(name)), accepted)
}

fn keys_unavailable(findings: &Findings<'_>, kid: &Value) -> Because {
    let urls: Vec<&str> = findings.pool().iter().flat_map(|pool| &pool.jwks_urls).map(url::Url::as_str).collect();
    let because =
        Because::new("the keys of the pool", json!({"kid": kid, "url": urls}), "a key set that can be fetched");
    match &findings.fetch {
        Some((error, hint)) => {
            let has = json!({"kid": because.has.get("kid"), "url": urls, "error": error});
            Because { has, ..because }.hint(hint)
        }
        None => because.hint("the key set can be fetched now; the last check came too early"),
    }
}

fn revoked(findings: &Findings<'_>) -> Because {
    let Some(entry) = &findings.revoked else {
        return Because::new("the session of the token", json!("revoked"), "one that has not ended");
    };
    let causes: Vec<&str> = entry.causes.names().collect();
    let before = entry.state.before().map(|before| time(before, findings.now));
    let has = json!({
        "revoked_by": entry.kind.as_str(),
        "at": before,
        "causes": causes,
        "kept_until": format_rfc3339(entry.until),
    });
    let hint = "`cognito-authz revocations` lists the revocations of an instance, and `revocations lift` lifts one";
    Because::new("the session of the token", has, "a sign-in after that time").hint(hint)
}
