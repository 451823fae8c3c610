//! The configuration: its warnings, which `serve` only logs, and a summary.

use super::Report;
use crate::config::Config;

/// Adds the warnings about the configuration. It has no errors: a command with one does not start.
pub(super) fn examine(config: &Config, report: &mut Report) {
    let policy = &config.policy;
    let count = |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let pools = count(policy.pools.len(), "pool", "pools");
    let policies = count(policy.policies.iter().len(), "policy", "policies");
    let routes = count(policy.policies.routes().iter().len(), "route", "routes");
    report.ok("configuration", format!("{pools}, {policies}, {routes}"));
    for warning in &config.warnings {
        report.warning("configuration", sentence(warning), "", "");
    }
}

fn sentence(text: &str) -> String {
    if text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
}
