//! Certificates that change while the service runs.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::Stage;
use crate::support::certificates::{Authority, EXPIRES, Identity};
use crate::support::client::{get, metric};
use crate::support::tls::{SERVICE, TlsClient, check_over};
use crate::support::{PATIENCE, eventually};

/// Unix time of the beginning of the last day of this year, at which certificates of the tests expire.
fn end_of(year: i32) -> f64 {
    let days = (1970..year).map(|year| if year % 4 == 0 { 366 } else { 365 }).sum::<u32>();
    let leap = u32::from(year % 4 == 0);
    f64::from(days + 364 + leap) * 86_400.0
}

impl Stage {
    async fn expiry(&self, listener: &str) -> f64 {
        let series = format!("tls_certificate_expiry_timestamp_seconds{{listener=\"{listener}\"}}");
        metric(&self.program.admin, &series).await
    }

    /// Waits until a certificate that expires in this year is in effect.
    async fn is_in_effect(&self, year: i32) {
        eventually("the certificate is in effect", PATIENCE, async || self.expiry("grpc").await == end_of(year)).await;
    }

    /// Waits until the last reloads are reported as successful, which happens after they take effect.
    async fn becomes_successful(&self) {
        eventually("reported", PATIENCE, async || self.is_successful().await && self.error().await.is_empty()).await;
    }

    /// Returns the error of `/readyz` about the certificates; empty if there is none.
    async fn error(&self) -> String {
        let (status, body) = get(&self.program.admin, "/readyz").await;
        assert_eq!(status, 200, "the previous certificates are in effect");
        let body: Value = serde_json::from_str(&body).unwrap();
        body["tls"].as_str().unwrap_or_default().to_owned()
    }

