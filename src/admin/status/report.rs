//! The state of the instance as JSON (`GET /status`).
//!
//! It contains no identity, nothing that a client can choose except well-formed request ids, and no secret. Times are Unix
//! seconds, durations are seconds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use serde_json::{Map, Value, json};

use super::super::Parts;
use super::findings::{Capacity, Facts, PoolFacts, findings};
use super::history::{History, Window};
use crate::authz::{Denial, Fault, Ruleset};
use crate::check::refusals::{CAPACITY, Refusal, Refusals};
use crate::clock::{UnixTime, since_1970};
use crate::metrics::readings::Readings;
use crate::metrics::{Reload, Reloaded};

/// Maximum number of keys of a pool that are shown, and of characters of each `kid`. Cognito has two keys.
const MAX_KEYS: usize = 20;
const MAX_KID: usize = 128;
/// Maximum number of characters of a route.
const MAX_ROUTE: usize = 200;
/// Options that limit something.
const LIMITS: [&str; 8] = [
    "grpc-max-connections",
    "grpc-max-streams",
    "grpc-max-message-bytes",
    "limit-address",
    "limit-user",
    "limit-sends",
    "token-cache-capacity",
    "revocation-capacity",
];

/// What the report is about, besides the parts of the admin port.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) history: History,
    pub(super) refusals: Arc<Refusals>,
    /// Unix time of the start.
    pub(super) started: UnixTime,
    /// Content of the policy file that was hashed last, and the hash.
    hashed: Mutex<Option<(Arc<Value>, String)>>,
}

impl Subject {
    pub(super) fn new(history: History, refusals: Arc<Refusals>, started: UnixTime) -> Self {
        Self { history, refusals, started, hashed: Mutex::default() }
    }

    /// Returns the report.
    pub(super) fn report(&self, parts: &Parts) -> Value {
        parts.measure();
        let readings = parts.metrics.read();
        let rules = parts.authorizer.rules();
        let [minute, five_minutes, hour] = self.history.windows(&readings);
        let now = since_1970();
        let facts = facts(parts, &readings, &rules, (&five_minutes, &hour), now);
        let found: Vec<Value> = findings(&facts).iter().map(super::findings::Finding::shown).collect();
        let is_ready = facts.pending.is_empty() && !facts.is_shutting_down;
        let windows: Vec<Value> = [&minute, &five_minutes, &hour].map(|each| shown_window(each, now)).into();
        json!({
            "time": rounded(now),
            "version": env!("CARGO_PKG_VERSION"),
            "revision": crate::REVISION,
            "started": self.started,
            "uptime": now.as_secs().saturating_sub(u64::try_from(self.started).unwrap_or_default()),
            "ready": is_ready,
            "pending": facts.pending,
            "shutting_down": facts.is_shutting_down,
            "findings": found,
            "windows": windows,
            "pools": pools(&readings, &rules),
            "cognito": {
                "calls": by(&readings, "cognito_authz_cognito_requests_total", "outcome"),
                "account_requests": by(&readings, "cognito_authz_account_requests_total", "outcome"),
            },
            "cache": cache(&readings),
            "limits": limits(parts, &readings),
            "process": process(&readings),
            "revocation": revocation(parts, &readings),
            "certificates": facts.certificates.iter().map(|(listener, left)| {
                json!({"listener": listener, "expires": (now.as_secs_f64() + left).round(), "left": left.round()})
            }).collect::<Vec<_>>(),
            "configuration": self.configuration(parts),
            "refusals": {
                "capacity": CAPACITY,
                "skipped": self.refusals.skipped(),
                "newest": self.refusals.newest_first().iter().map(|refusal| shown_refusal(refusal, &rules)).collect::<Vec<_>>(),
            },
        })
    }

    /// State of the configuration: a hash of what is in effect, and the last reload.
    fn configuration(&self, parts: &Parts) -> Value {
        let file = parts.rules.file.load_full();
        let last = parts.rules.last.load_full().map(|last| {
            let part = match last.part {
                Reloaded::Policy => "policy_file",
                Reloaded::Certificates => "tls",
            };
            json!({"time": last.at, "part": part, "succeeded": last.result == Reload::Success})
        });
        json!({
            "hash": self.hash(&parts.options, &file),
            "policy_file": file.get("path"),
            "last_reload": last,
            "errors": {
                "policy_file": parts.rules.error.load_full().as_deref(),
                "tls": parts.rules.certificates.load_full().as_deref(),
            },
        })
    }

