//! Sign-in by redirect, for applications without scripts: the browser is sent to the hosted pages and back, and the
//! session is in cookies. These routes answer navigations with redirects, or with a small page if something is wrong.
//!
//! - `/oauth/sign-in` renews the session if it can, else starts a sign-in at the hosted pages ([`sign_in`]).
//! - `/oauth/callback` takes the code of the hosted pages, sets the cookies, and returns to the page that was asked for.
//! - `/oauth/renew` renews the session, else leads to the sign-in.
//! - `/oauth/sign-out` ends the session here, at Cognito, and at the hosted pages ([`sign_out`]).
//!
//! They exist if browser sessions and the hosted pages are on, and one of the redirect URIs is the callback here.
//!
//! [`attempt`] keeps a started sign-in in a cookie, [`return_to`] checks the page to return to, [`rounds`] ends loops,
//! [`navigation`] tells which requests count, [`page`] writes the pages.

mod attempt;
mod navigation;
mod page;
mod return_to;
mod rounds;
mod sign_in;
mod sign_out;

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use url::Url;

use self::page::{Page, Pages, Step, guard};
use self::return_to::ReturnTo;
use super::answer::SUCCESS;
use super::caller::Address;
use super::context::Context;
use super::error::{AccountError, Code};
use super::http::lists;
use super::oauth::{Oauth, parameter};
use super::refresh::Refreshes;
use super::settings::{AppUri, Cookies, Prefix};
use super::table::{Flow, Row, row_of};
use super::token_transport::TokenTransport;
use crate::net::http_server::Answer;
use crate::request_id::RequestId;
use crate::session_cookie::Sent;

/// Route of the sign-in by redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    SignIn,
    Callback,
    Renew,
    SignOut,
}

impl Place {
    pub(super) const ALL: [Self; 4] = [Self::SignIn, Self::Callback, Self::Renew, Self::SignOut];

    /// Path below the prefix.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::SignIn => "/oauth/sign-in",
            Self::Callback => "/oauth/callback",
            Self::Renew => "/oauth/renew",
            Self::SignOut => "/oauth/sign-out",
        }
    }

    /// Value of the label `operation`, and `operationId`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SignIn => "oauth-sign-in",
            Self::Callback => "oauth-callback",
            Self::Renew => "oauth-renew",
            Self::SignOut => "oauth-sign-out",
        }
    }

    /// Methods, for `Allow`. A HEAD must not use up a code or end a session.
    pub(super) fn methods(self) -> &'static str {
        match self {
            Self::SignIn | Self::Renew => "GET, HEAD",
            Self::Callback => "GET",
            Self::SignOut => "GET, POST",
        }
    }

    /// Codes of the route's pages, except those that errors of Cognito become.
    pub(super) fn codes(self) -> &'static [Code] {
        use Code::{
            CrossSite, InvalidRequest, InvalidState, MethodNotAllowed, RateLimited, SessionTooLarge, SignInFailed,
            SignInLoop, UpstreamError, UpstreamUnavailable,
        };
        match self {
            Self::SignIn | Self::Renew => &[
                InvalidRequest,
                SignInLoop,
                SessionTooLarge,
                MethodNotAllowed,
                RateLimited,
                UpstreamUnavailable,
                UpstreamError,
            ],
            Self::Callback => &[InvalidRequest, InvalidState, SignInFailed, MethodNotAllowed, RateLimited],
            Self::SignOut => &[InvalidRequest, CrossSite, MethodNotAllowed, RateLimited],
        }
    }

    /// `true` if the route takes the method.
    pub(super) fn takes(self, method: &Method) -> bool {
        lists(self.methods(), method)
    }
}

/// Handler of the four routes.
#[derive(Debug)]
pub(super) struct Browser {
    context: Arc<Context>,
    refreshes: Arc<Refreshes>,
    oauth: Arc<Oauth>,
    cookies: Cookies,
    callbacks: Vec<Callback>,
    pages: Pages,
    rows: Rows,
}

