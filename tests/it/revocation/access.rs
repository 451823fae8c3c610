//! Access to the store: ACL users, TLS, Sentinel and Cluster.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Replica, Writer};
use crate::support::eventually;
use crate::support::redis::{KEY, REDIS, Redis, Sentinel};
use crate::support::service::PATIENCE;
use crate::support::tool::free_port;

/// Rights that a user of the store needs.
const RIGHTS: [&str; 6] = ["resetkeys", "~{cognito-authz}:revocations", "-@all", "+xadd", "+xread", "+xrange"];

/// Creates a user with these rights and one more. Returns the file with its password.
async fn add_user(redis: &Redis, more: &str) -> PathBuf {
    let command = [&["ACL", "SETUSER", "authz", "on", ">first"], &RIGHTS[..], &[more]].concat();
    let _: String = redis.command(&command).await;
    redis.file("password", "first\n")
}

#[tokio::test]
async fn an_acl_user_needs_few_rights_and_its_password_can_be_rotated() {
    let redis = Redis::start().await;
    let user = |more: &'static [&'static str]| [&["ACL", "SETUSER", "authz", "on"], more].concat();
    let file = add_user(&redis, "+select").await;
    let url = format!("redis://authz@127.0.0.1:{}/3", redis.port);
    let options = ["--revocation-password-file", file.to_str().unwrap()];
    let (replica, writer) = (Replica::with(&url, &options).await, Writer::with(&url, &options));
    replica.becomes_ready().await;
    writer.confirms("first-password").await;
    replica.learns("first-password").await;

    // The password is changed, and connections are closed, before the file follows.
    let _: String = redis.command(&user(&["resetpass", ">second"])).await;
    let _: i64 = redis.command(&["CLIENT", "KILL", "USER", "authz"]).await;
    replica.sees_store(false).await;
    assert!(!writer.revokes("between").await);
    redis.file("password", "second");
    replica.sees_store(true).await;
    replica.learns("between").await;
    writer.confirms("second-password").await;
    replica.learns("second-password").await;

    // Without the right to write.
    let _: String = redis.command(&user(&["-xadd"])).await;
    assert!(!writer.revokes("no-right").await);
    assert_eq!(replica.metric("revocation_store_up").await, 1.0);
    let _: String = redis.command(&user(&["+xadd"])).await;
    replica.learns("no-right").await;
}