    async fn is_successful(&self) -> bool {
        metric(&self.program.admin, "config_last_reload_successful").await == 1.0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_under_load_fails_no_check_and_ends_no_connection() {
    let stage = Stage::start(&["--grpc-listen", "mtls:127.0.0.1:0", "--account-listen", "tls:127.0.0.1:0"]).await;
    for listener in ["grpc", "account"] {
        assert_eq!(stage.expiry(listener).await, end_of(EXPIRES), "{listener}");
    }
    let (_, metrics) = get(&stage.program.admin, "/metrics").await;
    assert!(!metrics.contains("seconds{listener=\"admin\"}"), "the admin port has no certificate");

    let client = TlsClient::grpc(&[&stage.authority], Some(&stage.clients.issue(&["envoy.test"])));
    let stop = Arc::new(AtomicBool::new(false));
    let handshakes = Arc::new(AtomicUsize::new(0));
    let mut load = Vec::new();
    for keeps in [true, true, false, false] {
        let (client, address, token) = (client.clone(), stage.grpc().to_owned(), stage.token.clone());
        let (stop, handshakes) = (Arc::clone(&stop), Arc::clone(&handshakes));
        load.push(tokio::spawn(async move {
            let mut kept = client.http2(&address).await.unwrap();
            let mut answered = 0;
            while !stop.load(Ordering::Relaxed) {
                if keeps {
                    assert_eq!(check_over(&mut kept, &token).await, Ok(200), "a connection that is kept");
                } else {
                    assert_eq!(client.check(&address, &token).await, Ok(200), "a new connection");
                    handshakes.fetch_add(1, Ordering::Relaxed);
                }
                answered += 1;
            }
            answered
        }));
    }
    // Kubernetes gives no signal; every other rotation is by SIGHUP, which does not wait for the files to settle.
    for number in 1..=8 {
        let year = EXPIRES + number;
        stage.files.mount(&stage.authority.issue_until(&[SERVICE], year), &stage.clients.certificate());
        if number % 2 == 0 {
            stage.program.signal("HUP");
        }
        let before = handshakes.load(Ordering::Relaxed);
        stage.is_in_effect(year).await;
        eventually("handshakes with the new certificate", PATIENCE, async || {
            assert!(!load.iter().any(tokio::task::JoinHandle::is_finished), "a check failed");
            handshakes.load(Ordering::Relaxed) >= before + 10
        })
        .await;
        assert_eq!(stage.expiry("account").await, end_of(year));
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        let answered: usize = task.await.unwrap();
        assert!(answered > 50, "{answered}: there was no load");
    }
    eventually("all reloads are counted", PATIENCE, async || {
        metric(&stage.program.admin, "config_reloads_total{result=\"success\"}").await >= 8.0
    })
    .await;
    stage.becomes_successful().await;
    assert_eq!(metric(&stage.program.admin, "config_reloads_total{result=\"failure\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_pair_keeps_the_previous_one_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy.yaml");
    fs::write(&policy, "policies: {a: {}}\n").unwrap();
    let policy = policy.to_str().unwrap();
    let flags = ["--grpc-listen", "tls:127.0.0.1:0", "--config", policy];
    let mut stage = Stage::start(&flags).await;
    let client = TlsClient::grpc(&[&stage.authority], None);
    let (good, ca) = (stage.authority.issue(&[SERVICE]), stage.clients.certificate());
    let stranger = Authority::new("x").issue(&[SERVICE]);
    let mixed = |certificate: &str, key: &str| Identity { certificate: certificate.into(), key: key.into() };
    let cases = [
        (mixed(&stranger.certificate, &good.key), "is not the key of the certificate in"),
        (mixed(&good.certificate, "x"), "contains no unencrypted private key"),
        (mixed("x", &good.key), "contains no certificate in PEM form"),
        (stage.authority.issue_until(&[SERVICE], 2001), "contains a certificate that expired at 2001"),
        (stage.authority.issue_too_early(&[SERVICE]), "that is not valid before 2099"),
    ];
    for (number, (broken, why)) in (1..).zip(cases) {
        stage.files.mount(&broken, &ca);
        if number > 1 {
            stage.program.signal("HUP");
        }
        eventually(why, PATIENCE, async || stage.error().await.contains(why)).await;
        stage.program.wait_for_line("the TLS certificates are not reloaded; the previous ones stay in effect");
        assert!(!stage.is_successful().await, "{why}");
        assert_eq!(stage.expiry("grpc").await, end_of(EXPIRES + number - 1), "{why}");
        assert_eq!(client.check(stage.grpc(), &stage.token).await, Ok(200), "{why}");
        // A policy file that is reloaded does not hide that the certificates are not.
        fs::write(policy, format!("policies: {{a: {{}}}}\n# {number}\n")).unwrap();
        stage.program.signal("HUP");
        stage.program.wait_for_line("the policy file has been reloaded");
        assert!(!stage.is_successful().await && stage.error().await.contains(why), "{why}");

        let year = EXPIRES + number;
        stage.files.mount(&stage.authority.issue_until(&[SERVICE], year), &ca);
        stage.program.signal("HUP");
        stage.is_in_effect(year).await;
        stage.becomes_successful().await;
    }
    // The files disappear, and return.
    let hidden = directory.path().join("key");
    fs::rename(stage.files.path("tls.key"), &hidden).unwrap();
    eventually("gone", PATIENCE, async || stage.error().await.contains("tls.key cannot be read")).await;
    assert_eq!(client.check(stage.grpc(), &stage.token).await, Ok(200));
    fs::rename(&hidden, stage.files.path("tls.key")).unwrap();
    stage.becomes_successful().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_ca_of_clients_applies_to_new_connections() {
    let stage = Stage::start(&["--grpc-listen", "mtls:127.0.0.1:0"]).await;
    let others = Authority::new("others");
    let (ours, theirs) = (stage.clients.issue(&["envoy.test"]), others.issue(&["envoy.test"]));
    let client = |identity: &Identity| TlsClient::grpc(&[&stage.authority], Some(identity));
    // The first client has sessions that it could resume.
    let old = client(&ours);
    let mut kept = old.http2(stage.grpc()).await.unwrap();
    assert_eq!(check_over(&mut kept, &stage.token).await, Ok(200));
    assert!(client(&theirs).check(stage.grpc(), &stage.token).await.is_err());

    let year = EXPIRES + 1;
    stage.files.mount(&stage.authority.issue_until(&[SERVICE], year), &others.certificate());
    stage.is_in_effect(year).await;
    assert_eq!(client(&theirs).check(stage.grpc(), &stage.token).await, Ok(200));
    for client in [&old, &client(&ours)] {
        assert!(client.check(stage.grpc(), &stage.token).await.is_err());
    }
    assert_eq!(check_over(&mut kept, &stage.token).await, Ok(200), "an open connection is kept");

    // Both at once, as in a rotation of the CA.
    let both = format!("{}{}", others.certificate(), stage.clients.certificate());
    let year = EXPIRES + 2;
    stage.files.mount(&stage.authority.issue_until(&[SERVICE], year), &both);
    stage.is_in_effect(year).await;
    for identity in [&ours, &theirs] {
        assert_eq!(client(identity).check(stage.grpc(), &stage.token).await, Ok(200));
    }
    tokio::time::timeout(Duration::from_secs(5), check_over(&mut kept, &stage.token)).await.unwrap().unwrap();
}
