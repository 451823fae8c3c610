//! The descriptors for gRPC reflection are a file in the repository. This test compares it with the descriptors of
//! envoy-types. After an update of envoy-types, write the file with `UPDATE=1 cargo test --test it descriptors`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

const ROOT: &str = "envoy/service/auth/v3/external_auth.proto";

/// Reads the descriptor set from the package of envoy-types, which does not export it.
fn envoy_types() -> FileDescriptorSet {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Without the filter, cargo requires the packages of every platform, also those that no build has fetched.
    let platform = format!("--filter-platform={}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--offline", &platform])
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let package =
        metadata["packages"].as_array().unwrap().iter().find(|package| package["name"] == "envoy-types").unwrap();
    let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
    let set = std::fs::read(manifest.with_file_name("src/generated/types.bin")).unwrap();
    FileDescriptorSet::decode(&*set).unwrap()
}

/// Returns [`ROOT`] and all files that it imports, without comments.
fn closure(set: FileDescriptorSet) -> FileDescriptorSet {
    let files: BTreeMap<_, _> = set.file.into_iter().map(|file| (file.name().to_owned(), file)).collect();
    let mut wanted = BTreeSet::new();
    let mut open = vec![ROOT.to_owned()];
    while let Some(name) = open.pop() {
        let file = files.get(&name).unwrap_or_else(|| panic!("{name} is imported and missing"));
        if wanted.insert(name) {
            open.extend(file.dependency.iter().cloned());
        }
    }
    let stripped = |name: &String| FileDescriptorProto { source_code_info: None, ..files[name].clone() };
    FileDescriptorSet { file: wanted.iter().map(stripped).collect() }
}

#[test]
fn the_descriptors_equal_those_of_envoy_types() {
    let expected = closure(envoy_types()).encode_to_vec();
    if std::env::var_os("UPDATE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ext_authz/authorization.descriptors.bin");
        std::fs::write(path, &expected).unwrap();
        return;
    }
    assert!(cognito_authz::ext_authz::DESCRIPTORS == expected, "run this test with UPDATE=1 in the environment");
}
