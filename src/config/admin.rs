//! Token of the operators, from the file of `--admin-token-file`.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{self, Digest, SHA256};

use crate::files::{self, Fingerprint, MAX_SECRET_BYTES};

/// Token of the operators, as one version of its file contains it. Only a digest is kept.
#[derive(Clone)]
pub(crate) struct AdminToken {
    path: PathBuf,
    version: Fingerprint,
    digest: Digest,
}

impl AdminToken {
    /// Reads the file. Spaces and line breaks around the token are ignored. Blocks for at most five seconds.
    ///
    /// # Errors
    /// A sentence that names the file and never contains its content.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let (content, version) =
            files::read_version(path, MAX_SECRET_BYTES).map_err(|error| format!("{} {error}", path.display()))?;
        let token = content.trim_ascii();
        if token.len() < MIN_LENGTH || !token.iter().all(u8::is_ascii_graphic) {
            return Err(format!(
                "{} does not contain a token: one word of at least {MIN_LENGTH} visible ASCII characters",
                path.display()
            ));
        }
        Ok(Self { path: path.to_owned(), version, digest: digest::digest(&SHA256, token) })
    }

    /// Path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Version of the file that was read.
    pub(crate) fn version(&self) -> Fingerprint {
        self.version
    }

    /// `true` if `candidate` is the token. The time does not depend on how many of its bytes are right.
    pub(crate) fn matches(&self, candidate: &[u8]) -> bool {
        let candidate = digest::digest(&SHA256, candidate);
        verify_slices_are_equal(candidate.as_ref(), self.digest.as_ref()).is_ok()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminToken").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Minimum length of a token. With 16 random visible characters it cannot be guessed.
const MIN_LENGTH: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_of_at_least_16_visible_characters() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let read = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            AdminToken::read(&path)
        };
        for good in ["0123456789abcdef", "\n 0123456789abcdef\r\n"] {
            let token = read(good.as_bytes()).unwrap();
            assert!(token.matches(b"0123456789abcdef"));
            for wrong in ["", "0123456789abcdeg", "0123456789abcde", "0123456789abcdef0", "0123456789abcdef "] {
                assert!(!token.matches(wrong.as_bytes()), "{wrong}");
            }
            assert!(!format!("{token:?}").contains("0123"));
        }
        for bad in
            [&b""[..], b"0123456789abcde", b"0123456789 abcdef", b"0123456789abcd\xc3\xa9f", b"0123456789\0abcdef"]
        {
            let error = read(bad).unwrap_err();
            assert!(error.contains("at least 16 visible ASCII characters") && !error.contains("0123"), "{error}");
        }
        assert!(AdminToken::read(directory.path()).unwrap_err().ends_with("is a directory, not a regular file"));
    }
}