fn openssl(directory: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    command.args(arguments.split(' ')).current_dir(directory).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn tls_checks_the_server_against_the_ca() {
    let mut redis = Redis::new(REDIS, &[]);
    let directory = redis.directory().to_owned();
    let curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for ca in ["ca", "other"] {
        openssl(&directory, &format!("req -x509 {curve} -keyout {ca}.key -out {ca}.pem -subj /CN={ca} -days 2"));
    }
    openssl(&directory, &format!("req {curve} -keyout server.key -out server.csr -subj /CN=server"));
    redis.file("names", "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n");
    let sign =
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 1 -extfile names";
    openssl(&directory, sign);
    let port = free_port();
    redis.set("--tls-port", &port.to_string());
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    for (option, name) in [("cert", "server.pem"), ("key", "server.key"), ("ca-cert", "ca.pem")] {
        redis.set(&format!("--tls-{option}-file"), &path(name));
    }
    redis.set("--tls-auth-clients", "no");
    redis.resume().await.unwrap();

    let url = format!("rediss://localhost:{port}");
    let ca = path("used.pem");
    std::fs::copy(path("ca.pem"), &ca).unwrap();
    let options = ["--revocation-ca-file", &*ca];
    let (replica, writer) = (Replica::with(&url, &options).await, Writer::with(&url, &options));
    replica.becomes_ready().await;
    writer.confirms("tls").await;
    replica.learns("tls").await;
    // Not the certificate's name, another CA, and the CAs of the system.
    let other = path("other.pem");
    let by_address = format!("rediss://127.0.0.1:{port}");
    for (url, options) in [(&by_address, &options[..]), (&url, &["--revocation-ca-file", &other][..]), (&url, &[][..])]
    {
        assert!(!Writer::with(url, options).revokes("refused").await, "{url} {options:?}");
    }
    // The CA is replaced.
    std::fs::copy(&other, &ca).unwrap();
    redis.kill();
    redis.resume().await.unwrap();
    replica.sees_store(false).await;
    assert!(!writer.revokes("wrong-ca").await);
    std::fs::copy(path("ca.pem"), &ca).unwrap();
    replica.sees_store(true).await;
    replica.learns("wrong-ca").await;
}

#[tokio::test]
async fn sentinels_name_the_primary_and_its_successor() {
    let mut primary = Redis::start().await;
    let of = format!("127.0.0.1 {}", primary.port);
    let copy = Redis::with(REDIS, &["--replicaof", &of, "--repl-diskless-sync-delay", "0"]).await;
    let sentinel = Sentinel::start(primary.port).await;
    eventually("the copy is known", PATIENCE, async || sentinel.knows_copy().await).await;
    let (file, _) = (add_user(&primary, "+role").await, add_user(&copy, "+role").await);
    let options = ["--revocation-password-file", file.to_str().unwrap()];
    let url = format!("redis-sentinel://authz@127.0.0.1:{}/mymaster", sentinel.port);
    let (replica, writer) = (Replica::with(&url, &options).await, Writer::with(&url, &options));
    replica.becomes_ready().await;
    writer.confirms("before").await;
    replica.learns("before").await;
    eventually("copied", PATIENCE, async || copy.records().await >= 1).await;

    primary.kill();
    let start = Instant::now();
    assert!(!writer.revokes("meanwhile").await);
    replica.learns("meanwhile").await;
    writer.confirms("after").await;
    replica.learns("after").await;
    assert!(start.elapsed() < Duration::from_secs(60));
    assert!(copy.records().await >= 3);
    let new = Replica::with(&url, &options).await;
    new.becomes_ready().await;
    for user in ["before", "meanwhile", "after"] {
        assert!(new.refuses(user).await, "{user}");
    }
}

#[tokio::test]
async fn a_cluster_is_entered_through_any_of_its_nodes() {
    let node = ["--cluster-enabled", "yes", "--cluster-node-timeout", "5000"];
    let nodes = [Redis::with(REDIS, &node).await, Redis::with(REDIS, &node).await];
    for (node, slots) in nodes.iter().zip([["0", "8191"], ["8192", "16383"]]) {
        let _: String = node.command(&[&["CLUSTER", "ADDSLOTSRANGE"], &slots[..]].concat()).await;
    }
    let _: String = nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &nodes[1].port.to_string()]).await;
    for node in &nodes {
        eventually("the cluster is complete", PATIENCE, async || {
            node.command::<String>(&["CLUSTER", "INFO"]).await.contains("cluster_state:ok")
        })
        .await;
    }
    let slot: usize = nodes[0].command(&["CLUSTER", "KEYSLOT", KEY]).await;
    let owner = usize::from(slot > 8191);
    let (file, _) = (add_user(&nodes[0], "+cluster|slots").await, add_user(&nodes[1], "+cluster|slots").await);
    let options = ["--revocation-password-file", file.to_str().unwrap()];
    let (other, own) = (nodes[1 - owner].port, nodes[owner].port);
    let replica = Replica::with(&format!("redis-cluster://authz@127.0.0.1:{other}"), &options).await;
    replica.becomes_ready().await;
    let writer = Writer::with(&format!("redis-cluster://authz@127.0.0.1:{own},127.0.0.1:9"), &options);
    writer.confirms("cluster").await;
    replica.learns("cluster").await;
    assert!(nodes[owner].records().await >= 1);
    let _: String = nodes[owner].command(&["FLUSHALL"]).await;
    eventually("put back", PATIENCE, async || nodes[owner].records().await >= 1).await;
}
