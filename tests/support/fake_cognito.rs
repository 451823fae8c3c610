//! Fake of the user-pool API and of the hosted pages' token endpoint, with configurable responses. Tests use it only for
//! what the emulator cannot do: faults, throttling, rotated refresh tokens, and a count of the calls.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::server::{Reply, serve};
use super::token::{SigningKey, TokenBuilder, jwks};

/// Call that the server received. The operation of the token endpoint is `OauthToken`; its body is the form, with the
/// `Authorization` header as one more member. That of the pool's metadata is `OpenidConfiguration`; its body is the path.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) operation: String,
    pub(crate) body: Value,
}

/// Running server. It ends with its runtime.
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

impl Shared {
    /// Records a call, and returns the response to it.
    fn record(&mut self, call: Call) -> Reply {
        let reply = (self.reply)(&call, self.calls.len());
        self.calls.push(call);
        reply
    }
}

impl FakeCognito {
    /// Starts a server that answers every call with `{}`, and every GET but that of the pool's
    /// metadata with the shared key as a JWKS.
    pub(crate) async fn start() -> Self {
        let shared = Shared { reply: Box::new(|_, _| Reply::ok("{}")), calls: Vec::new() };
        let shared = Arc::new(Mutex::new(shared));
        let answers = Arc::clone(&shared);
        let address = serve(move |request| {
            let answers = Arc::clone(&answers);
            async move { answer(&answers, request).await.into_response().await }
        })
        .await;
        Self { url: format!("http://{address}"), shared }
    }

    /// Sets the response to all further calls, and forgets the calls so far. The second argument of `reply` is the
    /// number of calls before this one.
    pub(crate) fn answers(&self, reply: impl Fn(&Call, usize) -> Reply + Send + 'static) {
        let mut shared = self.shared.lock().unwrap();
        shared.calls.clear();
        shared.reply = Box::new(reply);
    }

    /// Sets an error as the response to all further calls, with status 400.
    pub(crate) fn refuses(&self, name: &'static str, message: &'static str) {
        self.answers(move |_, _| refusal(name, message));
    }

    /// Calls since the response was set.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.lock().unwrap().calls.clone()
    }

    /// Operations of [`FakeCognito::calls`].
    pub(crate) fn operations(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.operation).collect()
    }
}

/// Returns an error in the form that Cognito sends.
pub(crate) fn refusal(name: &str, message: &str) -> Reply {
    Reply { status: 400, ..Reply::ok(json!({"__type": name, "message": message}).to_string()) }
}

/// Returns the response to a sign-in, with these members changed. A member that is `null` counts as absent.
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

/// Returns the response of the token endpoint, with these members changed.
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

/// Returns the response with a delay.
pub(crate) fn slowly(reply: Reply, delay: Duration) -> Reply {
    Reply { delay, ..reply }
}

async fn answer(shared: &Mutex<Shared>, request: Request<Incoming>) -> Reply {
    if request.method() == Method::GET && request.uri().path().ends_with("/openid-configuration") {
        let call = Call { operation: "OpenidConfiguration".into(), body: request.uri().path().into() };
        return shared.lock().unwrap().record(call);
    }
    if request.method() == Method::GET {
        return Reply::ok(jwks(&[SigningKey::shared()]));
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
    shared.lock().unwrap().record(Call { operation, body })
}
