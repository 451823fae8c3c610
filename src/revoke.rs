//! The commands `cognito-authz revoke` and `cognito-authz revocations`: clients of `/revocations` on the admin port of a
//! running instance.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Map, Value};
use url::form_urlencoded::Serializer;

use crate::admin_client::{AdminPort, Call};
use crate::clock::{UnixTime, format_rfc3339};
use crate::config::options::{ListOptions, OperatorOptions, RevocationsAction, RevokeOptions};
use crate::files::{self, MAX_SECRET_BYTES};

/// Time limit for one request. The service waits for its file or store, and for its turn among wrong tokens.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Number of entries that are requested at once.
const PAGE: &str = "1000";
/// Path of the list.
const PATH: &str = "/revocations";

/// Revocation as the admin port shows it.
#[derive(Debug, Deserialize)]
struct Shown {
    id: String,
    kind: String,
    before: Option<UnixTime>,
    until: UnixTime,
    #[serde(default)]
    except_one_session: bool,
    causes: Vec<String>,
    scope: Option<String>,
}

/// Response to a list.
#[derive(Debug, Deserialize)]
struct Page {
    revocations: Vec<Value>,
    next: Option<String>,
}

/// Makes a revocation, and writes it to `out`.
///
/// # Errors
/// The instance does not answer, or refuses. The text is one sentence.
pub async fn revoke(options: &RevokeOptions, out: &mut impl Write) -> anyhow::Result<()> {
    let RevokeOptions { target, pool, before, reason, operator } = options;
    let mut order = Map::new();
    order.extend(target.claim().map(|(name, value)| (name.into(), value.into())));
    order.extend(pool.as_deref().map(|pool| ("pool".into(), pool.into())));
    order.extend(before.map(|before| ("before".into(), before.into())));
    order.extend(reason.as_deref().map(|reason| ("reason".into(), reason.into())));
    let instance = Instance::new(operator)?;
    let made = instance.ask(Method::POST, PATH, Some(Value::Object(order).to_string())).await?;
    instance.print_change("revoked", &made, out)
}

/// Lists revocations, or lifts one, and writes the result to `out`.
///
/// # Errors
/// The instance does not answer, or refuses. The text is one sentence.
pub async fn revocations(action: &RevocationsAction, out: &mut impl Write) -> anyhow::Result<()> {
    let instance = Instance::new(action.operator())?;
    match action {
        RevocationsAction::List(options) => instance.list(options, out).await,
        RevocationsAction::Lift(options) => {
            let lifted = instance.ask(Method::DELETE, &format!("{PATH}/{}", options.id), None).await?;
            instance.print_change("lifted", &lifted, out)
        }
    }
}

/// Running instance, and the token for it.
struct Instance<'o> {
    options: &'o OperatorOptions,
    port: AdminPort<'o>,
    token: Option<SecretString>,
}

impl<'o> Instance<'o> {
    fn new(options: &'o OperatorOptions) -> anyhow::Result<Self> {
        let read = |path: &Path| -> anyhow::Result<SecretString> {
            let text = files::read_text(path, MAX_SECRET_BYTES)
                .map_err(|error| anyhow::anyhow!("--admin-token-file: {} {error}", path.display()))?;
            let token = text.trim_ascii();
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                bail!("--admin-token-file: {} does not contain a token", path.display());
            }
            Ok(token.into())
        };
        let token = options.admin_token_file.as_deref().map(read).transpose()?;
        Ok(Self { options, port: AdminPort::new(&options.instance)?, token })
    }

    /// Sends a request, and returns the body of a success.
    async fn ask(&self, method: Method, target: &str, body: Option<String>) -> anyhow::Result<Value> {
        let admin = &self.options.instance.admin;
        let call = Call { method, target, token: self.token.as_ref(), body, limit: TIMEOUT };
        let reply = self.port.send(call).await?;
        let body: Option<Value> = serde_json::from_slice(&reply.body).ok();
        if reply.status.is_success()
            && let Some(body) = body
        {
            return Ok(body);
        }
        let message = body.as_ref().and_then(|body| body.get("message")).and_then(Value::as_str);
        match message {
            Some(message) => bail!("{admin} refused ({}): {message}", reply.status.as_u16()),
            None => bail!("{admin} did not answer like an admin port (status {})", reply.status.as_u16()),
        }
    }

    async fn list(&self, options: &ListOptions, out: &mut impl Write) -> anyhow::Result<()> {
        let mut query = Serializer::new(String::new());
        match options.target.claim() {
            Some((name, value)) => query.append_pair(name, value),
            None => query.append_pair("limit", PAGE),
        };
        if let Some(pool) = &options.pool {
            query.append_pair("pool", pool);
        }
        let query = query.finish();
        let mut target = format!("{PATH}?{query}");
        loop {
            let page = self.ask(Method::GET, &target, None).await?;
            let Page { revocations, next } = serde_json::from_value(page).context("the response is not a list")?;
            for entry in revocations {
                if self.options.json {
                    writeln!(out, "{entry}")?;
                } else {
                    let entry: Shown = serde_json::from_value(entry).context("the response is not a list")?;
                    writeln!(out, "{}  {}", entry.id, entry.description())?;
                }
            }
            let Some(next) = next else { return Ok(()) };
            target = format!("{PATH}?{query}&after={next}");
        }
    }

    fn print_change(&self, done: &str, entry: &Value, out: &mut impl Write) -> anyhow::Result<()> {
        if self.options.json {
            return Ok(writeln!(out, "{entry}")?);
        }
        let entry: Shown = serde_json::from_value(entry.clone()).context("the response is not a revocation")?;
        let scope = entry.scope.as_deref().unwrap_or_default();
        Ok(writeln!(out, "{done}: {}  {}, scope {scope}", entry.id, entry.description())?)
    }
}

impl Shown {
    fn description(&self) -> String {
        let Self { kind, before, until, except_one_session, causes, .. } = self;
        let before = before.map(|before| format!(", sign-ins up to {}", format_rfc3339(before))).unwrap_or_default();
        let except = if *except_one_session { ", except one session" } else { "" };
        format!("{kind}{before}{except}, in effect until {}, by {}", format_rfc3339(*until), causes.join(" and "))
    }
}
