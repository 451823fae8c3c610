//! What an operator should look at ([`findings`]): the conditions of the shipped alerts, as one instance sees them, and
//! what runs out soon.

use std::time::Duration;

use serde_json::{Value, json};

use super::history::Window;
use crate::authz::{Denial, Fault};

/// Share of Envoy's timeout of 250 ms that checks may take, in seconds (alert `CognitoAuthzSlow`).
const SLOW: f64 = 0.125;
/// Ages of keys from which on they are not refreshed, and stale (alerts `CognitoAuthzKeysNotRefreshed` and
/// `CognitoAuthzKeysStale`).
const OLD_KEYS: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(6 * 3600));
/// Share of a capacity from which on it is nearly used up.
const NEARLY_FULL: f64 = 0.8;
/// Times before a certificate expires at which that is a warning, and critical, in seconds.
const EXPIRES_SOON: (f64, f64) = (7.0 * 86400.0, 86400.0);
/// Number of checks in five minutes from which on shares of them mean something.
const ENOUGH_CHECKS: u64 = 20;

/// Page of the documentation, and the places in it.
const ALERTS: &str = "docs/alerts.md#";
const TLS: &str = "docs/operations-tls.md#tls";

/// How urgent a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Users are affected, or will be.
    Critical,
    /// Users will be affected if it goes on.
    Warning,
    /// Worth knowing.
    Notice,
}

/// Question that a finding answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Area {
    /// Is it up?
    Up,
    /// Is it fast?
    Fast,
    /// Who is refused, and why?
    Refused,
    /// Is Cognito the problem?
    Cognito,
    /// Will there be a problem tomorrow?
    Tomorrow,
}

/// Something to look at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) area: Area,
    pub(super) message: String,
    /// Place in the documentation that says what to do.
    pub(super) see: String,
}

impl Finding {
    /// JSON form.
    pub(super) fn shown(&self) -> Value {
        let severity = match self.severity {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
            Severity::Notice => "notice",
        };
        let area = match self.area {
            Area::Up => "up",
            Area::Fast => "fast",
            Area::Refused => "refused",
            Area::Cognito => "cognito",
            Area::Tomorrow => "tomorrow",
        };
        json!({"severity": severity, "area": area, "message": self.message, "see": self.see})
    }
}

/// Keys of a pool.
#[derive(Debug)]
pub(super) struct PoolFacts {
    pub(super) name: String,
    pub(super) keys: usize,
    /// Time since the last successful fetch; `None` before the first.
    pub(super) fetched: Option<Duration>,
}

/// What findings are derived from.
#[derive(Debug)]
pub(super) struct Facts<'f> {
    /// Parts that the service waits for.
    pub(super) pending: Vec<String>,
    pub(super) is_shutting_down: bool,
    pub(super) pools: Vec<PoolFacts>,
    /// Errors of the last reload of the policy file and of the certificates.
    pub(super) reload_errors: Vec<String>,
    pub(super) five_minutes: &'f Window,
    pub(super) hour: &'f Window,
    /// Listeners with TLS, and the seconds until their certificates expire.
    pub(super) certificates: Vec<(String, f64)>,
    /// `true` if a shared store of revocations is configured and does not answer.
    pub(super) has_lost_store: bool,
    /// Revocations, and open files: name, number, and the maximum.
    pub(super) capacities: Vec<(Capacity, f64, f64)>,
}

/// Something that can be used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capacity {
    Revocations,
    OpenFiles,
}

