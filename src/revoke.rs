//! The commands `cognito-authz revoke` and `cognito-authz revocations`: clients of `/revocations` on the admin port of a
//! running instance.

use std::io::Write;

use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value};
use url::form_urlencoded::Serializer;

use crate::admin_client::{self, Instance};
use crate::clock::{UnixTime, format_rfc3339};
use crate::config::options::{ListOptions, RevocationsAction, RevokeOptions};

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

impl Instance<'_> {
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
            let Page { revocations, next } = admin_client::read(page, "a list of revocations")?;
            for entry in revocations {
                if self.options.json {
                    writeln!(out, "{entry}")?;
                } else {
                    let entry: Shown = admin_client::read(entry, "a list of revocations")?;
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
        let entry: Shown = admin_client::read(entry.clone(), "a revocation")?;
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
