//! Variables that look like settings of this program, and that it does not read.

use super::Report;
use crate::config::Unread;

/// Adds the variables that nothing reads.
pub(super) fn examine(unread: &[Unread], report: &mut Report) {
    for Unread { name, source, nearest } in unread {
        let fix = match nearest {
            Some(nearest) => format!("Rename it to {nearest}, or remove it."),
            None => "Remove it; `cognito-authz --help` lists the variables.".into(),
        };
        report.warning("environment", format!("Nothing reads {name} ({source})."), "Its value has no effect.", fix);
    }
    if unread.is_empty() {
        report.ok("environment", "every variable with the name of a setting is read");
    }
}
