//! Rule for URLs that the service fetches from.

use std::net::IpAddr;

use url::{Host, Url};

/// Checks a URL to fetch from: `https`, or plain `http` to a loopback host, or to any host if `allow_insecure`
/// (`--allow-insecure-endpoints`). It has no user name, password or fragment.
///
/// # Errors
/// A phrase that says what is wrong with the URL.
pub(super) fn check_endpoint(url: &Url, allow_insecure: bool) -> Result<(), String> {
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("the URL contains a user name, a password or a fragment".into());
    }
    let is_loopback = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => return Err("the URL has no host".into()),
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback || allow_insecure => Ok(()),
        "http" => Err("plain http to a host other than loopback needs --allow-insecure-endpoints".into()),
        scheme => Err(format!("the scheme is {scheme}, not https")),
    }
}
