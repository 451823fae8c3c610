//! Clients of the service: Envoy's gRPC check, and HTTP requests to the admin port.

use std::collections::{BTreeMap, HashMap};

use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use envoy_types::pb::google::protobuf::value::Kind;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Connects to an address in the form that the service logs: `unix:/path` or `host:port`.
pub(crate) async fn connect(address: &str) -> Channel {
    let uri = if address.starts_with("unix:") { address.to_owned() } else { format!("http://{address}") };
    Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
}

/// Builder for a check as Envoy sends it.
#[derive(Clone)]
pub(crate) struct Ask {
    http: HttpRequest,
    /// `context_extensions`, which Envoy's route sets.
    context: HashMap<String, String>,
}

impl Ask {
    /// Starts with a GET of this path and query.
    pub(crate) fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    pub(crate) fn new(method: &str, path: &str) -> Self {
        let http =
            HttpRequest { method: method.into(), path: path.into(), host: "api.test".into(), ..Default::default() };
        Self { http, context: HashMap::new() }
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.http.host = host.into();
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.http.headers.insert(name.into(), value.into());
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Sets the body, as JSON in bytes.
    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.http.raw_body = body.to_vec();
        self.header("content-type", "application/json").header("x-envoy-auth-partial-body", "false")
    }

    /// Sets the body, as text.
    pub(crate) fn text_body(mut self, body: &str) -> Self {
        self.http.body = body.into();
        self.header("content-type", "application/json")
    }

    /// Sets the policy that Envoy's route names.
    pub(crate) fn policy(mut self, name: &str) -> Self {
        self.context.insert("policy".into(), name.into());
        self
    }

    /// Description of the request, for the messages of failed tests.
    pub(crate) fn target(&self) -> String {
        format!("{} {}{} {:?}", self.http.method, self.http.host, self.http.path, self.context)
    }

    /// Sends the check.
    pub(crate) async fn of(self, channel: &Channel) -> Answer {
        check(channel, self.into()).await.unwrap()
    }
}

impl From<Ask> for CheckRequest {
    fn from(Ask { http, context }: Ask) -> Self {
        let request = Request { http: Some(http), ..Default::default() };
        let attributes = AttributeContext { request: Some(request), context_extensions: context, ..Default::default() };
        Self { attributes: Some(attributes) }
    }
}

/// Returns the check that Envoy sends for a GET with these headers.
pub(crate) fn request(headers: &[(&str, &str)]) -> CheckRequest {
    headers.iter().fold(Ask::get("/orders?q=1"), |ask, (name, value)| ask.header(name, value)).into()
}

/// Returns a check with this token as its only credential.
pub(crate) fn bearer(token: &str) -> CheckRequest {
    request(&[("authorization", &format!("Bearer {token}"))])
}

/// Decoded `CheckResponse`.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Status of the denial; 200 if the request is allowed.
    pub(crate) status: u16,
    /// Reason of the denial; empty if the request is allowed.
    pub(crate) reason: String,
    /// Headers for the upstream or, in a denial, for the client. The last of several with one name wins.
    pub(crate) headers: BTreeMap<String, String>,
    /// All of these headers, in order.
    pub(crate) all_headers: Vec<(String, String)>,
    pub(crate) removed: Vec<String>,
    /// Query parameters that Envoy removes.
    pub(crate) removed_parameters: Vec<String>,
    pub(crate) metadata: BTreeMap<String, Option<Kind>>,
    /// Body of the denial; empty if the request is allowed.
    pub(crate) body: String,
}

impl From<CheckResponse> for Answer {
    fn from(response: CheckResponse) -> Self {
        let metadata: BTreeMap<_, _> =
            response.dynamic_metadata.unwrap().fields.into_iter().map(|(name, value)| (name, value.kind)).collect();
        let reason = match metadata.get("reason") {
            Some(Some(Kind::StringValue(reason))) => reason.clone(),
            _ => String::new(),
        };
        let code = response.status.unwrap().code;
        let (status, options, removed, removed_parameters, body) = match response.http_response.unwrap() {
            HttpResponse::OkResponse(ok) => {
                (200, ok.headers, ok.headers_to_remove, ok.query_parameters_to_remove, String::new())
            }
            HttpResponse::DeniedResponse(denied) => {
                let status = u16::try_from(denied.status.unwrap().code).unwrap();
                (status, denied.headers, Vec::new(), Vec::new(), denied.body)
            }
            HttpResponse::ErrorResponse(_) => panic!("an error response"),
        };
        let expected = match status {
            200 => 0,
            302 | 401 => 16,
            503 => 14,
            _ => 7,
        };
        assert_eq!(code, expected, "code and response agree");
        let headers = options.into_iter().filter_map(|option| option.header).map(|h| (h.key, h.value));
        let all_headers: Vec<_> = headers.collect();
        let headers = all_headers.iter().cloned().collect();
        Self { status, reason, headers, all_headers, removed, removed_parameters, metadata, body }
    }
}

impl Answer {
    /// Text of a metadata field; empty if the field is absent.
    pub(crate) fn text(&self, name: &str) -> &str {
        match self.metadata.get(name) {
            Some(Some(Kind::StringValue(text))) => text,
            _ => "",
        }
    }

    /// Status and reason.
    pub(crate) fn verdict(&self) -> (u16, &str) {
        (self.status, &self.reason)
    }

    /// Values of a header, in order.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        self.all_headers.iter().filter(|(other, _)| other == name).map(|(_, value)| &**value).collect()
    }
}

/// Sends a check.
pub(crate) async fn check(channel: &Channel, request: CheckRequest) -> Result<Answer, Status> {
    let mut client = AuthorizationClient::new(channel.clone());
    client.check(request).await.map(|response| response.into_inner().into())
}

/// Sends a check with a token. Returns the status and the reason of the denial.
pub(crate) async fn verdict(channel: &Channel, token: &str) -> (u16, String) {
    let answer = check(channel, bearer(token)).await.unwrap();
    (answer.status, answer.reason)
}

/// Sends a GET to the admin port. Returns status and body.
pub(crate) async fn get(admin: &str, path: &str) -> (u16, String) {
    let response = reqwest::get(format!("http://{admin}{path}")).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// Value of a series in `/metrics`; 0 if the series does not exist.
pub(crate) async fn metric(admin: &str, series: &str) -> f64 {
    let (_, metrics) = get(admin, "/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("cognito_authz_{series} ")));
    line.map_or(0.0, |value| value.parse().unwrap())
}
