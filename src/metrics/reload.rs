//! Metrics of the configuration: reloads, the version in effect, and the expiry of certificates.

use std::sync::{Mutex, PoisonError};

use prometheus::{Gauge, GaugeVec, IntCounterVec, IntGauge, Opts, Registry};

use super::{Metrics, opts, register};
use crate::clock::unix_now;

/// Result of a reload (label `result`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reload {
    /// The new files are in effect.
    Success,
    /// The new files are not valid; the previous ones stay in effect.
    Failure,
}

impl Reload {
    fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// Part of the configuration that is reloaded (label `part`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reloaded {
    /// Policy file.
    Policy,
    /// Certificates of the listeners.
    Certificates,
}

impl Reloaded {
    fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Certificates => "certificates",
        }
    }
}

/// Families of the configuration.
#[derive(Debug)]
pub(super) struct ReloadFamilies {
    reloads: IntCounterVec,
    /// 1 if the last reload of each part of the configuration succeeded, or nothing was reloaded yet; else 0.
    last_successful: IntGauge,
    last_success: GaugeVec,
    hash: Gauge,
    tls_certificate_expiry: GaugeVec,
    /// Parts whose last reload failed.
    failed: Mutex<Vec<Reloaded>>,
}

impl ReloadFamilies {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauges = |opts: Opts, label| register(registry, GaugeVec::new(opts, &[label])?);
        let reloads = register(
            registry,
            IntCounterVec::new(
                opts("config_reloads_total", "Reloads of the policy file and of certificates by result."),
                &["result"],
            )?,
        )?;
        for result in [Reload::Success, Reload::Failure] {
            reloads.with_label_values(&[result.as_str()]);
        }
        let last_successful = IntGauge::with_opts(opts(
            "config_last_reload_successful",
            "1 if the policy file and the certificates in effect are those on disk, else 0.",
        ))?;
        last_successful.set(1);
        let hash = Gauge::with_opts(opts(
            "config_hash",
            "The first 48 bits of the SHA-256 of the policy file in effect, as a number; 0 without a file. It differs \
             between replicas that have different files.",
        ))?;
        Ok(Self {
            reloads,
            last_successful: register(registry, last_successful)?,
            last_success: gauges(
                opts(
                    "config_last_reload_success_timestamp_seconds",
                    "Unix time at which a part of the configuration was last read and took effect: at startup, or in a \
                     reload.",
                ),
                "part",
            )?,
            hash: register(registry, hash)?,
            tls_certificate_expiry: gauges(
                opts(
                    "tls_certificate_expiry_timestamp_seconds",
                    "Unix time at which the certificate in effect of a listener with TLS expires.",
                ),
                "listener",
            )?,
            failed: Mutex::default(),
        })
    }
}

impl Metrics {
    /// Notes that this part of the configuration was read now and is in effect.
    #[expect(clippy::cast_precision_loss, reason = "times are below 2^53")]
    pub(crate) fn took_effect(&self, part: Reloaded) {
        self.reloads.last_success.with_label_values(&[part.as_str()]).set(unix_now() as f64);
    }

    /// Counts a reload of one part of the configuration.
    pub(crate) fn reloaded(&self, part: Reloaded, result: Reload) {
        self.reloads.reloads.with_label_values(&[result.as_str()]).inc();
        let mut failed = self.reloads.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|other| *other != part);
        match result {
            Reload::Success => self.took_effect(part),
            Reload::Failure => failed.push(part),
        }
        self.reloads.last_successful.set(i64::from(failed.is_empty()));
    }

    /// Shows the version of the policy file in effect. `sha256` is its hash in hexadecimal, empty without a file.
    #[expect(clippy::cast_precision_loss, reason = "48 bits")]
    pub(crate) fn policy_file_is(&self, sha256: &str) {
        let start = sha256.get(..12).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        self.reloads.hash.set(start.unwrap_or_default() as f64);
    }

    /// Shows the Unix time at which the certificate of this listener expires.
    #[expect(clippy::cast_precision_loss, reason = "times are below 2^53")]
    pub(crate) fn tls_certificate_expires(&self, listener: &str, time: u64) {
        self.reloads.tls_certificate_expiry.with_label_values(&[listener]).set(time as f64);
    }
}
