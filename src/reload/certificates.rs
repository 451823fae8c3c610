//! Reloads the certificates of the listeners when their files change.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use super::Status;
use crate::files::{FileWatch, KeepsChanging};
use crate::metrics::{Metrics, Reload, Reloaded};
use crate::net::tls::Certificates;

/// Watches the files of the certificates and reloads them.
#[derive(Debug)]
pub(super) struct CertificateReload {
    certificates: Arc<Certificates>,
    /// Labels of the listeners that use the certificates.
    listeners: Vec<&'static str>,
    watches: Vec<FileWatch>,
    metrics: Arc<Metrics>,
    status: Arc<Status>,
}

impl CertificateReload {
    pub(super) fn new(
        certificates: Arc<Certificates>,
        listeners: Vec<&'static str>,
        metrics: Arc<Metrics>,
        status: Arc<Status>,
    ) -> Self {
        let versions = certificates.versions().into_iter();
        let watches = versions.map(|(path, version)| FileWatch::new(path, Some(version))).collect();
        let reload = Self { certificates, listeners, watches, metrics, status };
        reload.show_expiry();
        reload.metrics.took_effect(Reloaded::Certificates);
        reload
    }

    fn show_expiry(&self) {
        for listener in &self.listeners {
            self.metrics.tls_certificate_expires(listener, self.certificates.expires());
        }
    }

    /// Waits until one of the files has changed and none is being written.
    pub(super) async fn changed(&mut self) -> Result<(), KeepsChanging> {
        let mut changes: Vec<Pin<Box<dyn Future<Output = _> + Send + '_>>> = Vec::new();
        for watch in &mut self.watches {
            changes.push(Box::pin(watch.changed()));
        }
        let first = std::future::poll_fn(|cx| {
            let ready = changes.iter_mut().find_map(|change| match change.as_mut().poll(cx) {
                Poll::Ready(result) => Some(result),
                Poll::Pending => None,
            });
            ready.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        drop(changes);
        first?;
        self.may_be_read().await
    }

    /// Waits until the files can be read at an operator's request.
    pub(super) async fn may_be_read(&mut self) -> Result<(), KeepsChanging> {
        for watch in &mut self.watches {
            watch.may_be_read().await?;
        }
        Ok(())
    }

    /// `true` if the last reload failed and the files have not changed since, so a retry makes sense.
    pub(super) async fn needs_retry(&self) -> bool {
        if self.status.certificates.load().is_none() {
            return false;
        }
        for watch in &self.watches {
            if !watch.is_unchanged().await {
                return false;
            }
        }
        true
    }

    /// Reads the files again and reports the result in log, metrics and status. Unchanged files, and a retry that fails
    /// with the same error, are not reported.
    pub(super) async fn reload(&self, settled: Result<(), KeepsChanging>, is_retry: bool) {
        let certificates = Arc::clone(&self.certificates);
        let result = match settled {
            Err(error) => Err(format!("a TLS file {error}")),
            Ok(()) => match tokio::task::spawn_blocking(move || certificates.reload()).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            },
        };
        let known = self.status.certificates.load_full();
        match result {
            Ok(false) if known.is_none() => {}
            Ok(_) => {
                self.show_expiry();
                self.metrics.reloaded(Reloaded::Certificates, Reload::Success);
                self.status.ended(Reloaded::Certificates, Reload::Success);
                self.status.certificates.store(None);
                tracing::info!(expires = self.certificates.expires(), "the TLS certificates have been reloaded");
            }
            Err(error) if is_retry && known.as_deref() == Some(&error) => {}
            Err(error) => {
                self.metrics.reloaded(Reloaded::Certificates, Reload::Failure);
                self.status.ended(Reloaded::Certificates, Reload::Failure);
                tracing::error!(error, "the TLS certificates are not reloaded; the previous ones stay in effect");
                self.status.certificates.store(Some(Arc::new(error)));
            }
        }
    }
}
