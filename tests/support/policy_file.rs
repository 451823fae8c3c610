//! A policy file on disk, as an editor and as Kubernetes change it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;

/// The file, in a folder of its own.
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

    /// The same as a mounted `ConfigMap` holds it: `policy.yaml` -> `..data/policy.yaml`, and `..data` -> the folder of a
    /// version.
    pub(crate) fn mounted(text: &str) -> Self {
        let file = Self { directory: tempfile::tempdir().unwrap(), versions: std::cell::Cell::new(0) };
        file.mount(text);
        symlink("..data/policy.yaml", file.at("policy.yaml")).unwrap();
        file
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Its path.
    pub(crate) fn path(&self) -> String {
        self.at("policy.yaml").to_str().unwrap().to_owned()
    }

    /// Writes it anew, in place.
    pub(crate) fn write(&self, text: &str) {
        fs::write(self.at("policy.yaml"), text).unwrap();
    }

    /// Puts another file in its place: whoever reads it reads one of the two, never a half.
    pub(crate) fn replace(&self, text: &str) {
        fs::write(self.at("new"), text).unwrap();
        fs::rename(self.at("new"), self.at("policy.yaml")).unwrap();
    }

    /// Swaps the link to the folder of the version in force, and takes the folder of the one before away.
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
