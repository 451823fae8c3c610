use std::sync::Mutex;

use super::refresher::*;
use super::*;
use crate::jwks::fetch::Fetched;
use crate::lifecycle::Readiness;
use crate::metrics::Metrics;
use crate::token_builder::{SigningKey, jwks};
use crate::user_pool::{AcceptedUse, Clients, UserPool};

/// Pool whose fetches are answered by a function. Tests run on paused time.
struct Pool {
    store: KeyStore,
    metrics: JwksMetrics,
    /// Start of each fetch, as time since the start of the test.
    fetches: Arc<Mutex<Vec<Duration>>>,
    readiness: Readiness,
}

type Answer = Box<dyn Fn(usize) -> Result<Vec<u8>, FetchError> + Send + Sync>;

/// Starts a pool. Its fetches take `latency`; `answer` returns the result of the n-th fetch, from 1.
fn start(seed: KeySet, latency: Duration, answer: Answer) -> Pool {
    let metrics = Metrics::new().unwrap().jwks("default", &FetchError::LABELS);
    let readiness = Readiness::default();
    let keys = PoolKeys::new(seed, metrics.clone());
    let pool = UserPool::new("default", "eu-west-1_A".parse().unwrap(), Clients::Any, AcceptedUse::Any).unwrap();
    let blocked = Some(readiness.block("keys".into()));
    let refresher = Refresher::new(Arc::clone(&keys), pool, Duration::from_secs(900), blocked);
    let fetches = Arc::new(Mutex::new(Vec::new()));
    let (log, begin, answer) = (Arc::clone(&fetches), Instant::now(), Arc::new(answer));
    tokio::spawn(refresher.run(move || {
        let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
        async move {
            let number = {
                let mut log = log.lock().unwrap();
                log.push(begin.elapsed());
                log.len()
            };
            time::sleep(latency).await;
            Fetched { url: "https://keys.test/".parse().ok(), result: answer(number) }
        }
    }));
    Pool { store: KeyStore::new(vec![keys]), metrics, fetches, readiness }
}

impl Pool {
    async fn ask(&self, kid: &str) -> Result<(), KeyMiss> {
        self.ask_before(kid, Instant::now() + Duration::from_secs(5)).await
    }

    async fn ask_before(&self, kid: &str, deadline: Instant) -> Result<(), KeyMiss> {
        self.store.key(0, kid, deadline, &mut None).await.map(drop)
    }

    fn fetches(&self) -> usize {
        self.fetches.lock().unwrap().len()
    }
}

fn document(key: &SigningKey) -> Vec<u8> {
    jwks(&[key]).into_bytes()
}

fn seed(key: &SigningKey) -> KeySet {
    KeySet::parse(&document(key), &KeySet::default()).unwrap()
}

const SHARED: &str = "c2hhcmVk+/=";
const OTHER: &str = "b3RoZXI=";
const QUICK: Duration = Duration::from_millis(20);

