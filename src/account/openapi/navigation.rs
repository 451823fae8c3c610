//! Routes of the sign-in by redirect. They take navigations of a browser, and answer with redirects and HTML pages.

use serde_json::{Map, Value, json};

use super::responses;
use crate::account::browser::Place;

/// Returns the paths of the four routes.
pub(super) fn paths(prefix: &str) -> Map<String, Value> {
    let path = |place: Place| (format!("{prefix}{}", place.path()), methods(place));
    Place::ALL.into_iter().map(path).collect()
}

fn methods(place: Place) -> Value {
    let named = |name: &str| operation(place, name);
    match place {
        Place::SignOut => json!({"get": named(place.name()), "post": named("oauth-sign-out-form")}),
        Place::SignIn | Place::Callback | Place::Renew => json!({"get": named(place.name())}),
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
        "description": "For navigations of a browser only.",
        "tags": ["account"],
        "parameters": parameters(place),
        "responses": answers(place, location),
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

fn answers(place: Place, location: &str) -> Map<String, Value> {
    let statuses: &[u16] = match place {
        Place::SignIn | Place::Renew => &[400, 429, 502, 503],
        Place::Callback => &[400, 401, 429, 502, 503],
        Place::SignOut => &[400, 403, 429, 502, 503],
    };
    let mut answers = responses(statuses);
    for (status, answer) in &mut answers {
        let Some(answer) = answer.as_object_mut() else { continue };
        answer.insert("content".into(), json!({"text/html": {"schema": {"type": "string"}}}));
        let described = match status.as_str() {
            "401" => "The session of the new tokens has ended.",
            "403" => "Another site may have caused the request. The page asks the user.",
            _ => continue,
        };
        answer.insert("description".into(), described.into());
        answer.remove("headers");
    }
    answers.extend(responses(&[405]));
    let header = json!({"Location": {"description": location, "required": true, "schema": {"type": "string"}}});
    answers.insert("302".into(), json!({"description": location, "headers": header}));
    answers
}