    /// SHA-256 of the values of all options and of the policy file in effect. Instances with the same configuration have
    /// the same hash, whatever the sources of their values. Secrets are not part of it.
    fn hash(&self, options: &Value, file: &Arc<Value>) -> String {
        let mut hashed = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, hash)) = &*hashed
            && Arc::ptr_eq(known, file)
        {
            return hash.clone();
        }
        let values = options.as_object().into_iter().flatten();
        let values: Map<String, Value> =
            values.map(|(name, option)| (name.clone(), option.get("value").cloned().unwrap_or_default())).collect();
        let text = json!({"options": values, "policy": file.get("content")}).to_string();
        let mut hash = String::with_capacity(64);
        for byte in digest::digest(&digest::SHA256, text.as_bytes()).as_ref() {
            let digits = [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16));
            hash.extend(digits.into_iter().flatten());
        }
        *hashed = Some((Arc::clone(file), hash.clone()));
        hash
    }
}

/// Collects what the findings depend on.
fn facts<'w>(
    parts: &Parts,
    readings: &Readings,
    rules: &Ruleset,
    (five_minutes, hour): (&'w Window, &'w Window),
    now: Duration,
) -> Facts<'w> {
    let pool = |(index, pool): (usize, &crate::user_pool::UserPool)| {
        let state = rules.keys.state(index)?;
        Some(PoolFacts { name: pool.name.to_string(), keys: state.keys.len(), fetched: state.fetched })
    };
    let named = [("policy file: ", &parts.rules.error), ("certificates: ", &parts.rules.certificates)];
    let error = |(name, error): (&str, &arc_swap::ArcSwapOption<String>)| Some(format!("{name}{}", error.load_full()?));
    let certificates = readings.by("cognito_authz_tls_certificate_expiry_timestamp_seconds", ["listener"]);
    let left = |([listener], expires): ([String; 1], f64)| (listener, expires - now.as_secs_f64());
    let number = |name| readings.sum(name).unwrap_or_default();
    Facts {
        pending: parts.readiness.pending(),
        is_shutting_down: parts.shutdown.draining.is_cancelled(),
        pools: rules.pools.iter().enumerate().filter_map(pool).collect(),
        reload_errors: named.into_iter().filter_map(error).collect(),
        five_minutes,
        hour,
        certificates: certificates.into_iter().map(left).collect(),
        has_lost_store: parts.revocations.kept_in() == "store" && number("cognito_authz_revocation_store_up") < 1.0,
        capacities: vec![
            (Capacity::Revocations, number("cognito_authz_revocations"), number("cognito_authz_revocation_capacity")),
            (Capacity::OpenFiles, number("process_open_fds"), number("process_max_fds")),
        ],
    }
}

/// What was counted in a window. Lists have one number for each step.
fn shown_window(window: &Window, now: Duration) -> Value {
    let Window { length, covered, sum, steps } = window;
    let list = |of: &dyn Fn(&super::history::Counts) -> Option<u64>| -> Vec<u64> {
        steps.iter().map(|(_, counts)| of(counts).unwrap_or_default()).collect()
    };
    let refused = |is_meant: fn(Fault) -> bool| -> u64 {
        let counts = Denial::ALL.iter().zip(&sum.refused).filter(|(denial, _)| is_meant(denial.fault()));
        counts.map(|(_, count)| count).sum()
    };
    let reason = |(position, (denial, count)): (usize, (&Denial, &u64))| {
        (*count > 0).then(|| {
            json!({
                "reason": denial.reason(),
                "decision": decision(*denial),
                "status": denial.status(),
                "meaning": denial.message(),
                "count": count,
                "steps": list(&|counts| counts.refused.get(position).copied()),
            })
        })
    };
    let mut reasons: Vec<Value> = Denial::ALL.iter().zip(&sum.refused).enumerate().filter_map(reason).collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.get("count").and_then(Value::as_u64)));
    let quantile = |quantile| sum.durations.quantile(quantile);
    json!({
        "seconds": length.as_secs(),
        "covered": rounded(*covered),
        "begin": rounded(now.saturating_sub(*covered)),
        "lengths": steps.iter().map(|(length, _)| rounded(*length)).collect::<Vec<_>>(),
        "checks": sum.checks(),
        "allowed": {"count": sum.allowed, "steps": list(&|counts| Some(counts.allowed))},
        "denied": refused(|fault| fault == Fault::Caller),
        "errors": refused(|fault| fault == Fault::Service),
        "would_be_refused": sum.shadow,
        "reasons": reasons,
        "duration": {"p50": quantile(0.5), "p90": quantile(0.9), "p99": quantile(0.99)},
        "key_fetches": {"count": sum.fetches, "failed": sum.failed_fetches},
        "unknown_kids": sum.unknown_kids,
        "cognito_calls": {
            "count": sum.cognito_calls,
            "failed": sum.failed_cognito_calls,
            "throttled": sum.throttled_cognito_calls,
        },
        "rate_limited": sum.rate_limited,
        "revocations_not_recorded": sum.lost_revocations,
    })
}

fn decision(denial: Denial) -> &'static str {
    match denial.fault() {
        Fault::Caller => "deny",
        Fault::Service => "error",
    }
}

