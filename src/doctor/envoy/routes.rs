//! Routes around a filter: the ones that do not ask the service, and those that name a policy.

use serde_json::Value;

use super::matcher::{any_matches, matches};
use super::needs::Needs;
use super::places::{Clusters, Filter};
use super::{Report, at, get, is_type, items};
use crate::nearest::did_you_mean;

/// Most routes that one finding names.
const MAX_NAMED: usize = 3;

/// Route, with the settings of `ext_authz` in effect for it.
struct Route<'v> {
    name: String,
    /// Message `Route`.
    message: &'v Value,
    /// `ExtAuthzPerRoute` of the route, else of its virtual host, else of the route configuration.
    settings: Option<&'v Value>,
}

impl Route<'_> {
    /// `true` if the filter is off for the route.
    fn is_unasked(&self) -> bool {
        self.settings.and_then(|settings| get(settings, "disabled")).and_then(Value::as_bool) == Some(true)
    }
}

/// Examines the routes of the connection manager that has the filter.
pub(super) fn examine(
    place: &str,
    filter: &Filter<'_>,
    manager: &Value,
    clusters: &Clusters<'_>,
    needs: &Needs,
    report: &mut Report,
) {
    let routes = routes(manager);
    policies(place, &routes, needs, report);
    bodies(place, filter, &routes, needs, report);
    if filter.is_partial {
        return;
    }
    let exposed: Vec<&str> =
        needs.identity.iter().map(String::as_str).filter(|name| !is_stripped(manager, name)).collect();
    let leads_to_application = |route: &&Route<'_>| {
        let action = get(route.message, "route");
        let cluster = action.and_then(|action| get(action, "cluster")?.as_str()).unwrap_or_default();
        let is_account = clusters.is_account(cluster, &needs.account_ports) || is_below(route.message, needs);
        action.is_some() && !is_account
    };
    let unasked: Vec<&str> = routes
        .iter()
        .filter(|route| route.is_unasked())
        .filter(leads_to_application)
        .map(|route| &*route.name)
        .collect();
    if let (Some(first), false) = (exposed.first(), unasked.is_empty()) {
        let more = if unasked.len() > MAX_NAMED { ", …" } else { "" };
        let named = unasked.iter().take(MAX_NAMED).copied().collect::<Vec<_>>().join(", ");
        report.error(
            place,
            format!("Routes that do not ask the service ({named}{more}) pass on a client's {first}."),
            "The application takes it for a verified identity.",
            "Remove the identity headers in early_header_mutation_extensions, in every spelling (deploy/envoy/envoy.yaml).",
        );
    }
    lookalikes(place, filter, manager, needs, report);
}

/// Routes of the file. Those of RDS are not in it.
fn routes(manager: &Value) -> Vec<Route<'_>> {
    let Some(config) = get(manager, "route_config") else { return Vec::new() };
    let mut found = Vec::new();
    for host in items(config, "virtual_hosts") {
        let of_host = per_route(host).or_else(|| per_route(config));
        for (index, route) in items(host, "routes").enumerate() {
            let name = get(route, "name").and_then(Value::as_str);
            let path = ["prefix", "path", "path_separated_prefix"];
            let path = path.iter().find_map(|form| at(route, &["match", form])?.as_str());
            let name = name.or(path).map_or_else(|| format!("routes[{index}]"), str::to_owned);
            found.push(Route { name, message: route, settings: per_route(route).or(of_host) });
        }
    }
    found
}

/// Settings of `ext_authz`, for a route or a virtual host.
fn per_route(value: &Value) -> Option<&Value> {
    let settings = get(value, "typed_per_filter_config")?.as_object()?;
    settings.iter().find_map(|(name, settings)| {
        let wrapped = get(settings, "config").filter(|config| is_type(config, "ExtAuthzPerRoute"));
        let is_ours = is_type(settings, "ExtAuthzPerRoute") || wrapped.is_some() || name.ends_with("ext_authz");
        is_ours.then(|| wrapped.unwrap_or(settings))
    })
}

/// `true` if a route leads to the account API by its path.
fn is_below(route: &Value, needs: &Needs) -> bool {
    let Some(prefix) = &needs.account_prefix else { return false };
    let forms = ["prefix", "path", "path_separated_prefix"];
    let paths = forms.iter().filter_map(|form| at(route, &["match", form])?.as_str());
    paths.into_iter().any(|path| path == prefix || path.starts_with(&format!("{prefix}/")))
}