async fn pass(seconds: u64) {
    time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_check_waits_for_the_first_fetch() {
    let pool = start(KeySet::default(), QUICK, Box::new(|_| Ok(document(SigningKey::shared()))));
    assert_eq!(pool.readiness.pending(), ["keys"]);
    assert_eq!(pool.ask(SHARED).await, Ok(()));
    assert!(pool.readiness.pending().is_empty());
    assert_eq!((pool.metrics.keys.get(), pool.fetches()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_check_waits_at_most_until_its_deadline() {
    let pool = start(KeySet::default(), Duration::from_secs(4), Box::new(|_| Ok(document(SigningKey::shared()))));
    let begin = Instant::now();
    assert_eq!(pool.ask(SHARED).await, Err(KeyMiss::Unavailable));
    assert_eq!(begin.elapsed(), MAX_WAIT);
    let begin = Instant::now();
    assert_eq!(pool.ask_before(SHARED, begin + Duration::from_millis(30)).await, Err(KeyMiss::Unavailable));
    assert_eq!(begin.elapsed(), Duration::from_millis(30));
    pass(4).await;
    assert_eq!(pool.ask(SHARED).await, Ok(()), "the fetch continues after the check that waited for it has ended");
}

#[tokio::test(start_paused = true)]
async fn without_keys_checks_cause_no_fetches() {
    let pool = start(KeySet::default(), QUICK, Box::new(|_| Err(FetchError::Status(500))));
    for _ in 0..600 {
        assert_eq!(pool.ask("any").await, Err(KeyMiss::Unavailable));
        time::sleep(Duration::from_millis(100)).await;
    }
    let at = pool.fetches.lock().unwrap().clone();
    let pauses: Vec<f64> = at.windows(2).map(|pair| pair[1].as_secs_f64() - pair[0].as_secs_f64()).collect();
    for (pause, expected) in pauses.iter().zip([0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]) {
        assert!((expected * 0.9..=expected * 1.1 + 0.03).contains(pause), "{pauses:?}");
    }
    assert!((8..=12).contains(&at.len()), "{at:?}");
    assert_eq!(pool.readiness.pending(), ["keys"]);
}

#[tokio::test(start_paused = true)]
async fn a_recent_fetch_answers_for_unknown_kids() {
    let pool = start(KeySet::default(), QUICK, Box::new(|_| Ok(document(SigningKey::shared()))));
    for _ in 0..100 {
        assert_eq!(pool.ask("unknown").await, Err(KeyMiss::Unknown));
    }
    assert_eq!((pool.fetches(), pool.metrics.unknown_kid.get()), (1, 100));
}

#[tokio::test(start_paused = true)]
async fn unknown_kids_cause_at_most_one_fetch_in_ten_seconds() {
    let pool = start(seed(SigningKey::shared()), QUICK, Box::new(|_| Ok(document(SigningKey::shared()))));
    pass(60).await;
    assert_eq!(pool.fetches(), 1, "the periodic fetch");
    for number in 0..1000 {
        assert_eq!(pool.ask(&format!("unknown{number}")).await, Err(KeyMiss::Unknown));
        time::sleep(Duration::from_millis(100)).await;
    }
    assert!((10..=12).contains(&(pool.fetches())), "{}", pool.fetches());
}

#[tokio::test(start_paused = true)]
async fn failing_fetches_are_not_requested_more_often() {
    let pool = start(seed(SigningKey::shared()), QUICK, Box::new(|_| Err(FetchError::Timeout)));
    pass(1).await;
    for number in 0..300 {
        assert_eq!(pool.ask(&format!("unknown{number}")).await, Err(KeyMiss::Unavailable), "fetches fail");
        assert_eq!(pool.ask(SHARED).await, Ok(()), "keys of the seed stay in use");
        time::sleep(Duration::from_millis(100)).await;
    }
    // In 31 seconds: the first fetch, three requested ones, one or two periodic retries.
    assert!((4..=7).contains(&pool.fetches()), "{:?}", pool.fetches);
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let rotate = |number| Ok(document(if number < 2 { SigningKey::shared() } else { SigningKey::other() }));
    let pool = start(KeySet::default(), QUICK, Box::new(rotate));
    assert_eq!(pool.ask(SHARED).await, Ok(()));
    let old = pool.store.key(0, SHARED, Instant::now(), &mut None).await.unwrap();
    assert_eq!(pool.ask(OTHER).await, Err(KeyMiss::Unknown), "fetched a moment ago");
    pass(11).await;
    assert_eq!(pool.ask(OTHER).await, Ok(()));
    assert_eq!(pool.fetches(), 2);
    assert!(!old.is_current());
    assert_eq!(pool.ask(SHARED).await, Err(KeyMiss::Unknown));
}

#[tokio::test(start_paused = true)]
async fn concurrent_checks_share_one_fetch() {
    let rotate = |number| Ok(document(if number < 2 { SigningKey::shared() } else { SigningKey::other() }));
    let pool = Arc::new(start(KeySet::default(), QUICK, Box::new(rotate)));
    pass(11).await;
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move { pool.ask(OTHER).await })
        })
        .collect();
    for asked in asking {
        assert_eq!(asked.await.unwrap(), Ok(()));
    }
    assert_eq!(pool.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_fetch_keeps_the_keys() {
    let answers = |number| match number {
        1 => Ok(document(SigningKey::shared())),
        2 => Ok(b"<html>".to_vec()),
        3 => Ok(b"{\"keys\":[]}".to_vec()),
        4 => Ok(Vec::new()),
        5 => Err(FetchError::Connect("refused".into())),
        _ => Ok(document(SigningKey::other())),
    };
    let pool = start(KeySet::default(), QUICK, Box::new(answers));
    pass(1).await;
    // Periodic fetches: one after 15 minutes, then a retry every 30 seconds.
    for fetches in 2..=5 {
        while pool.fetches() < fetches {
            pass(1).await;
        }
        pass(1).await;
        assert_eq!((pool.ask(SHARED).await, pool.metrics.keys.get()), (Ok(()), 1));
        let failure = pool.store.failure(0).unwrap();
        assert_eq!(failure.failures, fetches as u64 - 1);
        assert!(failure.to_string().starts_with("https://keys.test/: "), "{failure}");
    }
    let failure = pool.store.failure(0).unwrap();
    assert_eq!(failure.error, FetchError::Connect("refused".into()));
    assert!(failure.to_string().contains("no connection: refused; is the address reachable"), "{failure}");
    pass(60).await;
    assert_eq!(pool.store.failure(0), None);
    assert_eq!(pool.ask(OTHER).await, Ok(()));
    assert_eq!(pool.ask(SHARED).await, Err(KeyMiss::Unknown));
}
