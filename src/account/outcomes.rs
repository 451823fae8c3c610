//! Outcomes that each operation of the account API can have, for metrics: every such series exists from the start.
//!
//! They follow from the operation's row, from the settings, and from the errors that Cognito documents for the calls that
//! the operation makes. An outcome that is not among them, such as an error that Cognito has not documented, still counts;
//! its series appears then.

use super::answer::{CHALLENGE, SUCCESS};
use super::browser::Place;
use super::error::{Code, ErrorContext, Judgement, judge};
use super::http::{OPENAPI_NAME, UNKNOWN};
use super::oauth::AUTHORIZE_NAME;
use super::protected_resources::Route;
use super::settings::{RefreshFlow, Settings};
use super::table::{Credential, Flow, Row, Success, row_of, rows};
use crate::cognito::Operation;

/// Values of the labels `operation` and `outcome` of a family of metrics: each operation, with its outcomes.
pub(crate) type Outcomes = Vec<(&'static str, Vec<&'static str>)>;

/// Returns the operations that exist with these settings, and the outcomes of each.
pub(crate) fn of_requests(settings: &Settings) -> Outcomes {
    let rows = served(settings).map(|row| (row.name, of_row(row, settings)));
    let navigations = Place::ALL.into_iter().filter(|_| settings.signs_in_by_redirect());
    let navigations = navigations.map(|place| (place.name(), success_or(&of_place(place, settings))));
    let resources = Route::ALL.into_iter().map(|route| (route.name(), success_or(route.codes())));
    let authorize = settings.hosted_ui.as_ref().map(|_| (AUTHORIZE_NAME, success_or(&of_authorize_url(settings))));
    let others = [(OPENAPI_NAME, success_or(&[Code::MethodNotAllowed])), (UNKNOWN, labels(&[Code::NotFound]))];
    rows.chain(navigations).chain(resources).chain(authorize).chain(others).collect()
}

/// Returns the operations of Cognito that are called with these settings, and the outcomes of each.
pub(crate) fn of_calls(settings: &Settings) -> Outcomes {
    let is_called = |operation: Operation| {
        operation == Operation::OpenidConfiguration
            || served(settings).any(|row| calls(row, settings).contains(&operation))
    };
    let called = Operation::ALL.iter().copied().filter(|operation| is_called(*operation));
    called.map(|operation| (operation.as_str(), operation.outcomes().collect())).collect()
}

/// Rows of the operations that exist.
fn served(settings: &Settings) -> impl Iterator<Item = &'static Row> {
    rows().filter(|row| settings.hosted_ui.is_some() || !row.needs_hosted_ui())
}

/// Operations of Cognito whose errors can be the response.
fn calls(row: &Row, settings: &Settings) -> Vec<Operation> {
    match (row.flow, settings.refresh_flow) {
        (Flow::Refresh, RefreshFlow::Auth) => vec![Operation::InitiateAuth],
        (Flow::Logout, _) => vec![row.operation, Operation::RevokeToken],
        (Flow::Update | Flow::Totp, _) => vec![row.operation, Operation::GetUser],
        (Flow::Refresh | Flow::Plain | Flow::EndSessions | Flow::Oauth, _) => vec![row.operation],
    }
}

fn of_row(row: &Row, settings: &Settings) -> Vec<&'static str> {
    // A method that the path does not take counts for its first row.
    let is_first = rows().find(|other| other.path == row.path).is_some_and(|first| first.name == row.name);
    let method = is_first.then_some(Code::MethodNotAllowed);
    let codes: Vec<Code> = failures(row, settings).into_iter().map(|(_, code)| code).chain(method).collect();
    let challenges = row.success == Success::Tokens && calls(row, settings).iter().any(|call| call.may_challenge());
    let challenge = challenges.then_some(CHALLENGE);
    [SUCCESS].into_iter().chain(challenge).chain(labels(&codes)).collect()
}

