//! HTTP side of the account API: routes, CORS, cookies, responses, and the metrics and log line of a request. It knows
//! no operation: [`Service`] runs them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use prost::bytes::Bytes;
use serde_json::json;
use tokio::time::Instant;

use super::Service;
use super::answer::{Reply, SUCCESS};
use super::browser::{Browser, Place, Shown};
use super::context::Context;
use super::cors;
use super::error::{AccountError, Code};
use super::oauth::{AUTHORIZE_NAME, AUTHORIZE_PATH, Oauth};
use super::openapi::{self, CookieUse, Extent};
use super::protected_resources::{self, Asked, ProtectedResourceRoutes};
use super::settings::Settings;
use super::table::{Row, rows};
use super::token_transport::TokenTransport;
use crate::authz::{Authorizer, Ruleset};
use crate::cognito::CognitoClient;
use crate::metrics::account::AccountMetrics;
use crate::net::http_server::{Answer, RequestBody};
use crate::revocation::Revocations;

/// Path of the `OpenAPI` document below the prefix.
const OPENAPI_PATH: &str = "/openapi.json";
/// Value of the label `operation` for the `OpenAPI` document.
pub(super) const OPENAPI_NAME: &str = "openapi";
/// Value of the label `operation` for unknown paths.
pub(super) const UNKNOWN: &str = "none";

/// The account API as an HTTP service.
#[derive(Debug)]
pub struct Account {
    service: Service,
    protected_resources: ProtectedResourceRoutes,
    /// The `OpenAPI` document.
    openapi: Bytes,
    /// The document if there are protected resources.
    openapi_with_resources: Bytes,
    /// Value of `WWW-Authenticate`.
    challenge: HeaderValue,
}

/// Part of the API. The parts differ in who may use them from a browser, and in the form of their responses.
enum Area<'a> {
    /// Metadata and registration, the same for every client and open to pages of every origin.
    Resources(protected_resources::Route, Arc<Ruleset>),
    /// Pages and redirects, for navigations of a browser only.
    Navigation(&'a Browser, Place),
    /// Everything else: calls of scripts and applications, for pages of the listed origins.
    Operations,
}

/// Handler of a call.
enum Endpoint<'a> {
    Operation(&'static Row),
    AuthorizeUrl(&'a Oauth),
    OpenApi,
}

/// Result of routing a call.
struct Route<'a> {
    /// Handler; `None` if the path is unknown or does not take the method.
    endpoint: Option<Endpoint<'a>>,
    /// Value of the label `operation`.
    name: &'static str,
    /// Methods of the path, for `Allow`; empty if the path is unknown.
    methods: String,
}

impl Account {
    /// Creates the account API.
    pub(crate) fn new(
        settings: Settings,
        client: CognitoClient,
        authorizer: Arc<Authorizer>,
        revocations: Arc<Revocations>,
        metrics: AccountMetrics,
    ) -> Arc<Self> {
        let challenge = HeaderValue::from_str(&format!("Bearer realm=\"{}\"", settings.realm));
        let service = Service::new(Context::new(settings, client, authorizer, revocations, metrics));
        let settings = &service.context.settings;
        let openapi = |resources: bool| {
            let cookies = match (settings.cookies, &service.browser) {
                (None, _) => CookieUse::Off,
                (Some(_), None) => CookieUse::Scripts,
                (Some(_), Some(_)) => CookieUse::Pages,
            };
            let extent = Extent { hosted_ui: settings.hosted_ui.is_some(), cookies, resources };
            Bytes::from(openapi::document(settings.prefix.as_str(), &settings.allowed, extent).to_string())
        };
        Arc::new(Self {
            openapi: openapi(false),
            openapi_with_resources: openapi(true),
            protected_resources: ProtectedResourceRoutes::default(),
            challenge: challenge.unwrap_or(HeaderValue::from_static("Bearer")),
            service,
        })
    }

    /// `true` if `path` is below the prefix of the account API, or of metadata that it serves.
    pub(crate) fn covers(&self, path: &str) -> bool {
        let prefix = &self.context().settings.prefix;
        let is_public = || protected_resources::Route::of(path, prefix).is_some();
        prefix.strip(path).is_some() || is_public() && !self.context().authorizer.rules().resources.is_empty()
    }

