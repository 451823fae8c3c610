//! Routes of the sign-in by redirect. They take navigations of a browser, and answer with redirects and HTML pages.

use serde_json::{Map, Value, json};

use super::{Paths, answers};
use crate::account::browser::Place;
use crate::account::error::Code;
use crate::account::table::Tag;

/// Adds the paths of the four routes.
pub(super) fn add(paths: &mut Paths, prefix: &str) {
    for place in Place::ALL {
        let mut push = |method: &str, name: &str| {
            paths.push_into(format!("{prefix}{}", place.path()), method.into(), operation(place, name));
        };
        push("get", place.name());
        if place == Place::SignOut {
            push("post", "oauth-sign-out-form");
        }
    }
}

fn operation(place: Place, name: &str) -> Value {
    let (summary, location) = match place {
        Place::SignIn => (
            "Renews the session, or sends the browser to the hosted pages.",
            "The page to return to, or the hosted pages.",
        ),
        Place::Callback => {
            ("Takes the code from the hosted pages, and sets the cookies of the session.", "The page to return to.")
        }
        Place::Renew => (
            "Renews the session with the refresh cookie, else sends the browser to the hosted pages.",
            "The page to return to, or the hosted pages.",
        ),
        Place::SignOut => (
            "Ends the session, and deletes its cookies.",
            "Sign-out of the hosted pages; `/` without `--oauth-logout-uris`.",
        ),
    };
    json!({
        "operationId": name,
        "summary": summary,
        "description": "For navigations of a browser only: open it in the address bar, a link or a form.",
        "tags": [Tag::HostedSignIn.name()],
        "security": [],
        "parameters": parameters(place),
        "responses": responses(place, location),
    })
}

fn parameters(place: Place) -> Value {
    let query = |name: &str, about: &str| json!({"name": name, "in": "query", "required": false, "description": about, "schema": {"type": "string"}});
    let return_to =
        || query("return_to", "Path and query of this origin to return to. Anything else, and no value, becomes `/`.");
    match place {
        Place::SignIn => json!([
            return_to(),
            query("prompt", "`login`: the user has to enter the credentials, even with a session that can be renewed."),
        ]),
        Place::Renew => json!([return_to()]),
        Place::Callback => json!([
            query("code", "Code of the hosted pages."),
            query("state", "State that the sign-in started with."),
            query("iss", "Issuer (RFC 9207). If it is there, it has to be the pool or the hosted pages."),
            query("error", "Error of the hosted pages."),
        ]),
        Place::SignOut => json!([]),
    }
}

fn responses(place: Place, location: &str) -> Map<String, Value> {
    let statuses: &[u16] = match place {
        Place::SignIn | Place::Renew => &[400, 429, 502, 503],
        Place::Callback => &[400, 401, 429, 502, 503],
        Place::SignOut => &[400, 403, 429, 502, 503],
    };
    let page = |status: &u16| {
        let (description, headers): (_, &[_]) = match status {
            401 => ("The session of the new tokens has ended.", &[]),
            403 => ("Another site may have caused the request. The page asks the user.", &[]),
            429 | 503 => (answers::description(*status), &[("Retry-After", "RetryAfter")]),
            _ => (answers::description(*status), &[]),
        };
        let content = json!({"text/html": {"schema": {"type": "string"}}});
        let page = json!({"description": description, "headers": answers::headers(headers), "content": content});
        (status.to_string(), page)
    };
    let mut responses: Map<_, _> = statuses.iter().map(page).collect();
    responses.extend(answers::errors(&[(405, Code::MethodNotAllowed)], None));
    let mut headers = answers::headers(&[]);
    let header = json!({"description": location, "required": true, "schema": {"type": "string"}});
    headers.insert("Location".into(), header);
    responses.insert("302".into(), json!({"description": location, "headers": headers}));
    responses
}
