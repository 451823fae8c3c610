//! `OpenAPI` 3.1 document of the account API, made from the rows of the table. Start from [`document`].
//!
//! `openapi/body.rs` describes requests, `openapi/schemas.rs` and `openapi/answers.rs` responses, `openapi/examples.rs`
//! both with examples. The routes that are no rows are in `openapi/navigation.rs`, `openapi/resources.rs`, and here.

mod answers;
mod body;
mod examples;
mod navigation;
mod ordered;
mod resources;
mod schemas;

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value, json};

use self::answers::{Failures, reference};
use self::examples::Uris;
use self::ordered::Ordered;
use super::error::Code;
use super::oauth::{AUTHORIZE_NAME, AUTHORIZE_PATH, PARAMETERS};
use super::outcomes::failures;
use super::settings::Settings;
use super::table::{Credential, Hides, Row, Success, Tag, rows};
use crate::session_cookie::SessionCookie;

/// Operations by path and method, both in the order in which they are shown.
type Paths = Ordered<Ordered<Value>>;

#[derive(Serialize)]
struct Document {
    openapi: &'static str,
    info: Value,
    servers: Value,
    tags: Vec<Value>,
    paths: Paths,
    components: Value,
}

/// Returns the document of the API with these settings, as JSON. `resources` is `true` if there are protected resources.
pub(super) fn document(settings: &Settings, resources: bool) -> String {
    let prefix = settings.prefix.as_str();
    let uris = Uris::of(settings);
    let has_cookies = settings.cookies.is_some();
    let mut paths = Paths::default();
    for row in rows().filter(|row| settings.hosted_ui.is_some() || !row.needs_hosted_ui()) {
        if row.needs_hosted_ui() {
            paths.push_into(format!("{prefix}{AUTHORIZE_PATH}"), "get".into(), authorize_url(has_cookies, uris));
        }
        let method = row.method.as_str().to_ascii_lowercase();
        paths.push_into(format!("{prefix}{}", row.path), method, operation(row, settings, uris));
    }
    if settings.signs_in_by_redirect() {
        navigation::add(&mut paths, prefix);
    }
    paths.push_into(format!("{prefix}/openapi.json"), "get".into(), this());
    if resources {
        resources::add(&mut paths, prefix);
    }
    let mut schemas = schemas::all(has_cookies);
    let bodies =
        rows().map(|row| (request_name(row), body::schema(row, &settings.allowed, is_by_cookie(row, settings))));
    if let Some(schemas) = schemas.as_object_mut() {
        schemas.extend(bodies.chain(resources::schemas()));
    }
    let components = json!({
        "schemas": schemas,
        "responses": answers::shared(),
        "examples": answers::examples_of_errors(),
        "headers": answers::components_of_headers(&schemas::request_id()),
    });
    let mut components = used(&components, &paths);
    components.insert("securitySchemes".into(), security_schemes(has_cookies));
    let document = Document {
        openapi: "3.1.0",
        info: json!({
            "title": "cognito-authz account API",
            "summary": "Sign-up, sign-in and sign-out for the users of an Amazon Cognito user pool.",
            "description": about(has_cookies),
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        }),
        servers: json!([{"url": "/"}]),
        tags: Tag::ALL.iter().map(|tag| json!({"name": tag.name(), "description": tag.about()})).collect(),
        paths,
        components: components.into(),
    };
    serde_json::to_string(&document).unwrap_or_default()
}

fn about(has_cookies: bool) -> String {
    let bodies = "Bodies are JSON of at most 16 KiB. Members that are not listed are ignored. Every error says what is wrong \
                  (`message`), names its kind (`code`), and has the id to quote to the operator (`request_id`).";
    let cookies = "Tokens are in cookies that no script can read. A client that is not a browser sends \
                   `X-Account-Tokens: body` with each request; it gets tokens in bodies and uses no cookies.";
    if has_cookies { format!("{bodies}\n\n{cookies}") } else { bodies.to_owned() }
}

