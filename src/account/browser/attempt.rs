//! Sign-ins that were started and not completed yet. Each has a cookie of its own, so that several tabs can sign in at
//! once. The cookie holds the code verifier, so only the browser that started a sign-in can complete it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::return_to::ReturnTo;
use crate::account::oauth::state::LIFETIME;
use crate::account::settings::Prefix;
use crate::clock::UnixTime;
use crate::session_cookie::{CookieError, ShortLived};

/// Maximum number of sign-ins in progress in one browser.
const MAX_ATTEMPTS: usize = 5;
/// Number of characters of the state that name the cookie: 96 random bits.
const ID_CHARS: usize = 16;

/// Sign-in that was started. It has no `Debug`, because the verifier is secret.
pub(super) struct Attempt {
    /// Code verifier (RFC 7636).
    pub(super) verifier: String,
    pub(super) target: Target,
}

/// Purpose of a sign-in, to which its state is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) return_to: ReturnTo,
    /// `true` if a session at the hosted pages is not enough.
    pub(super) login_again: bool,
}

impl Target {
    /// The target as text, for the state.
    pub(super) fn bound(&self) -> String {
        format!("{} {}", u8::from(self.login_again), self.return_to.as_str())
    }
}

impl Attempt {
    /// Reads the sign-in with this state from the request's cookies. Returns `None` if the browser has no such cookie,
    /// or one that is damaged or repeated.
    pub(super) fn read<'h>(state: &str, cookies: impl Iterator<Item = &'h [u8]>, prefix: &Prefix) -> Option<Self> {
        let value = ShortLived::Attempt.read(id(state)?, cookies).ok()??;
        let [_started, login_again, verifier, return_to] = parts(value)?;
        let return_to = String::from_utf8(URL_SAFE_NO_PAD.decode(return_to).ok()?).ok()?;
        let login_again = match login_again {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        let target = Target { return_to: ReturnTo::parse(&return_to, prefix), login_again };
        Some(Self { verifier: verifier.to_owned(), target })
    }

    /// Returns the `Set-Cookie` values that keep a sign-in that starts at `now`, and delete the oldest sign-ins if the
    /// browser has too many.
    ///
    /// # Errors
    /// [`CookieError`] if the values do not fit into a cookie.
    pub(super) fn keep<'h>(
        &self,
        state: &str,
        now: UnixTime,
        cookies: impl Iterator<Item = &'h [u8]>,
    ) -> Result<Vec<String>, CookieError> {
        let Target { return_to, login_again } = &self.target;
        let return_to = URL_SAFE_NO_PAD.encode(return_to.as_str());
        let value = format!("{now}.{}.{}.{return_to}", u8::from(*login_again), self.verifier);
        let id = id(state).ok_or(CookieError::Malformed)?;
        let kept = ShortLived::Attempt.set(id, &value, LIFETIME.unsigned_abs())?;
        // A cookie without a readable time counts as the oldest. Within a second, the order of the cookies counts.
        let others = ShortLived::Attempt.all(cookies).filter(|(other, _)| *other != id);
        let mut others: Vec<_> = others.map(|(id, value)| (started(value), id)).collect();
        others.sort_by_key(|(started, _)| *started);
        let excess = (others.len() + 1).saturating_sub(MAX_ATTEMPTS);
        let gone = others.into_iter().take(excess).map(|(_, id)| ShortLived::Attempt.clear(id));
        Ok(gone.chain([kept]).collect())
    }

    /// Returns the `Set-Cookie` value that deletes the sign-in with this state, if it has the form of a state.
    pub(super) fn clear(state: &str) -> Option<String> {
        id(state).map(|id| ShortLived::Attempt.clear(id))
    }
}

/// Returns the part of a state that names its cookie. States are base64url.
fn id(state: &str) -> Option<&str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    state.get(..ID_CHARS).filter(|id| id.bytes().all(is_plain))
}

fn parts(value: &str) -> Option<[&str; 4]> {
    let mut parts = value.split('.');
    let found = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(found)
}

