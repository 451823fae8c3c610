//! A user-pool API, with the token endpoint of hosted pages, that answers as it is told. It stands in only for what the emulator cannot do: faults, throttling,
//! rotated refresh tokens, and counting.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::form_urlencoded;

use super::jwks_server::Reply;
use super::token::{SigningKey, TokenBuilder, jwks};

/// A call that it got.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) operation: String,
    pub(crate) body: Value,
}

/// The server. It ends with its runtime.
#[derive(Clone)]
pub(crate) struct FakeCognito {
    pub(crate) url: String,
    shared: Arc<Mutex<Shared>>,
}

type Answerer = Box<dyn Fn(&Call, usize) -> Reply + Send>;

struct Shared {
    reply: Answerer,
    calls: Vec<Call>,
}

impl FakeCognito {
    /// One that answers every call with `{}`, and serves the keys of tokens that tests sign.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Shared { reply: Box::new(|_, _| Reply::ok("{}")), calls: Vec::new() };
        let shared = Arc::new(Mutex::new(shared));
        let server = Self { url, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(http1::Builder::new().serve_connection(
                    TokioIo::new(stream),
                    service_fn(move |request| answer(Arc::clone(&shared), request)),
                ));
            }
        });
        server
    }

    /// From now on this is the answer to the call, which is the so-manieth from now, beginning with 0.
    pub(crate) fn answers(&self, reply: impl Fn(&Call, usize) -> Reply + Send + 'static) {
        let mut shared = self.shared.lock().unwrap();
        shared.calls.clear();
        shared.reply = Box::new(reply);
    }

    /// From now on this error is the answer, with status 400 as most have it.
    pub(crate) fn refuses(&self, name: &'static str, message: &'static str) {
        self.answers(move |_, _| refusal(name, message));
    }

    /// The calls since the answer was set.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.lock().unwrap().calls.clone()
    }

    /// Their operations.
    pub(crate) fn operations(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.operation).collect()
    }
}

/// An error as Cognito sends it.
pub(crate) fn refusal(name: &str, message: &str) -> Reply {
    Reply { status: 400, ..Reply::ok(json!({"__type": name, "message": message}).to_string()) }
}

/// Tokens as Cognito sends them, with members changed; a null takes one out.
pub(crate) fn tokens(changes: &Value) -> Reply {
    let key = SigningKey::shared();
    let mut result = json!({
        "AccessToken": TokenBuilder::access().sign(key),
        "IdToken": TokenBuilder::id().sign(key),
        "ExpiresIn": 3600,
        "TokenType": "Bearer",
    });
    for (name, value) in changes.as_object().unwrap() {
        result[name] = value.clone();
    }
    Reply::ok(json!({"AuthenticationResult": result, "ChallengeName": null}).to_string())
}

/// Tokens as the token endpoint of the hosted pages sends them.
pub(crate) fn oauth_tokens(changes: &Value) -> Reply {
    let key = SigningKey::shared();
    let mut answer = json!({
        "access_token": TokenBuilder::access().claim("scope", "openid email").sign(key),
        "id_token": TokenBuilder::id().sign(key),
        "refresh_token": "r",
        "token_type": "Bearer",
        "expires_in": 3600,
    });
    for (name, value) in changes.as_object().unwrap() {
        answer[name] = value.clone();
    }
    Reply::ok(answer.to_string())
}

/// The same, later.
pub(crate) fn slowly(reply: Reply, delay: Duration) -> Reply {
    Reply { delay, ..reply }
}

async fn answer(shared: Arc<Mutex<Shared>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::GET {
        return Ok(Response::new(Full::new(jwks(&[SigningKey::shared()]).into())));
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let (operation, body) = if parts.uri.path() == "/oauth2/token" {
        assert_eq!(parts.headers["content-type"], "application/x-www-form-urlencoded");
        let authorization = parts.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let form = form_urlencoded::parse(&body).map(|(name, value)| (name.into_owned(), value.into_owned().into()));
        let basic = authorization.map(|value| ("authorization".to_owned(), value.into()));
        ("OauthToken".to_owned(), Value::Object(form.chain(basic).collect()))
    } else {
        assert_eq!(parts.headers["content-type"], "application/x-amz-json-1.1");
        let target = parts.headers["x-amz-target"].to_str().unwrap();
        let operation = target.strip_prefix("AWSCognitoIdentityProviderService.").unwrap().to_owned();
        (operation, serde_json::from_slice(&body).unwrap())
    };
    let reply = {
        let mut shared = shared.lock().unwrap();
        let call = Call { operation, body };
        let reply = (shared.reply)(&call, shared.calls.len());
        shared.calls.push(call);
        reply
    };
    tokio::time::sleep(reply.delay).await;
    let mut response = Response::builder().status(StatusCode::from_u16(reply.status).unwrap());
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(reply.body.into())).unwrap())
}