/// Keeps the components that the paths refer to, directly or through other components.
fn used(components: &Value, paths: &Paths) -> Map<String, Value> {
    let mut found = BTreeSet::new();
    paths.values().flat_map(Ordered::values).for_each(|operation| collect(operation, &mut found));
    let mut kept = Map::new();
    while let Some(pointer) = found.pop_first() {
        let Some((section, name)) = parts(&pointer) else { continue };
        let section_kept = kept.entry(section).or_insert_with(|| Map::new().into());
        let component = components.get(section).and_then(|section| section.get(name));
        if let (Some(section), Some(component)) = (section_kept.as_object_mut(), component)
            && section.insert(name.to_owned(), component.clone()).is_none()
        {
            collect(component, &mut found);
        }
    }
    kept
}

/// Splits `#/components/SECTION/NAME`.
fn parts(pointer: &str) -> Option<(&str, &str)> {
    pointer.strip_prefix("#/components/")?.split_once('/')
}

fn collect(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|value| collect(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

fn this() -> Value {
    let mut responses = answers::errors(&[(405, Code::MethodNotAllowed)], None);
    responses.insert("200".into(), answers::success("This document.", "OpenApiDocument", &[]));
    json!({
        "operationId": "openapi",
        "summary": "Returns this document.",
        "tags": [Tag::Metadata.name()],
        "security": [],
        "responses": responses,
    })
}

/// Describes the start of a sign-in by scripts. It is not a row: it takes a query and does not call Cognito.
fn authorize_url(has_cookies: bool, uris: Uris<'_>) -> Value {
    let [redirect_uri, provider] = PARAMETERS;
    let parameter = |name: &str, required: bool, about: &str| {
        let schema = json!({"type": "string", "minLength": u8::from(required)});
        json!({"name": name, "in": "query", "required": required, "description": about, "schema": schema})
    };
    let mut redirect = parameter(
        redirect_uri,
        true,
        "URI that the code is sent to; one of `--oauth-redirect-uris`, character for character.",
    );
    if let Some(redirect) = redirect.as_object_mut() {
        redirect.insert("example".into(), uris.redirect.into());
    }
    let mut codes: Failures = vec![
        (400, Code::InvalidRequest),
        (405, Code::MethodNotAllowed),
        (429, Code::RateLimited),
        (503, Code::UpstreamUnavailable),
    ];
    codes.extend(has_cookies.then_some((403, Code::CrossSite)));
    let invalid = examples::error(Code::InvalidRequest, Some(("redirectUri is required", Some(redirect_uri))));
    let mut responses = answers::errors(&codes, Some(&invalid));
    let url = json!({
        "url": "https://example.auth.eu-west-1.amazoncognito.com/oauth2/authorize?response_type=code&client_id=4mcp5client6id7of8it",
        "state": "af0ifjsldkj…",
        "codeVerifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    });
    responses.insert(
        "200".into(),
        answers::success("The URL to go to, and the values to keep.", "SignInUrl", &[("success", url)]),
    );
    json!({
        "operationId": AUTHORIZE_NAME,
        "summary": "Returns the URL of the hosted pages that a sign-in starts at, with a state and a PKCE verifier to keep.",
        "tags": [Tag::HostedSignIn.name()],
        "security": [],
        "parameters": [
            redirect,
            parameter(provider, false, "Name of a provider in Cognito, such as Google; its page is shown directly."),
        ],
        "responses": responses,
    })
}

/// `true` if a cookie can take the place of the row's refresh token.
fn is_by_cookie(row: &Row, settings: &Settings) -> bool {
    settings.cookies.is_some() && row.takes_refresh_token()
}

fn operation(row: &Row, settings: &Settings, uris: Uris<'_>) -> Value {
    let has_cookies = settings.cookies.is_some();
    let by_cookie = is_by_cookie(row, settings);
    let mut codes = failures(row, settings);
    codes.push((405, Code::MethodNotAllowed));
    let mut responses = answers::errors(&codes, Some(&examples::invalid_request(row, by_cookie)));
    let (status, description) = describe(row.success);
    let examples = examples::success(row.success, has_cookies);
    responses.insert(status.into(), answers::success(description, schemas::of_success(row.success), &examples));
    let mut operation = json!({
        "operationId": row.name,
        "summary": row.summary,
        "description": explain(row),
        "tags": [row.tag.name()],
        "security": security(row, has_cookies),
        "responses": responses,
    });
    let has_body = row.body_fields().next().is_some();
    let content = || {
        let schema = reference("schemas", &request_name(row));
        json!({"application/json": {"schema": schema, "example": examples::body(row, uris, by_cookie)}})
    };
    let body = has_body.then(|| json!({"required": row.needs_body() && !by_cookie, "content": content()}));
    if let Some(operation) = operation.as_object_mut() {
        operation.extend(body.map(|body| ("requestBody".into(), body)));
        let parameters: Vec<_> = row.fields.iter().filter_map(|field| body::parameter(row, field, uris)).collect();
        if !parameters.is_empty() {
            operation.insert("parameters".into(), parameters.into());
        }
    }
    operation
}

/// Name of the schema of a row's body: `UpdateMeRequest` for `update-me`.
fn request_name(row: &Row) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    row.name.split('-').map(capital).chain(["Request".to_owned()]).collect()
}

fn explain(row: &Row) -> String {
    let mut about = format!("Calls `{}` of Cognito.", row.operation.as_str());
    about += match row.credential {
        Credential::None => "",
        Credential::AnyToken => " Needs an access token of the user.",
        Credential::Token => " Needs an access token of the user, with the scope `aws.cognito.signin.user.admin`.",
        Credential::TokenOrSession => {
            " Needs an access token of the user, with the scope `aws.cognito.signin.user.admin`, or the `session` of a \
             sign-in with the challenge MFA_SETUP."
        }
    };
    about += match row.hides {
        Hides::All => " The response does not reveal whether the user exists.",
        Hides::Failures => " A failure does not reveal whether the user exists.",
        Hides::Nothing | Hides::SignUp => "",
    };
    about
}

fn security(row: &Row, has_cookies: bool) -> Value {
    let scheme = |name: &str| json!({ name: [] });
    let token = [Some(scheme("accessToken")), has_cookies.then(|| scheme("accessCookie"))];
    let refresh = (has_cookies && row.takes_refresh_token()).then(|| scheme("refreshCookie"));
    let ways: Vec<_> = match row.credential {
        // The refresh token is in the cookie, or else in the body.
        Credential::None => refresh.map(|refresh| [refresh, json!({})]).into_iter().flatten().collect(),
        Credential::AnyToken => token.into_iter().flatten().chain(refresh).collect(),
        Credential::Token => token.into_iter().flatten().collect(),
        Credential::TokenOrSession => token.into_iter().flatten().chain([json!({})]).collect(),
    };
    ways.into()
}

/// Status and description of a success.
fn describe(success: Success) -> (&'static str, &'static str) {
    match success {
        Success::Registered(text) => ("201", text),
        Success::Message(text)
        | Success::LoggedOut(text)
        | Success::Revoked(text)
        | Success::Sent(text)
        | Success::TotpVerified(text) => ("200", text),
        Success::Profile => ("200", "The user's profile."),
        Success::Totp => ("200", "A secret for an authenticator app."),
        Success::CreationOptions => ("200", "Options for the browser to create a passkey."),
        Success::Passkeys => ("200", "The user's passkeys."),
        Success::Tokens => ("200", "Tokens, or a challenge to respond to first."),
    }
}

fn security_schemes(has_cookies: bool) -> Value {
    let mut schemes = Map::new();
    let bearer = json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "An access token of the pool."});
    schemes.insert("accessToken".into(), bearer);
    let cookie = |cookie: SessionCookie, token: &str| {
        let about = format!(
            "The {token} in a cookie that a sign-in sets; only for requests from the same origin or a listed one."
        );
        json!({"type": "apiKey", "in": "cookie", "name": cookie.name(), "description": about})
    };
    if has_cookies {
        schemes.insert("accessCookie".into(), cookie(SessionCookie::Access, "access token"));
        schemes.insert("refreshCookie".into(), cookie(SessionCookie::Refresh, "refresh token"));
    }
    schemes.into()
}