/// `true` if the manager removes a request header before routes are chosen and filters run, or with its routes.
fn is_stripped(manager: &Value, name: &str) -> bool {
    let early =
        items(manager, "early_header_mutation_extensions").filter_map(|extension| get(extension, "typed_config"));
    let filters = items(manager, "http_filters").filter_map(|filter| get(filter, "typed_config"));
    // A filter after ext_authz would remove the headers that the service sets.
    let filters = filters.take_while(|config| !is_type(config, "ExtAuthz"));
    let is_removed = |mutation: &Value| {
        let by_name =
            get(mutation, "remove").and_then(Value::as_str).is_some_and(|removed| removed.eq_ignore_ascii_case(name));
        by_name || at(mutation, &["remove_on_match", "key_matcher"]).is_some_and(|matcher| matches(matcher, name))
    };
    let mutations = early.flat_map(|config| items(config, "mutations"));
    let of_filters = filters.flat_map(|config| {
        get(config, "mutations").into_iter().flat_map(|mutations| items(mutations, "request_mutations"))
    });
    mutations.chain(of_filters).any(is_removed)
}

/// Other spellings of an identity header, such as `x_auth_sub`, have to be removed, rejected, or sent to the service.
fn lookalikes(place: &str, filter: &Filter<'_>, manager: &Value, needs: &Needs, report: &mut Report) {
    let Some(name) = needs.identity.first() else { return };
    let spelled = name.replacen('-', "_", 1);
    let action = at(manager, &["common_http_protocol_options", "headers_with_underscores_action"]);
    let is_rejected = action.and_then(Value::as_str).is_some_and(|action| action != "ALLOW");
    let is_sent = get(filter.config, "allowed_headers").is_none_or(|allowed| any_matches(allowed, &spelled));
    if !is_rejected && !is_sent && !is_stripped(manager, &spelled) {
        report.warning(
            place,
            format!("A client's {spelled} reaches the application."),
            format!("An application of the CGI kind reads it as {name}; the service removes only what it receives."),
            "Set headers_with_underscores_action: REJECT_REQUEST, or send every spelling in allowed_headers (deploy/envoy/envoy.yaml).",
        );
    }
}

fn policies(place: &str, routes: &[Route<'_>], needs: &Needs, report: &mut Report) {
    for route in routes {
        let named =
            route.settings.and_then(|settings| at(settings, &["check_settings", "context_extensions", "policy"]));
        let Some(named) = named.and_then(Value::as_str) else { continue };
        if named != "default" && !needs.policies.iter().any(|policy| policy == named) {
            let suggestion = did_you_mean(named, needs.policies.iter().map(|policy| &**policy));
            let end = if suggestion.0.is_some() { "" } else { "." };
            report.error(
                place,
                format!("The route {} names the policy {named}, which does not exist{suggestion}{end}", route.name),
                "Every request of the route is refused (403 unknown_policy).",
                format!("Add the policy to the file of --config, or name one of {}.", needs.policies.join(", ")),
            );
        }
    }
}

fn bodies(place: &str, filter: &Filter<'_>, routes: &[Route<'_>], needs: &Needs, report: &mut Report) {
    let of_routes = routes.iter().filter_map(|route| at(route.settings?, &["check_settings", "with_request_body"]));
    let all: Vec<&Value> = get(filter.config, "with_request_body").into_iter().chain(of_routes).collect();
    let max = all.iter().filter_map(|body| get(body, "max_request_bytes")?.as_u64()).max();
    if let Some(max) = max.filter(|max| usize::try_from(*max).is_ok_and(|max| max >= needs.max_message_bytes)) {
        report.error(
            place,
            format!("max_request_bytes is {max}, and a check may have {} bytes.", needs.max_message_bytes),
            "Checks with larger bodies fail.",
            "Raise --grpc-max-message-bytes, or lower max_request_bytes.",
        );
    }
    let Some(policy) = needs.reads_body.as_ref().filter(|_| all.is_empty() && !filter.is_partial) else { return };
    if filter.is_http() {
        report.error(
            place,
            format!("The policy {policy} reads bodies (`json_rpc`), and the HTTP form has none."),
            "Every request that has to have a body is refused (no_http_request).",
            "Use grpc_service instead of http_service.",
        );
    } else {
        report.error(
            place,
            format!("The policy {policy} reads bodies (`json_rpc`), and no with_request_body sends them."),
            "Every request that has to have a body is refused (no_http_request).",
            "Add with_request_body to the filter, or to check_settings of the routes of this policy.",
        );
    }
}
