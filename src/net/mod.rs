//! Sockets and connections that the ports share: binding and accepting (`listen`), HTTP/1.1 with limits
//! (`http_server`, `json_body`), TLS with certificates that can be replaced ([`tls`]), networks that may use a port
//! (`callers`), peers that do not keep up (`progress`), and the division of file descriptors between the ports
//! ([`descriptors`]).

pub(crate) mod callers;
pub mod descriptors;
pub(crate) mod http_server;
pub(crate) mod json_body;
pub(crate) mod listen;
pub(crate) mod occasional;
pub(crate) mod peers;
pub(crate) mod progress;
pub mod tls;
