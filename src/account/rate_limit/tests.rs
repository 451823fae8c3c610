use super::*;
use crate::metrics::account::AccountMetrics;

fn limits(address: &str, user: &str, sends: &str) -> RateLimits {
    let rates = Rates { address: address.parse().unwrap(), user: user.parse().unwrap(), sends: sends.parse().unwrap() };
    RateLimits::new(rates, AccountMetrics::for_tests())
}

fn from(address: &str) -> Address {
    Address::Client(address.parse().unwrap())
}

/// Returns how many calls in a row are allowed.
fn allowed(mut take: impl FnMut(usize) -> Result<(), u64>) -> usize {
    (0..1000).find(|index| take(*index).is_err()).unwrap_or(1000)
}

#[test]
fn an_ipv4_address_and_an_ipv6_network_have_one_bucket() {
    let limits = limits("5/1h", "1/1h", "1/1h");
    assert_eq!(allowed(|_| limits.request(&from("192.0.2.1"))), 5);
    assert_eq!(limits.request(&from("192.0.2.1")), Err(720));
    assert_eq!(allowed(|_| limits.request(&from("192.0.2.2"))), 5);
    assert_eq!(allowed(|n| limits.request(&from(&format!("2001:db8::{n:x}")))), 5);
    assert_eq!(allowed(|_| limits.request(&from("2001:db8:0:1::1"))), 5);
    assert_eq!(allowed(|_| limits.request(&Address::Unknown)), 50, "ten addresses");
}

#[test]
fn no_header_raises_a_limit() {
    let limits = limits("5/1h", "6/1h", "1/1h");
    let peer = |address: &str| Address::Peer(address.parse().unwrap());
    assert_eq!(allowed(|_| limits.request(&from("192.0.2.1"))), 5);
    assert_eq!(allowed(|_| limits.request(&peer("192.0.2.1"))), 0, "X-Forwarded-For changes nothing");
    assert_eq!(allowed(|_| limits.request(&peer("192.0.2.2"))), 5);
    assert_eq!(allowed(|_| limits.request(&from("192.0.2.2"))), 0);
    assert_eq!(allowed(|_| limits.request(&Address::Unreadable)), 5, "all of them are one address");
    assert_eq!(allowed(|_| limits.guess(&from("192.0.2.1"), "ada")), 6);
    assert_eq!(allowed(|_| limits.guess(&peer("192.0.2.1"), "ada")), 0);
    assert_eq!(allowed(|_| limits.guess(&Address::Unreadable, "bob")), 6);
}

#[test]
fn attempts_at_a_user_are_limited_per_address_and_in_total() {
    let limits = limits("1000/1h", "12/1h", "3/1h");
    let guess = |address: &Address, user: &str| limits.guess(address, user);
    assert_eq!(allowed(|_| guess(&from("192.0.2.1"), "ada")), 12);
    assert_eq!(allowed(|_| guess(&from("192.0.2.1"), " ADA ")), 0, "names are case-insensitive");
    assert_eq!(allowed(|_| guess(&from("192.0.2.2"), "ada")), 4);
    assert_eq!(allowed(|n| guess(&from(&format!("192.0.2.{}", n % 250)), "bob")), 16);
    assert_eq!(allowed(|_| guess(&Address::Unknown, "eve")), 16);
    assert_eq!(allowed(|_| limits.send(&["ada"])), 3);
}

