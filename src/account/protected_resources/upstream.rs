//! Cognito's own metadata, one document per pool. It is fetched when it is needed, kept for an hour, and used longer while
//! Cognito does not answer.
//!
//! Requests cause at most one fetch at a time, and at most one in ten seconds. A client that leaves does not end a fetch.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use url::Url;

use super::documents::Endpoints;
use crate::account::context::Context;
use crate::authz::Ruleset;
use crate::request_id;
use crate::telemetry::current;
use crate::user_pool::PoolIndex;

/// Time after which the document is fetched again.
const KEPT: Duration = Duration::from_secs(3600);
/// Shortest time between the starts of two fetches.
const PAUSE: Duration = Duration::from_secs(10);

/// Documents of the pools, by URL.
#[derive(Debug, Default)]
pub(super) struct PoolDocuments(Mutex<HashMap<Url, Arc<Document>>>);

impl PoolDocuments {
    /// Returns the endpoints of a pool; `None` if they were never read.
    pub(super) async fn of(&self, context: &Arc<Context>, rules: &Ruleset, pool: PoolIndex) -> Option<Arc<Endpoints>> {
        let pool = rules.pools.get(pool)?;
        let (url, name) = (pool.openid_configuration_url(), pool.name.clone());
        let context = Arc::clone(context);
        let document = self.at(&url, rules);
        document
            .read(move || async move {
                let endpoints = Endpoints::of(context.client.openid_configuration(url).await.ok()?);
                if endpoints.is_none() {
                    tracing::error!(
                        request_id = request_id::current(),
                        pool = &*name,
                        "the metadata of the pool has no sign-in pages, which clients of protected resources need; give the \
                         pool a domain"
                    );
                }
                endpoints
            })
            .await
    }

    /// Returns the document at `url`, and forgets those that no resource needs any more.
    fn at(&self, url: &Url, rules: &Ruleset) -> Arc<Document> {
        let mut documents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = documents.get(url) {
            return Arc::clone(known);
        }
        let pools = rules.resources.origins().filter_map(|origin| rules.pools.get(origin.pool));
        let needed: Vec<Url> = pools.map(crate::user_pool::UserPool::openid_configuration_url).collect();
        documents.retain(|url, _| needed.contains(url));
        Arc::clone(documents.entry(url.clone()).or_default())
    }
}

/// Document that is fetched on demand.
#[derive(Debug, Default)]
struct Document(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The last document that was read, with the start of its fetch.
    kept: Option<(Arc<Endpoints>, Instant)>,
    /// Start of the last fetch.
    asked: Option<Instant>,
    /// Closes when that fetch ends.
    running: Option<watch::Receiver<()>>,
}

impl Document {
    /// Returns the document, after a fetch if it is too old or was never read. `None` if it was never read.
    async fn read<F>(self: &Arc<Self>, fetch: impl FnOnce() -> F) -> Option<Arc<Endpoints>>
    where
        F: Future<Output = Option<Endpoints>> + Send + 'static,
    {
        if let Some(mut running) = self.fetch_unless_fresh(fetch) {
            // Nothing is sent; an error means that the fetch has ended.
            let _ = running.changed().await;
        }
        self.state().kept.as_ref().map(|(endpoints, _)| Arc::clone(endpoints))
    }

    /// Starts a fetch if the document is too old. Returns the end of the fetch to wait for, if there is one.
    fn fetch_unless_fresh<F>(self: &Arc<Self>, fetch: impl FnOnce() -> F) -> Option<watch::Receiver<()>>
    where
        F: Future<Output = Option<Endpoints>> + Send + 'static,
    {
        let mut state = self.state();
        if state.kept.as_ref().is_some_and(|(_, since)| since.elapsed() < KEPT) {
            return None;
        }
        // Even a fetch that panicked closes its channel.
        if let Some(running) = state.running.clone().filter(|running| running.has_changed().is_ok()) {
            return Some(running);
        }
        if state.asked.is_some_and(|asked| asked.elapsed() < PAUSE) {
            return None;
        }
        let now = Instant::now();
        let (ends, end) = watch::channel(());
        state.asked = Some(now);
        state.running = Some(end.clone());
        let (document, fetch) = (Arc::clone(self), current::carried(fetch()));
        tokio::spawn(request_id::keep(async move {
            if let Some(endpoints) = fetch.await {
                document.state().kept = Some((Arc::new(endpoints), now));
            }
            drop(ends);
        }));
        Some(end)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;
    use tokio::time::{advance, sleep};

    use super::*;

    /// Server whose document has the number of the fetch in its URLs.
    #[derive(Default)]
    struct Server {
        fetches: Arc<AtomicUsize>,
        is_down: bool,
    }

    impl Server {
        fn fetch(&self) -> impl FnOnce() -> std::pin::Pin<Box<dyn Future<Output = Option<Endpoints>> + Send>> + use<> {
            let (fetches, is_down) = (Arc::clone(&self.fetches), self.is_down);
            move || {
                let number = fetches.fetch_add(1, Ordering::Relaxed) + 1;
                Box::pin(async move {
                    sleep(Duration::from_secs(2)).await;
                    let url = format!("https://a.example/{number}");
                    let document = json!({"authorization_endpoint": url, "token_endpoint": url});
                    if is_down { None } else { Endpoints::of(document.as_object().unwrap().clone()) }
                })
            }
        }

        fn fetches(&self) -> usize {
            self.fetches.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_document_is_kept_for_an_hour_and_longer_while_the_server_is_down() {
        let (document, mut server) = (Arc::new(Document::default()), Server { is_down: true, ..Server::default() });
        assert!(document.read(server.fetch()).await.is_none());
        for _ in 0..3 {
            assert!(document.read(server.fetch()).await.is_none());
        }
        assert_eq!(server.fetches(), 1, "not again within ten seconds");
        advance(PAUSE).await;
        assert!(document.read(server.fetch()).await.is_none());
        assert_eq!(server.fetches(), 2);

        server.is_down = false;
        advance(PAUSE).await;
        let first = document.read(server.fetch()).await.unwrap();
        // The fetch took two seconds.
        advance(Duration::from_secs(3597)).await;
        assert_eq!(document.read(server.fetch()).await.unwrap(), first);
        assert_eq!(server.fetches(), 3);

        server.is_down = true;
        advance(Duration::from_secs(1)).await;
        assert_eq!(document.read(server.fetch()).await.unwrap(), first, "used longer");
        assert_eq!(document.read(server.fetch()).await.unwrap(), first);
        assert_eq!(server.fetches(), 4);
        server.is_down = false;
        advance(PAUSE).await;
        assert_ne!(document.read(server.fetch()).await.unwrap(), first);
        assert_eq!(server.fetches(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_is_shared_and_does_not_end_with_its_client() {
        let (document, server) = (Arc::new(Document::default()), Server::default());
        let first = tokio::spawn({
            let (document, fetch) = (Arc::clone(&document), server.fetch());
            async move { document.read(fetch).await }
        });
        sleep(Duration::from_secs(1)).await;
        first.abort();
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (document, fetch) = (Arc::clone(&document), server.fetch());
            readers.spawn(async move { document.read(fetch).await.is_some() });
        }
        assert_eq!(readers.join_all().await, vec![true; 50]);
        assert_eq!(server.fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_panics_is_not_waited_for_again() {
        let (document, server) = (Arc::new(Document::default()), Server::default());
        assert!(document.read(|| async { panic!("a fault") }).await.is_none());
        advance(PAUSE).await;
        assert!(document.read(server.fetch()).await.is_some());
    }
}
