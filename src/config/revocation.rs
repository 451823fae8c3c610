//! Settings of revocation, built from its options.

use std::path::Path;

use super::error::ConfigError;
use super::options::RevocationOptions;
use super::source::Sources;
use crate::authz::TimeLimits;
use crate::files::{self, MAX_SECRET_BYTES, MAX_TEXT_BYTES};
use crate::revocation::{Keep, Settings, StoreSettings};

/// Builds the settings.
pub(super) fn settings(
    options: &RevocationOptions,
    limits: TimeLimits,
    sources: Sources<'_>,
) -> Result<Settings, ConfigError> {
    for (id, is_set) in [
        ("revocation_password_file", options.revocation_password_file.is_some()),
        ("revocation_ca_file", options.revocation_ca_file.is_some()),
        ("revocation_required", options.revocation_required),
    ] {
        if is_set && options.revocation_url.is_none() {
            return Err(sources.error(id, "has no effect without --revocation-url"));
        }
    }
    let keep = match (&options.revocation_url, &options.revocation_file) {
        (Some(_), Some(_)) => {
            return Err(
                sources.error("revocation_file", "not together with --revocation-url: the store keeps everything")
            );
        }
        (None, None) => Keep::Memory,
        (None, Some(file)) => Keep::File(file.clone()),
        (Some(url), None) => {
            if options.revocation_ca_file.is_some() && !url.is_tls() {
                return Err(sources.error("revocation_ca_file", "has no effect unless --revocation-url is rediss://"));
            }
            if url.has_user() && options.revocation_password_file.is_none() {
                return Err(sources.error("revocation_url", "names a user, who needs --revocation-password-file"));
            }
            if let Some(path) = &options.revocation_password_file {
                check_secret("revocation_password_file", path, sources)?;
            }
            if let Some(path) = &options.revocation_ca_file {
                check_ca(path, sources)?;
            }
            Keep::Store(Box::new(StoreSettings {
                url: url.clone(),
                password_file: options.revocation_password_file.clone(),
                ca_file: options.revocation_ca_file.clone(),
                required: options.revocation_required,
            }))
        }
    };
    let capacity = usize::try_from(options.revocation_capacity).unwrap_or(usize::MAX);
    Ok(Settings { keep, capacity, life: limits.max_life.saturating_add(limits.leeway) })
}

/// Checks that a file holds a secret. It is read again where it is used, because secrets are rotated.
pub(super) fn check_secret(id: &str, path: &Path, sources: Sources<'_>) -> Result<(), ConfigError> {
    let text = files::read_text(path, MAX_SECRET_BYTES)
        .map_err(|error| sources.error(id, format_args!("{} {error}", path.display())))?;
    if text.trim_end_matches(['\r', '\n']).is_empty() {
        return Err(sources.error(id, format_args!("{} is empty", path.display())));
    }
    Ok(())
}

fn check_ca(path: &Path, sources: Sources<'_>) -> Result<(), ConfigError> {
    let id = "revocation_ca_file";
    let text = files::read_text(path, MAX_TEXT_BYTES)
        .map_err(|error| sources.error(id, format_args!("{} {error}", path.display())))?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(sources.error(id, format_args!("{} contains no certificate in PEM form", path.display())));
    }
    Ok(())
}