/// Counts the allowed attempts in a minute: from one address, and from many.
#[tokio::test(start_paused = true)]
async fn a_guesser_is_stopped_within_thirty_attempts_a_minute() {
    let limits = limits("100000/1m", "15/1m", "10/10m");
    let (mut by_one, mut by_all) = (0, 0);
    for tick in 0..600 {
        by_one += usize::from(limits.guess(&from("192.0.2.1"), "ada").is_ok());
        by_all += usize::from(limits.guess(&from(&format!("10.0.{}.{}", tick / 250, tick % 250)), "bob").is_ok());
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert!((15..=20).contains(&by_one), "{by_one}");
    assert!((20..=30).contains(&by_all), "{by_all}");
}

/// One address cannot exhaust a user's limit for other addresses, also with small rates.
#[tokio::test(start_paused = true)]
async fn one_address_leaves_room_for_others() {
    for rate in ["15/1m", "12/1m", "4/1m", "3/1m", "2/1m", "1/1m"] {
        let limits = limits("100000/1m", rate, "10/10m");
        let count: u32 = rate.split_once('/').unwrap().0.parse().unwrap();
        let mut refused = Vec::new();
        for second in 0..600 {
            for _ in 0..10 {
                let _ = limits.guess(&from("192.0.2.66"), "ada");
                tokio::time::advance(Duration::from_millis(100)).await;
            }
            // The user, from a fresh address each time, four times as slowly as the limit would let one address alone.
            if second % (240 / count) == 0
                && limits.guess(&from(&format!("10.0.{}.{}", second / 250, second % 250)), "ada").is_err()
            {
                refused.push(second);
            }
        }
        assert_eq!(refused, [0; 0], "{rate}");
    }
}

#[test]
fn names_of_one_user_share_a_limit() {
    let limits = limits("1000/1h", "6/1h", "3/1h");
    let (here, there) = (from("192.0.2.1"), from("192.0.2.2"));
    // Unknown names are counted separately.
    assert_eq!(allowed(|_| limits.guess(&here, "one@example.test")), 6);
    assert_eq!(allowed(|_| limits.guess(&here, "+4912345678")), 6);
    // A sign-in with each name reveals its user; that attempt counts for the user, too.
    for name in ["two@example.test", "+4987654321", "sub-of-two"] {
        assert!(limits.guess(&there, name).is_ok());
        limits.names_user(&there, name, "two");
    }
    assert_eq!(allowed(|_| limits.guess(&here, "two@example.test")), 5, "eight for the user, minus three");
    for name in ["+4987654321", "sub-of-two", "two"] {
        assert_eq!(allowed(|_| limits.guess(&here, name)), 0, "{name}");
    }
    // Learning cannot raise a limit: the name keeps its own count.
    assert_eq!(allowed(|_| limits.guess(&there, "victim@example.test")), 6);
    for user in ["mallory", "mallet"] {
        limits.names_user(&there, "victim@example.test", user);
        assert_eq!(allowed(|_| limits.guess(&there, "victim@example.test")), 0, "{user}");
    }
}

#[test]
fn every_recipient_of_a_message_counts() {
    let limits = limits("1000/1h", "6/1h", "3/1h");
    assert_eq!(allowed(|n| limits.send(&[&format!("u{n}"), "victim@example.test"])), 3);
    assert_eq!(allowed(|n| limits.send(&[&format!("v{n}"), "Victim+x@EXAMPLE.test"])), 0);
    assert_eq!(allowed(|n| limits.send(&[&format!("w{n}"), "+49 123 45678"])), 3);
    assert_eq!(allowed(|_| limits.send(&["004912345678"])), 0);
    // Several names whose messages go to one address.
    for n in 0..5 {
        limits.sends_to(&format!("x{n}"), ["other@example.test"].into_iter());
    }
    assert_eq!(allowed(|n| limits.send(&[&format!("x{n}")])), 3);
    // Other names of a user.
    limits.is_name_of("sub-of-three", "three");
    assert_eq!(allowed(|n| limits.send(&[["three", "sub-of-three"][n % 2]])), 3);
}

#[test]
fn messages_of_sign_ins_have_a_limit_of_their_own() {
    let limits = limits("1000/1h", "100/1h", "6/1h");
    assert_eq!(allowed(|_| limits.send(&["ada"])), 6);
    assert_eq!(allowed(|_| limits.sign_in_message(&from("192.0.2.1"), "ada")), 6);
    assert_eq!(allowed(|_| limits.sign_in_message(&from("192.0.2.2"), "ada")), 2);
}
