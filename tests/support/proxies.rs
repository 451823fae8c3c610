//! Runs a real nginx, Traefik, Caddy or Envoy that asks the HTTP form of the check. Each has the file of `deploy/`, or
//! for Envoy the example in `docs/proxies.md`, changed to other addresses.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::envoy::{Bootstrap, Envoy};
use super::http1::fetch;
use super::tool::{self, Tool, free_port};

/// Kind of proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Traefik,
    Caddy,
    Envoy,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Nginx, Self::Traefik, Self::Caddy, Self::Envoy];

    /// `true` if the tests can run this proxy. nginx may be missing, except in CI.
    pub(crate) fn is_available(self) -> bool {
        self != Self::Nginx || tool::optional("nginx", "--proxies").is_some()
    }
}

/// Replica of the service, as a proxy sees it.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    /// Address of the HTTP form (`host:port`).
    pub(crate) http: String,
    /// Address of the admin port (`host:port`).
    pub(crate) admin: String,
}

/// Running proxy. Dropping it kills the process.
pub(crate) struct Proxy {
    /// Address for clients (`host:port`).
    pub(crate) address: String,
    _running: (Option<Tool>, Option<Envoy>, TempDir),
}

/// Shipped file with changes.
struct Shipped(String);

impl Shipped {
    fn read(path: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        Self(fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// Replaces a text, which has to occur.
    #[track_caller]
    fn replace(self, from: &str, to: &str) -> Self {
        assert!(self.0.contains(from), "no {from} in {}", self.0);
        Self(self.0.replace(from, to))
    }

    /// Replaces the line with this text by one line for each of `values`, with the text replaced.
    #[track_caller]
    fn repeat_line<'v>(self, text: &str, values: impl Iterator<Item = &'v str>) -> Self {
        let line = self.0.lines().find(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text}")).to_owned();
        let lines: Vec<_> = values.map(|value| line.replace(text, value)).collect();
        Self(self.0.replace(&line, &lines.join("\n")))
    }

    fn write(self, directory: &TempDir, name: &str) {
        fs::write(directory.path().join(name), self.0).unwrap();
    }
}

/// Main configuration of nginx: one process, which writes below its own directory only.
const NGINX: &str = "daemon off; master_process off; pid nginx.pid; error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    include cognito-authz.conf;
}
";

impl Proxy {
    /// Starts a proxy before `application` that asks these replicas, and waits until it answers. `change` gets the text
    /// of the file about the application, unless the proxy is Envoy.
    pub(crate) async fn start(
        kind: Kind,
        replicas: &[Replica],
        application: &str,
        change: impl FnOnce(String) -> String,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let http = || replicas.iter().map(|replica| &*replica.http);
        let listen = "127.0.0.1:8080";
        let mut tool = match kind {
            Kind::Nginx => {
                Shipped(NGINX.into()).write(&directory, "nginx.conf");
                let file = Shipped::read("deploy/nginx/cognito-authz.conf").replace(listen, &address);
                let file = file.repeat_line("127.0.0.1:9193", http()).replace("127.0.0.1:3000", application);
                Shipped(change(file.0)).write(&directory, "cognito-authz.conf");
                let folder = directory.path().to_str().unwrap();
                let arguments = ["-p", folder, "-c", "nginx.conf", "-e", "stderr"];
                Tool::start("nginx", &arguments, &[], directory.path())
            }
            Kind::Traefik => {
                let internal = format!("127.0.0.1:{}", free_port());
                let file = Shipped::read("deploy/traefik/traefik.yaml").replace(listen, &address);
                file.replace("127.0.0.1:9194", &internal).write(&directory, "traefik.yaml");
                let admin = replicas[0].admin.rsplit_once(':').unwrap().1;
                let file = Shipped::read("deploy/traefik/dynamic.yaml").replace("127.0.0.1:9194", &internal);
                let file = file.repeat_line("127.0.0.1:9193", http()).replace("127.0.0.1:3000", application);
                let file = file.replace("port: 9190", &format!("port: {admin}"));
                Shipped(change(file.0)).write(&directory, "dynamic.yaml");
                Tool::start("traefik", &["--configFile=traefik.yaml"], &[], directory.path())
            }
            Kind::Caddy => {
                let replicas: Vec<&str> = http().collect();
                let (host, port) = address.rsplit_once(':').unwrap();
                let file = Shipped::read("deploy/caddy/Caddyfile").replace(":8080", &format!(":{port}"));
                let file = file.replace("bind 127.0.0.1", &format!("bind {host}"));
                let file = file.replace("127.0.0.1:9193", &replicas.join(" ")).replace("127.0.0.1:3000", application);
                Shipped(change(file.0)).write(&directory, "Caddyfile");
                let home = directory.path().to_str().unwrap();
                Tool::start("caddy", &["run", "--config", "Caddyfile"], &[("HOME", home)], directory.path())
            }
            Kind::Envoy => {
                let replicas: Vec<&str> = http().collect();
                let envoy = Envoy::start(Bootstrap::over_http(&replicas, application)).await;
                let address = envoy.address("ingress_tcp").to_owned();
                return Self { address, _running: (None, Some(envoy), directory) };
            }
        };
        let answers = async || match TcpStream::connect(&address).await {
            // Traefik has no routes until it has read the second file.
            Ok(_) => kind != Kind::Traefik || fetch(&address, "/", &[""; 0]).await.status != 404,
            Err(_) => false,
        };
        tool.comes_up("answers", answers).await.unwrap_or_else(|log| panic!("{kind:?} has ended\n{log}"));
        Self { address, _running: (Some(tool), None, directory) }
    }
}
