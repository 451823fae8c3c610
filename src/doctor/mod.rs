//! The command `cognito-authz doctor`: looks for what does not fit together in the configuration, in the environment,
//! in Envoy's configuration and, with `--online`, at Cognito. It never prints a secret, and changes nothing.
//!
//! Start from [`examine`]. Each file of this folder looks at one of these, and adds its [`Finding`]s to the [`Report`].

mod cognito;
mod configuration;
mod environment;
mod envoy;
mod hosted;
mod http;

pub use self::cognito::{PoolKeys, keys};
use serde_json::{Value, json};

use crate::config::{Config, Examination};

/// Weight of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Requests fail, or pass unchecked.
    Error,
    /// A setting has no effect or a risk, or could not be examined.
    Warning,
    /// It fits.
    Ok,
}

impl Severity {
    /// Name in the output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Ok => "ok",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Weight.
    pub severity: Severity,
    /// Part that was examined, such as `pool main` or `envoy.yaml`.
    pub place: String,
    /// Observation.
    pub what: String,
    /// Its effect; empty if `what` says it.
    pub why: String,
    /// Way to mend it; empty if there is nothing to mend.
    pub fix: String,
}

/// Result of the command.
#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Findings, in the order in which the parts were examined.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// `true` if a finding is an error.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    fn add(&mut self, severity: Severity, place: &str, [what, why, fix]: [String; 3]) {
        let place = place.to_owned();
        // Values of files and of the network can contain anything; a finding stays one line of plain text.
        let [what, why, fix] = [what, why, fix].map(|text| one_line(&text));
        self.findings.push(Finding { severity, place: one_line(&place), what, why, fix });
    }

    fn error(&mut self, place: &str, what: impl Into<String>, why: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Error, place, [what.into(), why.into(), fix.into()]);
    }

    fn warning(&mut self, place: &str, what: impl Into<String>, why: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Warning, place, [what.into(), why.into(), fix.into()]);
    }

    fn ok(&mut self, place: &str, what: impl Into<String>) {
        self.add(Severity::Ok, place, [what.into(), String::new(), String::new()]);
    }

    /// Formats the report as text: one line for each finding, and a summary.
    pub fn to_text(&self) -> String {
        let line = |finding: &Finding| {
            let Finding { severity, place, what, why, fix } = finding;
            let sentences: Vec<&str> =
                [what, why, fix].into_iter().map(|text| &**text).filter(|text| !text.is_empty()).collect();
            format!("{:<8} {place}: {}\n", severity.as_str(), sentences.join(" "))
        };
        let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        let lines: String = self.findings.iter().map(line).collect();
        let errors = plural(self.count(Severity::Error), "error");
        let warnings = plural(self.count(Severity::Warning), "warning");
        format!("{lines}{errors}, {warnings}\n")
    }

    /// Formats the report as JSON.
    pub fn to_json(&self) -> String {
        let findings: Vec<Value> = self.findings.iter().map(Finding::to_value).collect();
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        format!("{:#}\n", json!({"findings": findings, "errors": errors, "warnings": warnings}))
    }
}

impl Finding {
    fn to_value(&self) -> Value {
        let Self { severity, place, what, why, fix } = self;
        json!({"severity": severity.as_str(), "place": place, "what": what, "why": why, "fix": fix})
    }
}

/// Longest text of a finding, in characters.
const MAX_CHARS: usize = 500;

fn one_line(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = plain.take(MAX_CHARS).collect();
    if text.chars().count() > MAX_CHARS {
        line.push('…');
    }
    line
}

/// Examines everything that `examination` asks for. Only with `online` it uses the network; each request ends within
/// five seconds.
pub async fn examine(config: &Config, examination: &Examination) -> Report {
    let mut report = Report::default();
    configuration::examine(config, &mut report);
    environment::examine(&examination.unread, &mut report);
    for file in &examination.envoy {
        envoy::examine(file, config, &mut report);
    }
    if examination.online {
        cognito::examine(config, &mut report).await;
    } else {
        report.ok("network", "not used; --online examines Cognito and the clock as well");
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line() {
        let mut report = Report::default();
        report.warning("a\nb", "It is\u{1b}[2J so.", "", "Change it.");
        report.error("c", "x".repeat(600), "", "");
        report.ok("d", "fits");
        let text = report.to_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "warning  a b: It is [2J so. Change it.");
        assert_eq!(lines[1].chars().count(), "error    c: ".len() + MAX_CHARS + 1);
        assert_eq!(lines[2..], ["ok       d: fits", "1 error, 1 warning"]);
        assert!(report.has_errors());
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!((&json["errors"], &json["findings"][0]["fix"]), (&json!(1), &json!("Change it.")));
    }
}