/// Operations of the account API that the routes run.
#[derive(Clone, Copy, Debug)]
struct Rows {
    exchange: &'static Row,
    refresh: &'static Row,
    sign_out: &'static Row,
}

/// Redirect URI that leads here.
#[derive(Debug)]
struct Callback {
    uri: AppUri,
    /// Origin in the form that browsers send.
    origin: String,
    /// Host, and the port unless it is the default one, as browsers send them.
    host: String,
    /// Default port of the scheme, with a colon.
    default_port: &'static str,
}

impl Callback {
    fn new(uri: &AppUri) -> Option<Self> {
        let url = Url::parse(uri.as_str()).ok()?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let host = format!("{}{port}", url.host_str()?);
        let default_port = if url.scheme() == "https" { ":443" } else { ":80" };
        let origin = url.origin().ascii_serialization();
        Some(Self { uri: uri.clone(), origin, host, default_port })
    }

    fn is_at(&self, host: &str) -> bool {
        host.strip_suffix(self.default_port).unwrap_or(host).eq_ignore_ascii_case(&self.host)
    }
}

/// Navigation to one of the routes.
struct Visit<'r> {
    method: &'r Method,
    query: &'r str,
    headers: &'r HeaderMap,
    transport: TokenTransport<'r>,
    prefix: &'r Prefix,
}

/// Redirect that ends a navigation.
struct Redirect {
    location: String,
    /// Values of `Set-Cookie`.
    cookies: Vec<String>,
}

/// Page that ends a navigation.
#[derive(Debug)]
struct Refusal {
    page: Box<Page>,
    /// Values of `Set-Cookie`.
    cookies: Vec<String>,
}

impl From<Page> for Refusal {
    fn from(page: Page) -> Self {
        Self { page: Box::new(page), cookies: Vec::new() }
    }
}

/// Response to a navigation.
pub(super) struct Shown {
    pub(super) response: Answer,
    /// Value of the label `outcome`.
    pub(super) outcome: &'static str,
}

impl Browser {
    /// Creates the handler; `None` if the routes do not exist.
    pub(super) fn new(context: &Arc<Context>, refreshes: &Arc<Refreshes>, oauth: &Arc<Oauth>) -> Option<Self> {
        let cookies = context.settings.cookies?;
        let hosted = context.settings.hosted_ui.as_ref()?;
        let callbacks: Vec<_> = hosted.callbacks(&context.settings.prefix).filter_map(Callback::new).collect();
        let rows =
            Rows { exchange: row_of(Flow::Oauth)?, refresh: row_of(Flow::Refresh)?, sign_out: row_of(Flow::Logout)? };
        (!callbacks.is_empty()).then(|| Self {
            context: Arc::clone(context),
            refreshes: Arc::clone(refreshes),
            oauth: Arc::clone(oauth),
            cookies,
            callbacks,
            pages: Pages::new(),
            rows,
        })
    }

    /// Answers a navigation. The route takes its method.
    pub(super) async fn answer(&self, place: Place, request: &Parts, address: &Address, id: &RequestId) -> Shown {
        let visit = Visit {
            method: &request.method,
            query: request.uri.query().unwrap_or_default(),
            headers: &request.headers,
            transport: TokenTransport::of_navigation(&request.headers, self.cookies),
            prefix: &self.context.settings.prefix,
        };
        let result = match self.admit(place, &visit, address) {
            Ok(()) => match place {
                Place::SignIn => self.sign_in(&visit, visit.asks_for_login()).await,
                Place::Renew if !visit.can_renew() => Ok(visit.to_sign_in()),
                Place::Renew => self.sign_in(&visit, false).await,
                Place::Callback => self.callback(&visit).await,
                Place::SignOut => self.sign_out(&visit).await,
            },
            Err(refusal) => Err(refusal),
        };
        let (mut response, outcome, cookies) = match result {
            Ok(Redirect { location, cookies }) => (redirect(&location), SUCCESS, cookies),
            Err(Refusal { page, cookies }) => (self.pages.response(&page, id), page.error.code.as_str(), cookies),
        };
        for cookie in cookies.into_iter().filter_map(|cookie| HeaderValue::try_from(cookie).ok()) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        Shown { response, outcome }
    }