fn pools(readings: &Readings, rules: &Ruleset) -> Vec<Value> {
    let fetches = readings.by("cognito_authz_jwks_fetches_total", ["pool", "result"]);
    let unknown = readings.by("cognito_authz_jwks_unknown_kid_total", ["pool"]);
    let pool = |(index, pool): (usize, &crate::user_pool::UserPool)| {
        let state = rules.keys.state(index)?;
        let keys = state
            .keys
            .iter()
            .take(MAX_KEYS)
            .map(|(kid, age)| json!({"kid": kid.chars().take(MAX_KID).collect::<String>(), "age": rounded(*age)}));
        let of_pool = fetches.iter().filter(|([name, _], count)| **name == *pool.name && **count > 0.0);
        let fetches: Map<String, Value> = of_pool.map(|([_, result], count)| (result.clone(), json!(count))).collect();
        let urls: Vec<&str> = pool.jwks_urls.iter().map(url::Url::as_str).collect();
        Some(json!({
            "name": pool.name,
            "id": pool.id.as_str(),
            "region": pool.id.region(),
            "jwks_urls": urls,
            "keys": keys.collect::<Vec<_>>(),
            "key_count": state.keys.len(),
            "unused_keys": state.skipped,
            "age": state.fetched.map(rounded),
            "fetching": state.is_fetching,
            "last_error": rules.keys.failure(index).map(|failure| failure.to_string()),
            "fetches": fetches,
            "unknown_kids": unknown.get(&[pool.name.to_string()]),
        }))
    };
    rules.pools.iter().enumerate().filter_map(pool).collect()
}

fn cache(readings: &Readings) -> Value {
    let number = |name: &str| readings.sum(&format!("cognito_authz_token_cache_{name}"));
    json!({
        "entries": number("entries"),
        "hits": number("hits_total"),
        "misses": number("misses_total"),
        "evictions": number("evictions_total"),
    })
}

/// Limits, as configured, and what they refused since the start.
fn limits(parts: &Parts, readings: &Readings) -> Value {
    let value = |name: &&str| Some(((*name).to_owned(), parts.options.get(*name)?.get("value")?.clone()));
    json!({
        "options": LIMITS.iter().filter_map(value).collect::<Map<_, _>>(),
        "rate_limited": by(readings, "cognito_authz_rate_limited_total", "limit"),
        "checks_in_flight": readings.sum("cognito_authz_checks_in_flight"),
        "connections": by(readings, "cognito_authz_connections", "listener"),
        "connection_limits": by(readings, "cognito_authz_connections_limit", "listener"),
        "refused_connections": by(readings, "cognito_authz_connections_refused_total", "listener"),
        "streams": readings.sum("cognito_authz_worker_streams"),
        "open_files": {"count": readings.sum("process_open_fds"), "max": readings.sum("process_max_fds")},
    })
}

fn process(readings: &Readings) -> Value {
    json!({
        "resident_bytes": readings.sum("process_resident_memory_bytes"),
        "cpu_seconds": readings.sum("process_cpu_seconds_total"),
        "threads": readings.sum("process_threads"),
    })
}

fn revocation(parts: &Parts, readings: &Readings) -> Value {
    let number = |name: &str| readings.sum(&format!("cognito_authz_revocation{name}"));
    let kept_in = parts.revocations.kept_in();
    let store = (kept_in == "store").then(|| {
        json!({
            "up": number("_store_up") >= Some(1.0),
            "last_sync": number("_last_sync_timestamp_seconds").filter(|time| *time > 0.0),
            "lag": number("_lag_seconds"),
            "checks_fail_without_it": !parts.revocations.is_sound(),
        })
    });
    json!({
        "kept_in": kept_in,
        "scope": parts.revocations.scope().as_str(),
        "entries": by(readings, "cognito_authz_revocations", "kind"),
        "capacity": number("_capacity"),
        "writes": by(readings, "cognito_authz_revocation_writes_total", "result"),
        "store": store,
    })
}

fn shown_refusal(refusal: &Refusal, rules: &Ruleset) -> Value {
    let route = refusal.route.map(|(version, position)| {
        let route = rules.policies.routes().iter().nth(position).filter(|_| version == rules.version);
        route.map_or_else(
            || "of an earlier policy file".to_owned(),
            |route| route.to_string().chars().take(MAX_ROUTE).collect(),
        )
    });
    json!({
        "time": rounded(refusal.at),
        "reason": refusal.denial.reason(),
        "decision": decision(refusal.denial),
        "status": refusal.denial.status(),
        "shadow": refusal.is_shadow,
        "policy": refusal.policy,
        "pool": refusal.pool,
        "route": route,
        "requirement": refusal.requirement,
        "request_id": refusal.request_id,
    })
}

/// Sums of the series of a metric by the values of a label, without those that are zero.
fn by(readings: &Readings, name: &str, label: &str) -> Map<String, Value> {
    let sums = readings.by(name, [label]).into_iter().filter(|(_, sum)| *sum > 0.0);
    sums.map(|([value], sum)| (value, json!(sum))).collect()
}

/// Seconds with three decimals.
fn rounded(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
