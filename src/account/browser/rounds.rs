//! Limit for sign-ins that complete and lead nowhere: a page that refuses a new session asks for the next one at once.
//!
//! A completed sign-in, or a renewal, is noted in a short-lived cookie for its page. After [`MAX_ROUNDS`] of them within
//! [`PERIOD`], the browser gets a page of ours instead of one more round. Other pages do not count, so that many tabs
//! can be renewed at once.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::return_to::ReturnTo;
use crate::clock::UnixTime;
use crate::session_cookie::ShortLived;

/// Maximum number of completed rounds for one page within [`PERIOD`].
const MAX_ROUNDS: usize = 3;
/// Period in seconds.
const PERIOD: UnixTime = 60;
/// Maximum number of cookies of other pages in one browser.
const MAX_OTHERS: usize = 7;
/// Number of bytes of the page's hash that name the cookie.
const ID_BYTES: usize = 9;

/// Rounds of one page that were completed a moment ago.
#[derive(Debug)]
pub(super) struct Rounds<'h> {
    id: String,
    /// Times of the rounds; the last one is the latest.
    times: Vec<UnixTime>,
    /// Ids of other pages.
    others: Vec<&'h str>,
}

impl<'h> Rounds<'h> {
    /// Reads the rounds of a page from the request's cookies. A damaged cookie counts as absent.
    pub(super) fn read(return_to: &ReturnTo, cookies: impl Iterator<Item = &'h [u8]> + Clone, now: UnixTime) -> Self {
        let hash = digest::digest(&digest::SHA256, return_to.as_str().as_bytes());
        let id = URL_SAFE_NO_PAD.encode(hash.as_ref().get(..ID_BYTES).unwrap_or_default());
        let value = ShortLived::Rounds.read(&id, cookies.clone()).ok().flatten().unwrap_or_default();
        // The clock of the replica that wrote a time can differ from this one.
        let is_recent = |time: &UnixTime| now.abs_diff(*time) < PERIOD.unsigned_abs();
        let times = value.split('.').filter_map(|time| time.parse().ok()).filter(is_recent).take(MAX_ROUNDS).collect();
        let mut others: Vec<_> =
            ShortLived::Rounds.all(cookies).map(|(id, _)| id).filter(|other| *other != id).collect();
        others.dedup();
        Self { id, times, others }
    }

    /// `true` if no further round may start.
    pub(super) fn is_full(&self) -> bool {
        self.times.len() >= MAX_ROUNDS
    }

    /// Returns the `Set-Cookie` values that note a round that was completed at `now`.
    pub(super) fn completed(&self, now: UnixTime) -> Vec<String> {
        let mut times: Vec<_> = self.times.iter().map(ToString::to_string).collect();
        times.push(now.to_string());
        let latest = times.get(times.len().saturating_sub(MAX_ROUNDS)..).unwrap_or_default();
        let excess = self.others.len().saturating_sub(MAX_OTHERS);
        let gone = self.others.iter().take(excess).map(|id| ShortLived::Rounds.clear(id));
        let noted = ShortLived::Rounds.set(&self.id, &latest.join("."), PERIOD.unsigned_abs());
        gone.chain(noted).collect()
    }

    /// Returns the `Set-Cookie` value that forgets the rounds of the page.
    pub(super) fn forget(&self) -> String {
        ShortLived::Rounds.clear(&self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(path: &str) -> ReturnTo {
        ReturnTo::parse(path, &"/auth".parse().unwrap())
    }

    /// Returns the rounds of `path` in a browser with this `Cookie` header.
    fn rounds<'h>(path: &str, cookie: &'h str, now: UnixTime) -> Rounds<'h> {
        Rounds::read(&page(path), std::iter::once(cookie.as_bytes()), now)
    }

    fn cookie(lines: &[String]) -> String {
        let kept = lines.iter().filter(|line| !line.contains("Max-Age=0;"));
        kept.map(|line| line.split(';').next().unwrap()).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn three_rounds_of_a_page_within_a_minute_are_the_limit() {
        let mut jar = String::new();
        for now in [100, 110, 120] {
            assert!(!rounds("/a", &jar, now).is_full());
            let lines = rounds("/a", &jar, now).completed(now);
            assert!(lines[0].ends_with("; Path=/; Max-Age=60; HttpOnly; Secure; SameSite=Lax"), "{lines:?}");
            jar = cookie(&lines);
        }
        assert!(jar.ends_with("=100.110.120"), "{jar}");
        assert!(rounds("/a", &jar, 121).is_full() && rounds("/a", &jar, 90).is_full());
        assert!(!rounds("/b", &jar, 121).is_full(), "another page");
        assert!(!rounds("/a", &jar, 160).is_full(), "the first one is a minute ago");
        assert!(!rounds("/a", &jar, 30).is_full(), "a clock that is far away");
        assert!(rounds("/a", &jar, 121).forget().contains("Max-Age=0;"));
        for damaged in ["", "x", "-", "9999999999999999999", "...", "120;120"] {
            let name = jar.split('=').next().unwrap();
            assert!(!rounds("/a", &format!("{name}={damaged}"), 121).is_full(), "{damaged}");
        }
    }

    #[test]
    fn cookies_of_other_pages_are_limited() {
        let others: Vec<_> = (0..20).map(|n| cookie(&rounds(&format!("/{n}"), "", 100).completed(100))).collect();
        let jar = others.join("; ");
        let lines = rounds("/a", &jar, 100).completed(100);
        assert_eq!(lines.iter().filter(|line| line.contains("Max-Age=0;")).count(), 20 - MAX_OTHERS);
    }
}
