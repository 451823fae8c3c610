//! Limit on file descriptors, and its division between the ports.
//!
//! Each connection takes a descriptor. Without a division, clients of the account API could take all of them, and
//! neither checks nor probes would be accepted any more.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit on open files of this process to its hard limit, and returns the limit in effect.
///
/// # Errors
/// If the kernel refuses. The limit then stays as it is.
pub fn raise_limit() -> io::Result<usize> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(limit())
}

/// Returns the limit in effect.
pub(crate) fn limit() -> usize {
    let current = getrlimit(Resource::Nofile).current;
    current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Parts of the program that need descriptors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Configured maximum number of connections of the gRPC port.
    pub(crate) grpc: usize,
    /// Number of threads that serve checks.
    pub(crate) threads: usize,
    /// Number of user pools.
    pub(crate) pools: usize,
    /// `true` if the account API is enabled.
    pub(crate) account: bool,
    /// `true` if the HTTP form of the check is served.
    pub(crate) http: bool,
}

/// Maximum number of simultaneous connections of each port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    pub(crate) grpc: usize,
    pub(crate) admin: usize,
    /// 0 if the account API is disabled.
    pub(crate) account: usize,
    /// HTTP form of the check; 0 if it is not served.
    pub(crate) http: usize,
    /// `false` if the limit is too low even for the minimum of each port.
    pub(crate) is_enough: bool,
}

/// Maximum of the admin port, which only operators and their tools use.
const MAX_ADMIN: usize = 256;
/// Maximum of the account API.
const MAX_ACCOUNT: usize = 4096;
/// Maximum of the HTTP form of the check.
const MAX_CHECKS: usize = 4096;
/// Minimum of a port, which it gets even if the limit is too low.
const MIN_GRPC: usize = 64;
const MIN_HTTP: usize = 16;

/// Divides `limit`, in this order: the program's own files, the admin port, the HTTP form of the check, which gets a
/// quarter of the rest, the gRPC port, which gets half of what is left then if it wants it, and the account API. A connection of the account API counts twice, because it can cause one to
/// Cognito.
pub(crate) fn share(limit: usize, wanted: Wanted) -> Shares {
    // Files, listeners, runtimes and their pipes, DNS queries, key fetches.
    let own = 128 + 4 * wanted.threads + 2 * wanted.pools;
    let rest = limit.saturating_sub(own);
    let admin = (rest / 8).clamp(MIN_HTTP, MAX_ADMIN);
    let rest = rest.saturating_sub(admin);
    let http = if wanted.http { (rest / 4).clamp(MIN_HTTP, MAX_CHECKS) } else { 0 };
    let rest = rest.saturating_sub(http);
    let min_grpc = MIN_GRPC.min(wanted.grpc);
    let (grpc, account) = if wanted.account {
        let first = wanted.grpc.min(rest / 2).max(min_grpc);
        let account = (rest.saturating_sub(first) / 2).clamp(MIN_HTTP, MAX_ACCOUNT);
        (wanted.grpc.min(rest.saturating_sub(2 * account)).max(min_grpc), account)
    } else {
        (wanted.grpc.min(rest).max(min_grpc), 0)
    };
    Shares { grpc, admin, account, http, is_enough: own + admin + http + grpc + 2 * account <= limit }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WANTED: Wanted = Wanted { grpc: 10_000, threads: 2, pools: 1, account: true, http: false };

    #[test]
    fn a_high_limit_gives_every_port_its_maximum() {
        for limit in [20_000, 1 << 20, usize::MAX] {
            let expected = Shares { grpc: 10_000, admin: 256, account: 4096, http: 0, is_enough: true };
            assert_eq!(share(limit, WANTED), expected, "{limit}");
        }
    }

    #[test]
    fn a_common_low_limit_is_divided() {
        assert_eq!(share(1024, WANTED), Shares { grpc: 388, admin: 110, account: 194, http: 0, is_enough: true });
        let few = Wanted { grpc: 100, ..WANTED };
        assert_eq!(share(1024, few), Shares { grpc: 100, admin: 110, account: 338, http: 0, is_enough: true });
        let none = Wanted { account: false, ..WANTED };
        assert_eq!(share(1024, none), Shares { grpc: 776, admin: 110, account: 0, http: 0, is_enough: true });
        let http = Wanted { http: true, ..WANTED };
        assert_eq!(share(1024, http), Shares { grpc: 292, admin: 110, account: 145, http: 194, is_enough: true });
        assert!(!share(200, WANTED).is_enough);
    }

    proptest! {
        #[test]
        fn shares_never_exceed_the_limit(
            limit in 0_usize..100_000, grpc in 1_usize..20_000, threads in 1_usize..64, pools in 0_usize..50,
            account: bool, http: bool,
        ) {
            let wanted = Wanted { grpc, threads, pools, account, http };
            let shares = share(limit, wanted);
            let all = 128 + 4 * threads + 2 * pools + shares.grpc + shares.admin + shares.http + 2 * shares.account;
            prop_assert_eq!(shares.is_enough, all <= limit);
            prop_assert!(shares.is_enough || limit < 128 + 4 * threads + 2 * pools + 64 + 32 + 32 + 32 + 32);
            prop_assert!(shares.grpc <= grpc && shares.grpc >= grpc.min(64));
            prop_assert!(shares.admin >= 16 && (shares.account >= 16) == account);
            prop_assert_eq!(shares.http >= 16, http);
        }
    }
}