fn started(value: &[u8]) -> Option<UnixTime> {
    parts(std::str::from_utf8(value).ok()?)?.first()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix() -> Prefix {
        "/auth".parse().unwrap()
    }

    fn attempt(return_to: &str, login_again: bool) -> Attempt {
        let target = Target { return_to: ReturnTo::parse(return_to, &prefix()), login_again };
        Attempt { verifier: "v".repeat(43), target }
    }

    /// Returns the `Cookie` header of a browser that received this `Set-Cookie` value.
    fn sent(set: &str) -> String {
        set.split(';').next().unwrap().to_owned()
    }

    const STATE: &str = "AbCd-_0123456789rest-of-the-state";

    #[test]
    fn an_attempt_is_read_only_with_its_state() {
        for (return_to, login_again) in
            [("/", false), ("/orders?q=%20&x=y;z", true), (&*format!("/{}", "a".repeat(2047)), true)]
        {
            let kept = attempt(return_to, login_again).keep(STATE, 7, std::iter::empty()).unwrap();
            let [line] = &*kept else { panic!("{kept:?}") };
            assert!(line.ends_with("; Path=/; Max-Age=900; HttpOnly; Secure; SameSite=Lax"), "{line}");
            assert!(sent(line).len() <= 4096 && line.starts_with("__Host-sign_in.AbCd-_0123456789="), "{line}");
            let cookie = sent(line);
            let read = |state: &str, cookie: &str| Attempt::read(state, std::iter::once(cookie.as_bytes()), &prefix());
            let found = read(STATE, &cookie).unwrap();
            assert_eq!(found.target, attempt(return_to, login_again).target);
            assert_eq!(found.verifier.len(), 43);
            let other = format!("x{STATE}");
            for (state, cookie) in [
                ("", &*cookie),
                ("AbCd", &cookie),
                (&*other, &cookie),
                (STATE, ""),
                (STATE, &format!("{cookie}; {cookie}")),
                (STATE, &cookie.replace('.', "")),
                (STATE, &format!("{cookie}.x")),
                (STATE, &cookie.to_lowercase()),
                (STATE, &format!("\x0b{cookie}")),
            ] {
                assert!(read(state, cookie).is_none(), "{state} {cookie}");
            }
        }
    }

    #[test]
    fn a_page_in_the_cookie_is_checked_again() {
        for evil in ["https://evil.example/", "//evil.example", "/auth/oauth/sign-out"] {
            let value = format!("7.0.v.{}", URL_SAFE_NO_PAD.encode(evil));
            let cookie = format!("__Host-sign_in.{}={value}", &STATE[..16]);
            let found = Attempt::read(STATE, std::iter::once(cookie.as_bytes()), &prefix()).unwrap();
            assert_eq!(found.target.return_to.as_str(), "/");
        }
    }

    #[test]
    fn a_browser_has_at_most_five_attempts() {
        let (mut jar, mut started): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        for now in 0..20 {
            let state = format!("{:016}", 99 - now);
            // Several sign-ins start within a second.
            let now = now / 3 * 3;
            let header = jar.join("; ");
            for line in attempt("/", false).keep(&state, now, std::iter::once(header.as_bytes())).unwrap() {
                let cookie = sent(&line);
                let name = cookie.split('=').next().unwrap().to_owned();
                jar.retain(|other| !other.starts_with(&name));
                if !line.contains("Max-Age=0;") {
                    jar.push(cookie);
                }
            }
            started.push(state);
            let kept = started.iter().rev().take(MAX_ATTEMPTS).rev();
            let kept: Vec<_> = kept.map(|state| format!("__Host-sign_in.{state}=")).collect();
            assert!(
                jar.len() == kept.len() && jar.iter().zip(&kept).all(|(cookie, name)| cookie.starts_with(name)),
                "{jar:?}"
            );
        }
        // Cookies that are not ours in form are the first to go.
        jar = (0..5).map(|n| format!("__Host-sign_in.{n}=nonsense")).collect();
        let header = jar.join("; ");
        let lines = attempt("/", false).keep(STATE, 7, std::iter::once(header.as_bytes())).unwrap();
        assert_eq!(lines.iter().filter(|line| line.contains("Max-Age=0;")).count(), 1);
    }

    proptest! {
        #[test]
        fn damaged_cookies_are_never_read_as_another_page(noise in "[ -~]{0,60}", at in 0_usize..80, to in "[ -~]") {
            let line = attempt("/orders", false).keep(STATE, 7, std::iter::empty()).unwrap().remove(0);
            let mut cookie = sent(&line);
            let value = cookie.find('=').unwrap() + 1;
            let at = (value + at).min(cookie.len() - 1);
            cookie.replace_range(at..=at, &to);
            for cookie in [cookie, format!("__Host-sign_in.{}={noise}", &STATE[..16])] {
                if let Some(found) = Attempt::read(STATE, std::iter::once(cookie.as_bytes()), &prefix()) {
                    prop_assert!(found.target.return_to.as_str().starts_with('/'));
                    prop_assert!(!found.target.return_to.as_str().starts_with("//"));
                }
            }
        }
    }
}
