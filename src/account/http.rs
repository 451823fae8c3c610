//! HTTP side of the account API: routes, CORS, cookies, responses, and the metrics and log line of a request. It knows
//! no operation: [`Service`] runs them.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{self, HeaderMap, HeaderValue};
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
use super::openapi;
use super::protected_resources::{self, Asked, ProtectedResourceRoutes};
use super::settings::Settings;
use super::table::{Row, rows};
use super::token_transport::TokenTransport;
use super::traced;
use crate::authz::{Authorizer, Ruleset};
use crate::cognito::CognitoClient;
use crate::metrics::account::AccountMetrics;
use crate::net::http_server::{Answer, RequestBody};
use crate::net::occasional::Occasional;
use crate::request_id::{self, RequestId};
use crate::revocation::Revocations;
use crate::telemetry::{Tracer, current};

/// Path of the `OpenAPI` document below the prefix.
pub(super) const OPENAPI_PATH: &str = "/openapi.json";
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
    /// Requests that CORS refused.
    refused_origins: Mutex<Occasional>,
    /// `None` if traces are off.
    tracer: Option<Arc<Tracer>>,
}

/// Id of a request, and the time at which it arrived.
struct Arrival {
    id: RequestId,
    time: Instant,
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
        tracer: Option<Arc<Tracer>>,
    ) -> Arc<Self> {
        let challenge = HeaderValue::from_str(&format!("Bearer realm=\"{}\"", settings.realm));
        let service = Service::new(Context::new(settings, client, authorizer, revocations, metrics));
        let settings = &service.context.settings;
        let openapi = |resources: bool| Bytes::from(openapi::document(settings, resources));
        Arc::new(Self {
            openapi: openapi(false),
            openapi_with_resources: openapi(true),
            protected_resources: ProtectedResourceRoutes::default(),
            challenge: challenge.unwrap_or(HeaderValue::from_static("Bearer")),
            refused_origins: Mutex::default(),
            service,
            tracer,
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

    /// Handles a request from `peer` (`None` for a Unix socket). The response has the request's id.
    pub(crate) async fn answer(&self, request: Request<RequestBody>, peer: Option<IpAddr>) -> Answer {
        let arrival = Arrival { id: RequestId::of(request.headers()), time: Instant::now() };
        let _running = self.context().metrics.begun();
        let (parts, body) = request.into_parts();
        let span = self.tracer.as_ref().and_then(|tracer| tracer.begin_request(&parts.method, &parts.headers));
        let work = async {
            let mut response = self.answer_arrival(parts, body, peer, &arrival).await;
            response.headers_mut().insert(request_id::NAME, arrival.id.header_value());
            traced::answered(response.status().as_u16());
            response
        };
        current::within(span, arrival.id.clone().scope(work)).await
    }

    async fn answer_arrival(&self, parts: Parts, body: RequestBody, peer: Option<IpAddr>, arrival: &Arrival) -> Answer {
        match self.area(parts.uri.path()) {
            Area::Resources(route, rules) => {
                let asked = Asked { method: &parts.method, uri: &parts.uri, headers: &parts.headers, body, peer };
                self.answer_public(route, &rules, asked, arrival).await
            }
            Area::Navigation(browser, place) => self.answer_navigation(browser, place, &parts, peer, arrival).await,
            Area::Operations => self.answer_operation(&parts, body, peer, arrival).await,
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
    async fn answer_operation(
        &self,
        parts: &Parts,
        body: RequestBody,
        peer: Option<IpAddr>,
        arrival: &Arrival,
    ) -> Answer {
        let settings = &self.context().settings;
        let path = settings.prefix.strip(parts.uri.path()).unwrap_or_default();
        let Route { endpoint, name, methods } = self.route(path, &parts.method);
        if !methods.is_empty()
            && cors::is_preflight(&parts.method, &parts.headers)
            && !settings.cors.allows(&parts.headers)
        {
            self.log_refused_origin(&parts.headers, &arrival.id);
        }
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
                self.context().metrics.answered(name, SUCCESS, arrival.time.elapsed().as_secs_f64());
                traced::record(&settings.prefix, name, SUCCESS);
                let has_resources = !self.context().authorizer.rules().resources.is_empty();
                let document = if has_resources { &self.openapi_with_resources } else { &self.openapi };
                let mut response = response(200, document.clone());
                settings.cors.apply(&parts.headers, &mut response, None);
                return response;
            }
            None if methods.is_empty() => Err(AccountError::not_found(format!(
                "There is nothing at this path. `GET {}{OPENAPI_PATH}` lists every path.",
                settings.prefix.as_str()
            ))),
            None => Err(AccountError::method_not_allowed(&methods)),
        };
        let cookies = transport.pack(row, &mut result);
        if result.as_ref().is_err_and(|error| error.code == Code::CrossSite) {
            self.log_refused_origin(&parts.headers, &arrival.id);
        }
        let mut response = self.response(name, result, &methods, arrival);
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
        arrival: &Arrival,
    ) -> Answer {
        if cors::is_preflight(asked.method, asked.headers) {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NO_CONTENT;
            cors::allow_all(&mut response, Some(HeaderValue::from_static(route.methods())));
            return response;
        }
        let result = self.protected_resources.answer(&self.service.context, rules, route, asked).await;
        let mut response = self.response(route.name(), result, route.methods(), arrival);
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
        arrival: &Arrival,
    ) -> Answer {
        let Shown { response, outcome } = if place.takes(&request.method) {
            browser.answer(place, request, &self.context().address(&request.headers, peer), &arrival.id).await
        } else {
            let error = AccountError::method_not_allowed(place.methods());
            let response = self.error_response(&error, place.methods(), &arrival.id);
            Shown { response, outcome: error.code.as_str() }
        };
        self.record(place.name(), response.status().as_u16(), outcome, arrival);
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

    /// Counts and logs a request with this result, and makes the response. `methods` are those of the path.
    fn response(
        &self,
        operation: &'static str,
        result: Result<Reply, AccountError>,
        methods: &str,
        arrival: &Arrival,
    ) -> Answer {
        match result {
            Ok(mut reply) => {
                self.record(operation, reply.status, reply.outcome, arrival);
                if reply.status >= 400
                    && let Some(body) = reply.body.as_object_mut()
                {
                    body.insert("request_id".into(), arrival.id.as_str().into());
                }
                response(reply.status, reply.body.to_string())
            }
            Err(error) => {
                self.record(operation, error.status, error.code.as_str(), arrival);
                self.error_response(&error, methods, &arrival.id)
            }
        }
    }

    /// Counts and logs a request.
    fn record(&self, operation: &'static str, status: u16, outcome: &'static str, arrival: &Arrival) {
        let took = arrival.time.elapsed();
        self.context().metrics.answered(operation, outcome, took.as_secs_f64());
        traced::record(&self.context().settings.prefix, operation, outcome);
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let request_id = arrival.id.as_str();
        match status {
            ..400 => tracing::debug!(operation, outcome, status, request_id, duration_ms, "account request"),
            400..500 => tracing::info!(operation, outcome, status, request_id, duration_ms, "account request"),
            _ => tracing::warn!(operation, outcome, status, request_id, duration_ms, "account request"),
        }
    }

    /// Logs that a page of another origin was refused, at most once per minute: any client can send such requests.
    fn log_refused_origin(&self, headers: &HeaderMap, id: &RequestId) {
        let count = self.refused_origins.lock().unwrap_or_else(PoisonError::into_inner).count();
        if let Some(refused) = count {
            let (origin, request_id) = (cors::shown_origin(headers), id.as_str());
            tracing::info!(origin, refused, request_id, "the origin of a page is not listed in --cors-origins");
        }
    }

    fn error_response(&self, error: &AccountError, methods: &str, id: &RequestId) -> Answer {
        let (message, code) = (&error.message, error.code.as_str());
        let mut body = json!({"message": message, "code": code, "request_id": id.as_str()});
        if let (Some(field), Some(body)) = (error.field, body.as_object_mut()) {
            body.insert("field".into(), field.into());
        }
        let mut response = response(error.status, body.to_string());
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
