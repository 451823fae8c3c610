//! Policy file on disk, changed in the ways of an editor and of Kubernetes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;

/// Policy file in a temporary directory of its own.
pub(crate) struct PolicyFile {
    directory: TempDir,
    versions: std::cell::Cell<u32>,
}

impl PolicyFile {
    pub(crate) fn new(text: &str) -> Self {
        let file = Self { directory: tempfile::tempdir().unwrap(), versions: std::cell::Cell::new(0) };
        file.write(text);
        file
    }

    /// Creates the file in the layout of a mounted `ConfigMap`: `policy.yaml` is a link to `..data/policy.yaml`, and
    /// `..data` is a link to the directory of a version.
    pub(crate) fn mounted(text: &str) -> Self {
        let file = Self { directory: tempfile::tempdir().unwrap(), versions: std::cell::Cell::new(0) };
        file.mount(text);
        symlink("..data/policy.yaml", file.at("policy.yaml")).unwrap();
        file
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Absolute path of the file.
    pub(crate) fn path(&self) -> String {
        self.at("policy.yaml").to_str().unwrap().to_owned()
    }

    /// Overwrites the file in place.
    pub(crate) fn write(&self, text: &str) {
        fs::write(self.at("policy.yaml"), text).unwrap();
    }

    /// Replaces the file atomically: a reader sees either the old or the new content.
    pub(crate) fn replace(&self, text: &str) {
        fs::write(self.at("new"), text).unwrap();
        fs::rename(self.at("new"), self.at("policy.yaml")).unwrap();
    }

    /// Switches `..data` to the directory of a new version, and removes the directory of the previous one.
    pub(crate) fn mount(&self, text: &str) {
        let version = self.versions.get() + 1;
        self.versions.set(version);
        let folder = |version: u32| format!("..version_{version}");
        fs::create_dir(self.at(&folder(version))).unwrap();
        fs::write(self.at(&folder(version)).join("policy.yaml"), text).unwrap();
        symlink(folder(version), self.at("..data_tmp")).unwrap();
        fs::rename(self.at("..data_tmp"), self.at("..data")).unwrap();
        if version > 1 {
            fs::remove_dir_all(self.at(&folder(version - 1))).unwrap();
        }
    }
}
