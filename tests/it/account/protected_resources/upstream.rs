//! Cognito's own metadata: what is fetched, how often, and what its faults cause.

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{HOST, RESOURCE, SERVER, Stage, cognitos, file, quick, send};
use crate::support::client::get;
use crate::support::fake_cognito::slowly;
use crate::support::server::Reply;
use crate::support::{PATIENCE, eventually};

#[tokio::test]
async fn faults_of_cognito_are_answered_with_503() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut document = cognitos("https://pages.example");
        change(&mut document);
        Reply::ok(document.to_string())
    };
    let redirect = Reply { headers: vec![("location", "https://pages.example/".into())], ..Reply::status(302) };
    let large = with(&|document| document["x"] = "x".repeat(256 * 1024).into());
    for (name, reply, outcome) in [
        ("no JSON", Reply::ok("<html>"), "nonsense"),
        ("a list", Reply::ok("[]"), "nonsense"),
        ("cut off", Reply::ok("{\"authorization_endpoint\": \"https://pages.exa"), "nonsense"),
        ("too large", large, "nonsense"),
        ("a redirect", redirect, "nonsense"),
        ("not found", Reply::status(404), "nonsense"),
        ("an error", Reply::status(500), "failed"),
        ("throttled", Reply { status: 400, ..Reply::ok("{\"__type\":\"TooManyRequestsException\"}") }, "throttled"),
        ("late", slowly(Reply::ok(cognitos("https://pages.example").to_string()), PATIENCE * 2), "timeout"),
        (
            "without a domain",
            with(&|document| drop(document.as_object_mut().unwrap().remove("token_endpoint"))),
            "success",
        ),
        ("no URL", with(&|document| document["authorization_endpoint"] = "javascript:alert(1)".into()), "success"),
    ] {
        let stage = Stage::new(&file(), &[&quick()[..], &["--cognito-timeout=1s"]].concat()).await;
        stage.fake.answers(move |_, _| reply.clone());
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(stage.get(HOST, SERVER).await.verdict(), (503, "upstream_unavailable"), "{name}");
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{name}: later than the default: {:?}", start.elapsed());
        assert_eq!(stage.fetches().len(), 1, "{name}: once in ten seconds");
        let series = format!("cognito_requests_total{{operation=\"OpenidConfiguration\",outcome=\"{outcome}\"}}");
        assert_eq!(stage.metric(&series).await, 1.0, "{name}");
        // The document of the resource does not depend on Cognito, and neither does registration.
        assert_eq!(stage.get(HOST, RESOURCE).await.status, 200, "{name}");
        assert_eq!(stage.register(&json!({"redirect_uris": [super::URIS[0]]})).await.status, 201, "{name}");
        // The circuit of the account API is not affected.
        stage.fake.answers(|_, _| Reply::ok("{}"));
        assert_eq!(get(&stage.app.admin, "/readyz").await.0, 200);
    }
}

#[tokio::test]
async fn an_outage_ends_when_cognito_answers_again() {
    let stage = Stage::new(&file(), &quick()).await;
    stage.fake.answers(|_, number| match number {
        0 => Reply::status(500),
        _ => Reply::ok(cognitos("https://pages.example").to_string()),
    });
    let start = Instant::now();
    let requests = Cell::new(0);
    eventually("the document", Duration::from_secs(25), async || {
        requests.set(requests.get() + 1);
        stage.get(HOST, SERVER).await.status == 200
    })
    .await;
    assert!(start.elapsed() >= Duration::from_secs(9), "not before ten seconds: {:?}", start.elapsed());
    let (requests, fetches) = (requests.get(), stage.fetches().len());
    assert!(requests > 10 && fetches == 2, "{requests} requests, {fetches} fetches");
    // From now on Cognito is not needed.
    stage.fake.answers(|_, _| Reply::status(500));
    assert_eq!(stage.get(HOST, SERVER).await.status, 200);
    assert!(stage.fetches().is_empty());
}

#[tokio::test]
async fn many_requests_cause_one_fetch() {
    let stage = Stage::new(&file(), &quick()).await;
    let document = || Reply::ok(cognitos("https://pages.example").to_string());
    stage.fake.answers(move |_, _| slowly(document(), Duration::from_millis(500)));
    let mut requests = JoinSet::new();
    for number in 0..50 {
        let admin = stage.app.admin.clone();
        requests.spawn(async move {
            let query = format!("{SERVER}?issuer=https://evil.example&number={number}");
            send(&admin, reqwest::Method::GET, &query, &[("host", HOST)], "").await
        });
    }
    while let Some(answer) = requests.join_next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(!answer.text.contains("evil"));
    }
    assert_eq!(stage.fetches().len(), 1);
}

/// A client that leaves during the first fetch does not make the others wait for ten seconds.
#[tokio::test]
async fn a_client_that_leaves_does_not_end_the_fetch() {
    let stage = Stage::new(&file(), &quick()).await;
    let document = || Reply::ok(cognitos("https://pages.example").to_string());
    stage.fake.answers(move |_, _| slowly(document(), Duration::from_secs(1)));
    let url = format!("http://{}{SERVER}", stage.app.admin);
    let impatient = reqwest::Client::builder().timeout(Duration::from_millis(300)).build().unwrap();
    assert!(impatient.get(url).send().await.is_err(), "it has left");
    assert_eq!(stage.get(HOST, SERVER).await.status, 200);
    assert_eq!(stage.fetches().len(), 1);
}
