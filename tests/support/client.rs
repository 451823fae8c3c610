//! Clients: Envoy's side of a check, and an operator's of the admin port.

use std::collections::{BTreeMap, HashMap};

use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use envoy_types::pb::google::protobuf::value::Kind;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Connects to an address as the service names it.
pub(crate) async fn connect(address: &str) -> Channel {
    let uri = if address.starts_with("unix:") { address.to_owned() } else { format!("http://{address}") };
    Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
}

/// A check in the making, as Envoy sends it.
#[derive(Clone)]
pub(crate) struct Ask {
    http: HttpRequest,
    /// `context_extensions` of Envoy's route.
    context: HashMap<String, String>,
}

impl Ask {
    /// A GET of this target.
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

    /// Envoy's route names this policy.
    pub(crate) fn policy(mut self, name: &str) -> Self {
        self.context.insert("policy".into(), name.into());
        self
    }

    /// What is asked about, for the message of a test that fails.
    pub(crate) fn target(&self) -> String {
        format!("{} {}{} {:?}", self.http.method, self.http.host, self.http.path, self.context)
    }

    /// Asks once.
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

/// A check as Envoy sends it for a GET with these headers.
pub(crate) fn request(headers: &[(&str, &str)]) -> CheckRequest {
    headers.iter().fold(Ask::get("/orders?q=1"), |ask, (name, value)| ask.header(name, value)).into()
}

/// A check with this token as its one credential.
pub(crate) fn bearer(token: &str) -> CheckRequest {
    request(&[("authorization", &format!("Bearer {token}"))])
}

/// An answer, taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    /// 200 for "may pass".
    pub(crate) status: u16,
    /// The reason of a denial.
    pub(crate) reason: String,
    /// Headers for upstream, or for the client; of several with one name the last.
    pub(crate) headers: BTreeMap<String, String>,
    /// The same headers, each of them, in their order.
    pub(crate) all_headers: Vec<(String, String)>,
    pub(crate) removed: Vec<String>,
    pub(crate) metadata: BTreeMap<String, Option<Kind>>,
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
        let (status, options, removed) = match response.http_response.unwrap() {
            HttpResponse::OkResponse(ok) => (200, ok.headers, ok.headers_to_remove),
            HttpResponse::DeniedResponse(denied) => {
                (u16::try_from(denied.status.unwrap().code).unwrap(), denied.headers, Vec::new())
            }
            HttpResponse::ErrorResponse(_) => panic!("an error response"),
        };
        let expected = match status {
            200 => 0,
            401 => 16,
            503 => 14,
            _ => 7,
        };
        assert_eq!(code, expected, "code and response agree");
        let headers = options.into_iter().filter_map(|option| option.header).map(|h| (h.key, h.value));
        let all_headers: Vec<_> = headers.collect();
        let headers = all_headers.iter().cloned().collect();
        Self { status, reason, headers, all_headers, removed, metadata }
    }
}

impl Answer {
    /// A text of the metadata; empty when there is none.
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

    /// The values of a header, in their order.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        self.all_headers.iter().filter(|(other, _)| other == name).map(|(_, value)| &**value).collect()
    }
}

/// Asks once.
pub(crate) async fn check(channel: &Channel, request: CheckRequest) -> Result<Answer, Status> {
    let mut client = AuthorizationClient::new(channel.clone());
    client.check(request).await.map(|response| response.into_inner().into())
}

/// Asks about a token: status, and the reason of a denial.
pub(crate) async fn verdict(channel: &Channel, token: &str) -> (u16, String) {
    let answer = check(channel, bearer(token)).await.unwrap();
    (answer.status, answer.reason)
}

/// A GET of the admin port: status and body.
pub(crate) async fn get(admin: &str, path: &str) -> (u16, String) {
    let response = reqwest::get(format!("http://{admin}{path}")).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// The value of a series of `/metrics`; 0 when it is not there.
pub(crate) async fn metric(admin: &str, series: &str) -> f64 {
    let (_, metrics) = get(admin, "/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("cognito_authz_{series} ")));
    line.map_or(0.0, |value| value.parse().unwrap())
}