/// Returns the errors that an operation can have, as status and code, except that of a method that its path does not
/// take.
pub(super) fn failures(row: &Row, settings: &Settings) -> Vec<(u16, Code)> {
    let has_cookies = settings.cookies.is_some();
    let takes_token = row.credential != Credential::None;
    let needs_scope = matches!(row.credential, Credential::Token | Credential::TokenOrSession);
    let is_of_cookies = has_cookies && (row.takes_refresh_token() || row.flow == Flow::Oauth);
    let possible = [
        (true, &OF_REQUESTS[..]),
        (has_cookies, &[(403, Code::CrossSite)]),
        (takes_token || is_of_cookies, &[(401, Code::InvalidToken)]),
        (needs_scope || row.flow == Flow::Logout, &[(row.refusal, Code::ScopeMissing)]),
        (row.flow == Flow::Oauth, &[(row.refusal, Code::InvalidState)]),
        (row.success == Success::Tokens, &OF_TOKENS),
        (matches!(row.success, Success::TotpVerified(_)), &[(row.refusal, Code::InvalidCode)]),
    ];
    let own = possible.into_iter().filter(|(is_possible, _)| *is_possible).flat_map(|(_, failures)| failures).copied();
    own.chain(of_cognito(row, settings)).collect()
}

/// Errors of every operation: of the request's form, and of its address.
const OF_REQUESTS: [(u16, Code); 4] =
    [(400, Code::InvalidRequest), (413, Code::TooLarge), (415, Code::UnsupportedMediaType), (429, Code::RateLimited)];

/// Errors for tokens that Cognito has issued and a client does not get: their session was revoked, or they are too large.
const OF_TOKENS: [(u16, Code); 3] =
    [(401, Code::InvalidToken), (502, Code::SessionTooLarge), (502, Code::UpstreamError)];

/// Errors that the errors of Cognito become.
fn of_cognito(row: &Row, settings: &Settings) -> Vec<(u16, Code)> {
    let errors = calls(row, settings).into_iter().flat_map(Operation::errors);
    let contexts: &[bool] = if row.credential == Credential::TokenOrSession { &[false, true] } else { &[false] };
    let judged = errors.flat_map(|error| {
        contexts.iter().filter_map(move |by_session| {
            match judge(row, &error, ErrorContext { hide_users: settings.hide_users, by_session: *by_session }) {
                Judgement::Error(error) => Some((error.status, error.code)),
                Judgement::AsIfDone => None,
            }
        })
    });
    judged.collect()
}

fn of_authorize_url(settings: &Settings) -> Vec<Code> {
    let cross_site = settings.cookies.map(|_| Code::CrossSite);
    let codes = [Code::InvalidRequest, Code::RateLimited, Code::MethodNotAllowed, Code::UpstreamUnavailable];
    codes.into_iter().chain(cross_site).collect()
}

fn of_place(place: Place, settings: &Settings) -> Vec<Code> {
    let of_flow = |flow| {
        let failures = row_of(flow).map(|row| of_cognito(row, settings)).unwrap_or_default();
        failures.into_iter().map(|(_, code)| code)
    };
    let inner = match place {
        // Most errors of a renewal lead to a sign-in.
        Place::SignIn | Place::Renew => Vec::new(),
        Place::Callback => of_flow(Flow::Oauth).chain(OF_TOKENS.iter().map(|(_, code)| *code)).collect(),
        // A session that Cognito does not know any more counts as ended.
        Place::SignOut => {
            of_flow(Flow::Logout).filter(|code| !matches!(code, Code::InvalidToken | Code::ScopeMissing)).collect()
        }
    };
    place.codes().iter().copied().chain(inner).collect()
}

fn success_or(codes: &[Code]) -> Vec<&'static str> {
    [SUCCESS].into_iter().chain(labels(codes)).collect()
}

/// Each code once, in the order of [`Code::ALL`].
fn labels(codes: &[Code]) -> Vec<&'static str> {
    Code::ALL.iter().filter(|code| codes.contains(code)).map(|code| code.as_str()).collect()
}