    /// Rejects requests that are no navigation, and addresses with too many requests.
    fn admit(&self, place: Place, visit: &Visit<'_>, address: &Address) -> Result<(), Refusal> {
        let page = if place == Place::SignOut { Page::sign_out } else { Page::sign_in };
        if !navigation::is_navigation(visit.headers) {
            let message = "A browser has to open this address as a page.";
            return Err(page(AccountError::invalid_request(message), None).into());
        }
        self.context.limits.request(address).map_err(|wait| page(AccountError::rate_limited(wait), None).into())
    }

    /// Returns the redirect URI for a request: the one with the host that the browser names, else the only one, because a
    /// proxy can rewrite the host. Nothing is made from the host itself, because a client can send any.
    fn own_callback(&self, headers: &HeaderMap) -> Option<&Callback> {
        let host = match Sent::of(headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes)) {
            Sent::Once(host) => std::str::from_utf8(host).ok(),
            Sent::Never | Sent::Repeated => None,
        };
        let named = self.callbacks.iter().find(|callback| host.is_some_and(|host| callback.is_at(host)));
        let only = match &*self.callbacks {
            [only] => Some(only),
            _ => None,
        };
        named.or(only)
    }
}

impl Visit<'_> {
    /// The page to return to: the parameter `return_to` if it is there once and safe, else `/`.
    fn return_to(&self) -> ReturnTo {
        let asked = parameter(self.query, "return_to").ok().flatten();
        ReturnTo::parse(&asked.unwrap_or_default(), self.prefix)
    }

    /// `true` for `prompt=login`: the user has to enter the credentials again.
    fn asks_for_login(&self) -> bool {
        parameter(self.query, "prompt").is_ok_and(|prompt| prompt.as_deref() == Some("login"))
    }

    /// `true` if the request has a refresh token in its cookies.
    fn can_renew(&self) -> bool {
        matches!(self.transport.refresh_token(), Ok(Some(_)))
    }

    /// Redirect to the sign-in, for a session that cannot be renewed.
    fn to_sign_in(&self) -> Redirect {
        Redirect { location: self.sign_in_address(&self.return_to(), false), cookies: Vec::new() }
    }

    /// Address that starts a new sign-in.
    fn sign_in_address(&self, return_to: &ReturnTo, login_again: bool) -> String {
        let prompt = if login_again { "&prompt=login" } else { "" };
        let path = Place::SignIn.path();
        format!("{}{path}?return_to={}{prompt}", self.prefix.as_str(), return_to.encoded())
    }

    /// Step that starts a new sign-in.
    fn sign_in_again(&self, return_to: &ReturnTo, login_again: bool, text: &'static str) -> Step {
        Step::Link { href: self.sign_in_address(return_to, login_again), text }
    }

    /// Step that ends the session, also at the hosted pages.
    fn sign_out(&self, text: &'static str) -> Step {
        Step::SignOut { action: format!("{}{}", self.prefix.as_str(), Place::SignOut.path()), text }
    }
}

fn redirect(location: &str) -> Answer {
    let mut response = Response::new(Full::default());
    // A location is ASCII: a path that was checked, or a URL.
    let location = HeaderValue::from_str(location).unwrap_or(HeaderValue::from_static("/"));
    *response.status_mut() = StatusCode::FOUND;
    response.headers_mut().insert(header::LOCATION, location);
    guard(&mut response, false);
    response
}

/// 400 for a sign-in that is not in progress in this browser.
fn invalid_state() -> AccountError {
    AccountError {
        message: "This sign-in took too long, was finished before, or was begun in another browser. If this page \
                  comes again, allow cookies for this site."
            .into(),
        ..AccountError::new(400, Code::InvalidState)
    }
}
