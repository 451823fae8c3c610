//! Large policy files. The requests of the benchmark match the last route, which requires a group.

use std::ops::Range;

/// Returns a policy file with this number of routes.
pub(crate) fn with_routes(count: usize) -> String {
    let routes = each(1..count, |number| match number % 2 {
        0 => format!("- {{host: t{number}.example, path_prefix: /, policy: members}}\n"),
        _ => format!("- {{path_prefix: /tenants/t{number}, policy: members}}\n"),
    });
    format!("{}{routes}{MATCHING}", head(""))
}

/// Returns a policy file with this number of pools, beside the one of the options, and a policy and a route for each.
/// `keys` is the URL of their keys.
pub(crate) fn with_pools(count: usize, keys: &str) -> String {
    let pools = each(0..count, |number| {
        format!("  p{number}: {{user_pool_id: eu-west-1_Pool{number}, client_ids: any, jwks_url: '{keys}'}}\n")
    });
    let policies = each(0..count, |number| format!("  only{number}: {{pools: [p{number}]}}\n"));
    let routes =
        each(0..count, |number| format!("- {{host: t{number}.example, path_prefix: /, policy: only{number}}}\n"));
    format!("pools:\n{pools}{}{routes}{MATCHING}", head(&policies))
}

fn each(numbers: Range<usize>, write: impl Fn(usize) -> String) -> String {
    numbers.map(write).collect::<Vec<_>>().concat()
}

const MATCHING: &str = "- {method: GET, path: '/v1/orders/{id}', policy: readers}\n";

/// Start of a file, up to its routes.
fn head(policies: &str) -> String {
    let policies = format!("  members: {{}}\n  readers: {{groups: {{any: [editors]}}}}\n{policies}");
    format!("default: members\npolicies:\n{policies}routes:\n")
}