/// Returns the findings, the most urgent ones first.
pub(super) fn findings(facts: &Facts<'_>) -> Vec<Finding> {
    use Severity::{Critical, Notice, Warning};

    let mut found = Vec::new();
    let mut add = |severity, area, see: &str, message: String| {
        let see = if see.contains('#') { see.to_owned() } else { format!("{ALERTS}{see}") };
        found.push(Finding { severity, area, message, see });
    };
    if facts.is_shutting_down {
        add(Notice, Area::Up, "docs/operations.md#shutdown", "This instance is shutting down.".into());
    }
    if !facts.pending.is_empty() {
        let pending = facts.pending.join(", ");
        let message = format!("Not ready: waiting for {pending}.");
        add(Critical, Area::Up, "cognitoauthznokeys", message);
    }
    checks(facts, &mut add);
    keys(facts, &mut add);
    cognito(facts, &mut add);
    for error in &facts.reload_errors {
        let message = format!("What is on disk is not in effect: {error}");
        add(Warning, Area::Tomorrow, "cognitoauthzpolicynotreloaded", message);
    }
    for (listener, left) in &facts.certificates {
        if *left < EXPIRES_SOON.0 {
            let severity = if *left < EXPIRES_SOON.1 { Critical } else { Warning };
            let message = if *left <= 0.0 {
                format!("The certificate of the listener {listener} has expired.")
            } else {
                format!("The certificate of the listener {listener} expires in {}.", words(*left))
            };
            add(severity, Area::Tomorrow, TLS, message);
        }
    }
    if facts.has_lost_store {
        let message =
            "The shared store of revocations does not answer: sign-outs elsewhere do not reach this instance.";
        add(Critical, Area::Up, "cognitoauthzrevocationstorelost", message.into());
    }
    if facts.hour.sum.lost_revocations > 0 {
        let message =
            format!("{} revocations of the last hour could not be recorded.", facts.hour.sum.lost_revocations);
        add(Warning, Area::Up, "cognitoauthzrevocationsnotwritten", message);
    }
    for (capacity, number, max) in &facts.capacities {
        if *max > 0.0 && number / max > NEARLY_FULL {
            let (what, see) = match capacity {
                Capacity::Revocations => ("--revocation-capacity", "cognitoauthzrevocationsnearlyfull"),
                Capacity::OpenFiles => ("The limit on open files", "docs/operations.md#sizing"),
            };
            let message = format!("{what} is nearly used up: {number:.0} of {max:.0}.");
            add(Warning, Area::Tomorrow, see, message);
        }
    }
    found.sort_by_key(|finding| finding.severity);
    found
}

type Add<'a> = dyn FnMut(Severity, Area, &str, String) + 'a;

/// Findings about the checks of the last minutes.
fn checks(facts: &Facts<'_>, add: &mut Add<'_>) {
    let sum = &facts.five_minutes.sum;
    let checks = sum.checks();
    let refused = |is_meant: &dyn Fn(Denial) -> bool| {
        let counts = Denial::ALL.iter().zip(&sum.refused).filter(|(denial, _)| is_meant(**denial));
        counts.map(|(_, count)| count).sum::<u64>()
    };
    let errors = refused(&|denial| denial.fault() == Fault::Service);
    if errors > 0 {
        let severity = if share(errors, checks) > 0.01 { Severity::Critical } else { Severity::Warning };
        let message =
            format!("{errors} of {checks} checks of the last minutes got 503: this service could not decide.");
        add(severity, Area::Refused, "cognitoauthzerrors", message);
    }
    // Scanners send requests without a token, and browsers before sign-in.
    let with_token = refused(&|denial| denial.fault() == Fault::Caller && denial != Denial::MissingCredential);
    if checks >= ENOUGH_CHECKS && share(with_token, checks) > 0.2 {
        let percent = share(with_token, checks) * 100.0;
        let message =
            format!("{percent:.0} % of the checks of the last minutes were refused although they had a token.");
        add(Severity::Warning, Area::Refused, "cognitoauthzdenialsjumped", message);
    }
    if let Some(p99) = sum.durations.quantile(0.99).filter(|p99| checks >= ENOUGH_CHECKS && *p99 > SLOW) {
        let message =
            format!("One check in a hundred takes {:.0} ms or more. Envoy waits for 200 ms by default.", p99 * 1000.0);
        add(Severity::Warning, Area::Fast, "cognitoauthzslow", message);
    }
    if facts.hour.sum.shadow > 0 {
        let message = format!(
            "Policies in shadow mode let {} requests of the last hour pass that they would refuse.",
            facts.hour.sum.shadow
        );
        add(Severity::Notice, Area::Refused, "cognitoauthzshadowdenials", message);
    }
}

/// Findings about keys.
fn keys(facts: &Facts<'_>, add: &mut Add<'_>) {
    for pool in &facts.pools {
        let name = &pool.name;
        if pool.keys == 0 {
            let message = format!("The pool {name} has no keys: its tokens get 503.");
            add(Severity::Critical, Area::Cognito, "cognitoauthznokeys", message);
        } else if let Some(age) = pool.fetched.filter(|age| *age > OLD_KEYS.0) {
            let (severity, see) = if age > OLD_KEYS.1 {
                (Severity::Critical, "cognitoauthzkeysstale")
            } else {
                (Severity::Warning, "cognitoauthzkeysnotrefreshed")
            };
            let message = format!("The keys of the pool {name} were last fetched {} ago.", words(age.as_secs_f64()));
            add(severity, Area::Cognito, see, message);
        }
    }
    let sum = &facts.hour.sum;
    if sum.failed_fetches > 0 {
        let message = format!("{} of {} fetches of keys failed in the last hour.", sum.failed_fetches, sum.fetches);
        let severity = if facts.five_minutes.sum.failed_fetches > 0 { Severity::Warning } else { Severity::Notice };
        add(severity, Area::Cognito, "cognitoauthzkeyfetchesfail", message);
    }
    let unknown = facts.five_minutes.sum.unknown_kids;
    if per_second(unknown, facts.five_minutes) > 5.0 {
        let message = format!("{unknown} checks of the last minutes named a key that their pool does not have.");
        add(Severity::Warning, Area::Refused, "cognitoauthzunknownkeyflood", message);
    }
}