    fn context(&self) -> &Context {
        &self.service.context
    }

    /// Handles a request from `peer` (`None` for a Unix socket).
    pub(crate) async fn answer(&self, request: Request<RequestBody>, peer: Option<IpAddr>) -> Answer {
        let start = Instant::now();
        let _running = self.context().metrics.begun();
        let (parts, body) = request.into_parts();
        match self.area(parts.uri.path()) {
            Area::Resources(route, rules) => {
                let asked = Asked { method: &parts.method, uri: &parts.uri, headers: &parts.headers, body, peer };
                self.answer_public(route, &rules, asked, start).await
            }
            Area::Navigation(browser, place) => self.answer_navigation(browser, place, &parts, peer, start).await,
            Area::Operations => self.answer_operation(&parts, body, peer, start).await,
        }
    }

    /// Returns the part of the API that a path belongs to.
    fn area(&self, path: &str) -> Area<'_> {
        let prefix = &self.context().settings.prefix;
        if let Some(route) = protected_resources::Route::of(path, prefix) {
            let rules = self.context().authorizer.rules();
            if !rules.resources.is_empty() {
                return Area::Resources(route, rules);
            }
        }
        let below = prefix.strip(path);
        let place = Place::ALL.into_iter().find(|place| below == Some(place.path()));
        match (&self.service.browser, place) {
            (Some(browser), Some(place)) => Area::Navigation(browser, place),
            _ => Area::Operations,
        }
    }

    /// Answers a call of a script or an application, with JSON.
    async fn answer_operation(&self, parts: &Parts, body: RequestBody, peer: Option<IpAddr>, start: Instant) -> Answer {
        let settings = &self.context().settings;
        let path = settings.prefix.strip(parts.uri.path()).unwrap_or_default();
        let Route { endpoint, name, methods } = self.route(path, &parts.method);
        if !methods.is_empty() && settings.cors.is_preflight(&parts.method, &parts.headers) {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NO_CONTENT;
            settings.cors.apply(&parts.headers, &mut response, HeaderValue::from_str(&methods).ok());
            return response;
        }
        let transport = TokenTransport::new(&parts.headers, settings.cookies);
        let row = match endpoint {
            Some(Endpoint::Operation(row)) => Some(row),
            _ => None,
        };
        let mut result = match endpoint {
            Some(Endpoint::Operation(row)) => match transport.reject_cross_site(&parts.method, &settings.cors) {
                Ok(()) => {
                    let url = (path, parts.uri.query().unwrap_or_default());
                    self.service.run(row, url, &parts.headers, &transport, body, peer).await
                }
                Err(error) => Err(error),
            },
            Some(Endpoint::AuthorizeUrl(oauth)) => {
                let address = self.context().address(&parts.headers, peer);
                oauth.authorize_url(self.context(), parts.uri.query().unwrap_or_default(), &address, &transport)
            }
            Some(Endpoint::OpenApi) => {
                self.context().metrics.answered(name, SUCCESS, start.elapsed().as_secs_f64());
                let has_resources = !self.context().authorizer.rules().resources.is_empty();
                let document = if has_resources { &self.openapi_with_resources } else { &self.openapi };
                let mut response = response(200, document.clone());
                settings.cors.apply(&parts.headers, &mut response, None);
                return response;
            }
            None if methods.is_empty() => Err(AccountError::new(404, Code::NotFound)),
            None => Err(AccountError::new(405, Code::MethodNotAllowed)),
        };
        let cookies = transport.pack(row, &mut result);
        self.record_result(name, &result, start.elapsed());
        let mut response = match result {
            Ok(reply) => response(reply.status, reply.body.to_string()),
            Err(error) => self.error_response(&error, &methods),
        };
        for cookie in cookies.into_iter().filter_map(|cookie| HeaderValue::try_from(cookie).ok()) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        settings.cors.apply(&parts.headers, &mut response, None);
        response
    }

    /// Answers a request about protected resources. Every page may read the response: it is the same for every client.
    async fn answer_public(
        &self,
        route: protected_resources::Route,
        rules: &Ruleset,
        asked: Asked<'_>,
        start: Instant,
    ) -> Answer {
        if cors::is_preflight(asked.method, asked.headers) {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NO_CONTENT;
            cors::allow_all(&mut response, Some(HeaderValue::from_static(route.methods())));
            return response;
        }
        let result = self.protected_resources.answer(&self.service.context, rules, route, asked).await;
        self.record_result(route.name(), &result, start.elapsed());
        let mut response = match result {
            Ok(reply) => response(reply.status, reply.body.to_string()),
            Err(error) => self.error_response(&error, route.methods()),
        };
        cors::allow_all(&mut response, None);
        response
    }

    /// Answers a navigation with a redirect or a page. No other origin may use these routes, so CORS does not apply.
    async fn answer_navigation(
        &self,
        browser: &Browser,
        place: Place,
        request: &Parts,
        peer: Option<IpAddr>,
        start: Instant,
    ) -> Answer {
        let Shown { response, outcome } = if place.takes(&request.method) {
            browser.answer(place, request, &self.context().address(&request.headers, peer)).await
        } else {
            let error = AccountError::new(405, Code::MethodNotAllowed);
            Shown { response: self.error_response(&error, place.methods()), outcome: error.code.as_str() }
        };
        self.record(place.name(), response.status().as_u16(), outcome, start.elapsed());
        response
    }

    /// Finds the handler of a path below the prefix.
    fn route(&self, path: &str, method: &Method) -> Route<'_> {
        let oauth = self.service.oauth.as_ref();
        let rows = || rows().filter(|row| row.segment(path).is_some() && (oauth.is_some() || !row.needs_hosted_ui()));
        let read_only = |name, endpoint| {
            let is_read = [Method::GET, Method::HEAD].contains(method);
            Route { endpoint: is_read.then_some(endpoint), name, methods: join([&Method::GET].into_iter()) }
        };
        let row = rows().find(|row| row.takes(method));
        // A method that no row of the path takes counts for the first row.
        if let Some(named) = row.or_else(|| rows().next()) {
            let methods = join(rows().map(|row| &row.method));
            return Route { endpoint: row.map(Endpoint::Operation), name: named.name, methods };
        }
        match oauth.map(|oauth| &**oauth) {
            Some(oauth) if path == AUTHORIZE_PATH => read_only(AUTHORIZE_NAME, Endpoint::AuthorizeUrl(oauth)),
            _ if path == OPENAPI_PATH => read_only(OPENAPI_NAME, Endpoint::OpenApi),
            _ => Route { endpoint: None, name: UNKNOWN, methods: String::new() },
        }
    }

    /// Counts and logs a request with this result.
    fn record_result(&self, operation: &'static str, result: &Result<Reply, AccountError>, took: Duration) {
        let (status, outcome) = match result {
            Ok(reply) => (reply.status, reply.outcome),
            Err(error) => (error.status, error.code.as_str()),
        };
        self.record(operation, status, outcome, took);
    }

    /// Counts and logs a request.
    fn record(&self, operation: &'static str, status: u16, outcome: &'static str, took: Duration) {
        self.context().metrics.answered(operation, outcome, took.as_secs_f64());
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        match status {
            ..400 => tracing::debug!(operation, outcome, status, duration_ms, "account request"),
            400..500 => tracing::info!(operation, outcome, status, duration_ms, "account request"),
            _ => tracing::warn!(operation, outcome, status, duration_ms, "account request"),
        }
    }

    fn error_response(&self, error: &AccountError, methods: &str) -> Answer {
        let body = json!({"message": error.message, "code": error.code.as_str()}).to_string();
        let mut response = response(error.status, body);
        let headers = response.headers_mut();
        if let Some(seconds) = error.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        match error.status {
            401 => drop(headers.insert(header::WWW_AUTHENTICATE, self.challenge.clone())),
            405 => headers.extend(HeaderValue::from_str(methods).ok().map(|methods| (header::ALLOW, methods))),
            _ => {}
        }
        response
    }
}

/// `true` if a list of methods for `Allow` has this one.
pub(super) fn lists(methods: &str, method: &Method) -> bool {
    methods.split(", ").any(|listed| method == listed)
}

/// Joins methods for `Allow`. GET implies HEAD.
fn join<'m>(methods: impl Iterator<Item = &'m Method>) -> String {
    let methods: Vec<_> =
        methods.map(|method| if method == Method::GET { "GET, HEAD" } else { method.as_str() }).collect();
    methods.join(", ")
}

fn response(status: u16, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
