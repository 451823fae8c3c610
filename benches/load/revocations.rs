//! Large numbers of revocations.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use cognito_authz::metrics::Metrics;
use cognito_authz::revocation::{Keep, Revocations, Settings};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::process::post;
use crate::token::{POOL, unix_now};

/// Number of revocations that wait for the disk at once.
const AT_ONCE: usize = 10_000;

/// Id of a user who has no token in the benchmark.
fn other_user(number: usize) -> String {
    format!("{number:08}-0000-4000-8000-000000000000")
}

/// Writes a file for `--revocation-file` with this number of revoked users. The program's own library writes it: through
/// the admin port, which takes one revocation a request, a million would take minutes.
pub(crate) fn write_file(path: &Path, count: usize) -> Result<()> {
    let metrics = Metrics::new().and_then(|metrics| metrics.revocation()).context("metrics")?;
    let settings = Settings { keep: Keep::File(path.to_owned()), capacity: count, life: 24 * 3600 };
    let revocations = Arc::new(Revocations::open(settings, metrics)?);
    let pool = POOL.parse().ok().context("the pool's id")?;
    let pool = Arc::new(pool);
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        for start in (0..count).step_by(AT_ONCE) {
            let mut writes = JoinSet::new();
            for number in start..count.min(start + AT_ONCE) {
                let (revocations, pool) = (Arc::clone(&revocations), Arc::clone(&pool));
                writes.spawn(async move { revocations.revoke_user(&pool, &other_user(number), unix_now()).await });
            }
            while let Some(written) = writes.join_next().await {
                written??;
            }
        }
        Ok(())
    })
}

/// Revokes this number of users at the admin port of a running program.
pub(crate) fn revoke(admin: &Path, token: &str, count: usize) -> Result<()> {
    for number in 0..count {
        let answer = post(admin, "/revocations", token, &format!("{{\"sub\":\"{}\"}}", other_user(number)))?;
        ensure!(answer.contains("\"shared\""), "a revocation is not in the store: {answer}");
    }
    Ok(())
}
