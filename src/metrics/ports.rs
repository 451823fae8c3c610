//! Metrics of the listeners: connections that are open, were accepted, and were refused.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::{opts, register};

/// Reason for closing a connection right after it was accepted (label `reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusedConnection {
    /// The port has reached its limit.
    Limit,
    /// The peer has reached its share of the port's limit.
    PeerLimit,
    /// The peer is not among the callers of the port.
    Caller,
}

impl RefusedConnection {
    fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::PeerLimit => "peer_limit",
            Self::Caller => "caller",
        }
    }
}

/// Families of the listeners.
#[derive(Debug)]
pub(crate) struct PortFamilies {
    open: IntGaugeVec,
    limit: IntGaugeVec,
    accepted: IntCounterVec,
    refused: IntCounterVec,
    handshakes: IntCounterVec,
}

/// Metrics of one listener.
#[derive(Clone, Debug)]
pub(crate) struct PortMetrics {
    listener: &'static str,
    open: IntGauge,
    accepted: IntCounter,
    refused: IntCounterVec,
    handshakes: IntCounterVec,
}

/// Guard that counts a connection as open, until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl PortMetrics {
    /// Counts a connection that is served.
    pub(crate) fn accepted(&self) -> OpenConnection {
        self.accepted.inc();
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    /// Counts a connection that is closed at once.
    pub(crate) fn refused(&self, reason: RefusedConnection) {
        self.refused.with_label_values(&[self.listener, reason.as_str()]).inc();
    }

    /// Counts a TLS handshake that failed or took too long.
    pub(crate) fn handshake_failed(&self) {
        self.handshakes.with_label_values(&[self.listener]).inc();
    }
}

impl PortFamilies {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let listener = &["listener"];
        let gauge = |name, help| register(registry, IntGaugeVec::new(opts(name, help), listener)?);
        let counter = |name, help, labels: &[&str]| register(registry, IntCounterVec::new(opts(name, help), labels)?);
        Ok(Self {
            open: gauge("connections", "Open connections of a listener.")?,
            limit: gauge("connections_limit", "Maximum number of open connections of a listener.")?,
            accepted: counter(
                "connections_accepted_total",
                "Connections that a listener accepted and served.",
                listener,
            )?,
            refused: counter(
                "connections_refused_total",
                "Connections that a listener closed at once: limit (the listener is full), peer_limit (the peer has its \
                 share), caller (the peer is not among --http-callers).",
                &["listener", "reason"],
            )?,
            handshakes: counter(
                "tls_handshake_failures_total",
                "TLS handshakes of a listener that failed or took too long.",
                listener,
            )?,
        })
    }

    /// Creates the metrics of a listener, with the value zero for each of these reasons to refuse a connection. `limit` is
    /// the maximum number of its connections.
    pub(crate) fn port(
        &self,
        listener: &'static str,
        limit: usize,
        reasons: &[RefusedConnection],
        has_tls: bool,
    ) -> PortMetrics {
        self.limit.with_label_values(&[listener]).set(i64::try_from(limit).unwrap_or(i64::MAX));
        for reason in reasons {
            self.refused.with_label_values(&[listener, reason.as_str()]);
        }
        if has_tls {
            self.handshakes.with_label_values(&[listener]);
        }
        PortMetrics {
            listener,
            open: self.open.with_label_values(&[listener]),
            accepted: self.accepted.with_label_values(&[listener]),
            refused: self.refused.clone(),
            handshakes: self.handshakes.clone(),
        }
    }
}