/// Findings about the account API.
fn cognito(facts: &Facts<'_>, add: &mut Add<'_>) {
    let sum = &facts.five_minutes.sum;
    if share(sum.failed_cognito_calls, sum.cognito_calls) > 0.05 {
        let message = format!(
            "{} of {} calls to Cognito of the last minutes failed: users cannot sign in. Checks still work.",
            sum.failed_cognito_calls, sum.cognito_calls
        );
        add(Severity::Critical, Area::Cognito, "cognitoauthzcognitofails", message);
    }
    if per_second(sum.throttled_cognito_calls, facts.five_minutes) > 0.1 {
        let message = format!("Cognito throttled {} calls of the last minutes.", sum.throttled_cognito_calls);
        add(Severity::Warning, Area::Cognito, "cognitoauthzcognitothrottles", message);
    }
    if per_second(sum.rate_limited, facts.five_minutes) > 1.0 {
        let message = format!("Rate limits refused {} account requests of the last minutes.", sum.rate_limited);
        add(Severity::Warning, Area::Refused, "cognitoauthzguessing", message);
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}

#[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
fn per_second(count: u64, window: &Window) -> f64 {
    count as f64 / window.covered.as_secs_f64().max(60.0)
}

/// Text of a time in seconds, in its two largest units.
fn words(seconds: f64) -> String {
    let seconds = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min"),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::Counts;
    use super::*;
    use crate::metrics::readings::Buckets;

    fn window(length: u64, change: impl FnOnce(&mut Counts)) -> Window {
        let length = Duration::from_secs(length);
        let mut sum = Counts { allowed: 1000, refused: vec![0; Denial::ALL.len()], ..Counts::default() };
        change(&mut sum);
        Window { length, covered: length, sum, steps: Vec::new() }
    }

    fn quiet<'w>(five_minutes: &'w Window, hour: &'w Window) -> Facts<'w> {
        Facts {
            pending: Vec::new(),
            is_shutting_down: false,
            pools: vec![PoolFacts { name: "main".into(), keys: 2, fetched: Some(Duration::from_secs(900)) }],
            reload_errors: Vec::new(),
            five_minutes,
            hour,
            certificates: vec![("grpc".into(), 30.0 * 86400.0)],
            has_lost_store: false,
            capacities: vec![(Capacity::Revocations, 10.0, 1000.0), (Capacity::OpenFiles, 100.0, 1024.0)],
        }
    }

    /// Severities and places of what is found after these changes.
    fn found(change: impl FnOnce(&mut Facts<'_>), counts: impl Fn(&mut Counts)) -> Vec<(Severity, String)> {
        let (five, hour) = (window(300, &counts), window(3600, &counts));
        let mut facts = quiet(&five, &hour);
        change(&mut facts);
        let found = findings(&facts);
        let places = found.iter().map(|finding| finding.see.rsplit('#').next().unwrap().to_owned());
        let found = found.iter().map(|finding| finding.severity).zip(places);
        found.collect()
    }

    fn refuse(denial: Denial, times: u64) -> impl Fn(&mut Counts) {
        move |counts| counts.refused[denial as usize] = times
    }

    #[test]
    fn a_healthy_instance_has_no_findings() {
        assert_eq!(found(|_| {}, |_| {}), []);
        assert_eq!(found(|_| {}, refuse(Denial::MissingCredential, 5000)), [], "scanners");
        assert_eq!(found(|_| {}, refuse(Denial::Expired, 200)), []);
    }

    #[test]
    fn each_condition_is_found() {
        use Severity::{Critical, Notice, Warning};
        let at = |severity, place: &str| vec![(severity, place.to_owned())];
        assert_eq!(found(|facts| facts.is_shutting_down = true, |_| {}), at(Notice, "shutdown"));
        assert_eq!(found(|facts| facts.pending = vec!["keys".into()], |_| {}), at(Critical, "cognitoauthznokeys"));
        assert_eq!(found(|facts| facts.pools[0].keys = 0, |_| {}), at(Critical, "cognitoauthznokeys"));
        let aged =
            |hours: u64| found(|facts| facts.pools[0].fetched = Some(Duration::from_secs(hours * 3600 + 1)), |_| {});
        assert_eq!(aged(1), at(Warning, "cognitoauthzkeysnotrefreshed"));
        assert_eq!(aged(6), at(Critical, "cognitoauthzkeysstale"));
        assert_eq!(found(|_| {}, refuse(Denial::KeysUnavailable, 5)), at(Warning, "cognitoauthzerrors"));
        assert_eq!(found(|_| {}, refuse(Denial::KeysUnavailable, 50)), at(Critical, "cognitoauthzerrors"));
        assert_eq!(found(|_| {}, refuse(Denial::Expired, 300)), at(Warning, "cognitoauthzdenialsjumped"));
        let slow = |counts: &mut Counts| counts.durations = Buckets { bounds: vec![0.1, 0.25], counts: vec![9, 1, 0] };
        assert_eq!(found(|_| {}, slow), at(Warning, "cognitoauthzslow"));
        assert_eq!(found(|_| {}, |counts| counts.shadow = 1), at(Notice, "cognitoauthzshadowdenials"));
        assert_eq!(found(|_| {}, |counts| counts.failed_fetches = 1), at(Warning, "cognitoauthzkeyfetchesfail"));
        assert_eq!(found(|_| {}, |counts| counts.unknown_kids = 2000), at(Warning, "cognitoauthzunknownkeyflood"));
        let calls = |failed, throttled| {
            move |counts: &mut Counts| {
                counts.cognito_calls = 100;
                counts.failed_cognito_calls = failed;
                counts.throttled_cognito_calls = throttled;
            }
        };
        assert_eq!(found(|_| {}, calls(5, 0)), []);
        assert_eq!(found(|_| {}, calls(6, 0)), at(Critical, "cognitoauthzcognitofails"));
        assert_eq!(found(|_| {}, calls(0, 50)), at(Warning, "cognitoauthzcognitothrottles"));
        assert_eq!(found(|_| {}, |counts| counts.rate_limited = 400), at(Warning, "cognitoauthzguessing"));
        let error = |facts: &mut Facts<'_>| facts.reload_errors = vec!["policy.yaml: no".into()];
        assert_eq!(found(error, |_| {}), at(Warning, "cognitoauthzpolicynotreloaded"));
        let expires = |days: f64| found(|facts| facts.certificates[0].1 = days * 86400.0, |_| {});
        assert_eq!(expires(7.1), []);
        assert_eq!(
            (expires(6.9), expires(0.9), expires(-1.0)),
            (at(Warning, "tls"), at(Critical, "tls"), at(Critical, "tls"))
        );
        assert_eq!(found(|facts| facts.has_lost_store = true, |_| {}), at(Critical, "cognitoauthzrevocationstorelost"));
        assert_eq!(
            found(|_| {}, |counts| counts.lost_revocations = 1),
            at(Warning, "cognitoauthzrevocationsnotwritten")
        );
        assert_eq!(
            found(|facts| facts.capacities[0].1 = 801.0, |_| {}),
            at(Warning, "cognitoauthzrevocationsnearlyfull")
        );
        assert_eq!(found(|facts| facts.capacities[1].1 = 1000.0, |_| {}), at(Warning, "sizing"));
    }

    #[test]
    fn every_place_is_a_heading_and_every_limit_is_that_of_the_alert() {
        let read = |path: &str| std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let code = include_str!("findings.rs").split("#[cfg(test)]").next().unwrap().to_owned();
        let headings = read("docs/alerts.md").to_lowercase();
        let mut places = 0;
        for place in code.split('"').filter(|text| text.starts_with("cognitoauthz")) {
            assert!(headings.contains(&format!("# {place}\n")), "docs/alerts.md has no {place}");
            places += 1;
        }
        assert!(places > 10, "{places}");
        let mut places = 0;
        for place in code.split('"').filter(|text| text.starts_with("docs/operations")) {
            let (page, anchor) = place.split_once('#').unwrap();
            assert!(read(page).to_lowercase().contains(&format!("## {anchor}\n")), "{page} has no {anchor}");
            places += 1;
        }
        assert_eq!(places, 3);
        let rules = read("charts/cognito-authz/files/rules.yaml");
        assert!(rules.contains("> 0.125") && rules.contains("> 3600") && rules.contains("> 21600"));
        assert!(rules.contains("broken|circuit_open|connect|failed|nonsense|timeout") && rules.contains("> 0.8"));
    }

    #[test]
    fn times_have_two_units() {
        for (seconds, text) in
            [(59.0, "0 min"), (61.0, "1 min"), (3660.0, "1 h 1 min"), (90_000.0, "1 d 1 h"), (-1.0, "0 min")]
        {
            assert_eq!(words(seconds), text);
        }
    }
}
