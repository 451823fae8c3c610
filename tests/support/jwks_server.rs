//! JWKS endpoint with configurable responses: correct, faulty or slow ones. Tests use it only for faults that a Cognito
//! emulator cannot produce.

use std::sync::{Arc, Mutex};

use super::server::serve;

pub(crate) use super::server::Reply;

/// Running server. It ends with its runtime.
#[derive(Clone)]
pub(crate) struct JwksServer {
    pub(crate) url: String,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    reply: Box<dyn Fn(&str) -> Reply + Send>,
    paths: Vec<String>,
}

impl JwksServer {
    pub(crate) async fn start(reply: Reply) -> Self {
        let shared = Arc::new(Mutex::new(Shared { reply: Box::new(move |_| reply.clone()), paths: Vec::new() }));
        let answers = Arc::clone(&shared);
        let address = serve(move |request| answers.lock().unwrap().answer(request.uri().path()).into_response()).await;
        Self { url: format!("http://{address}"), shared }
    }

    /// Sets the response to all further requests.
    pub(crate) fn answers(&self, reply: Reply) {
        self.answers_by_path(move |_| reply.clone());
    }

    /// Sets the response to all further requests, depending on the path.
    pub(crate) fn answers_by_path(&self, reply: impl Fn(&str) -> Reply + Send + 'static) {
        self.shared.lock().unwrap().reply = Box::new(reply);
    }

    /// Number of requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.shared.lock().unwrap().paths.len()
    }

    /// Paths of the requests so far.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.shared.lock().unwrap().paths.clone()
    }
}

impl Shared {
    /// Records a request, and returns the response to it.
    fn answer(&mut self, path: &str) -> Reply {
        self.paths.push(path.to_owned());
        (self.reply)(path)
    }
}
