//! A registry that can lie, stall, cut, redirect and ask for tokens: one thread a connection, one
//! request a connection, all requests on record.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: HashMap<String, String>,
    pub body: String,
    /// How many requests for this path there were before.
    pub before: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What to answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Send only so many bytes of the body, then…
    pub stop_at: Option<(usize, Stop)>,
}

#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// …close the connection.
    Cut,
    /// …say nothing more for so long.
    Stall(Duration),
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: body.into(),
            stop_at: None,
        }
    }

    pub fn error(status: u16, code: &str, message: &str) -> Reply {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
        Reply::new(status, body).with("Content-Type", "application/json")
    }

    pub fn with(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn stopping(mut self, at: usize, how: Stop) -> Reply {
        self.stop_at = Some((at, how));
        self
    }
}

type Handler = Box<dyn Fn(&Request, Reply) -> Reply + Send + Sync>;

#[derive(Default)]
struct Shared {
    /// Path → media type and bytes.
    content: Mutex<HashMap<String, (String, Vec<u8>)>>,
    log: Mutex<Vec<Request>>,
    handler: Mutex<Option<Arc<Handler>>>,
}

/// The registry.
pub struct Fake {
    pub address: String,
    shared: Arc<Shared>,
}

impl Fake {
    pub fn start() -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared::default());
        let state = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Fake { address, shared }
    }

    /// Serve this under a path.
    pub fn put(&self, path: &str, media_type: &str, body: &[u8]) {
        let entry = (media_type.to_owned(), body.to_vec());
        self.shared
            .content
            .lock()
            .unwrap()
            .insert(path.to_owned(), entry);
    }

    pub fn remove(&self, path: &str) {
        self.shared.content.lock().unwrap().remove(path);
    }

    /// Let this have the last word on every answer.
    pub fn on_request(&self, handler: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) {
        *self.shared.handler.lock().unwrap() = Some(Arc::new(Box::new(handler)));
    }

    /// The requests so far whose path contains this.
    pub fn requests(&self, part: &str) -> Vec<Request> {
        let log = self.shared.log.lock().unwrap();
        log.iter()
            .filter(|r| r.path.contains(part))
            .cloned()
            .collect()
    }
}

fn serve(stream: TcpStream, state: &Shared) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next().map(str::to_owned));
    let Some(target) = target.filter(|t| t.starts_with('/')) else {
        // TLS knocking at a plain door.
        let mut stream = stream;
        stream
            .write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nwhat?")
            .ok()?;
        return None;
    };
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|l| l.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let request = {
        let mut log = state.log.lock().unwrap();
        let request = Request {
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body: String::from_utf8_lossy(&body).into_owned(),
            before: log.iter().filter(|r| r.path == path).count(),
        };
        log.push(request.clone());
        request
    };
    let mut reply = plain_reply(&request, state);
    let handler = state.handler.lock().unwrap().clone();
    if let Some(handler) = handler {
        reply = handler(&request, reply);
    }
    send(stream, reply)
}

/// What an honest registry answers.
fn plain_reply(request: &Request, state: &Shared) -> Reply {
    if request.path == "/v2/" {
        return Reply::new(200, "{}");
    }
    let content = state.content.lock().unwrap();
    let Some((media_type, body)) = content.get(&request.path) else {
        return if request.path.contains("/blobs/") {
            Reply::error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        } else {
            Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        };
    };
    let range = request.header("range").and_then(|r| {
        let (start, end) = r.strip_prefix("bytes=")?.split_once('-')?;
        let last = body.len().saturating_sub(1);
        let end = end.parse::<usize>().map_or(last, |end| end.min(last));
        Some((start.parse::<usize>().ok()?, end))
    });
    match range {
        Some((start, end)) if start <= end && end < body.len() => {
            Reply::new(206, &body[start..=end]).with(
                "Content-Range",
                &format!("bytes {start}-{end}/{}", body.len()),
            )
        }
        Some(_) => Reply::new(416, ""),
        None => Reply::new(200, body.clone()).with("Content-Type", media_type),
    }
}

fn send(mut stream: TcpStream, reply: Reply) -> Option<()> {
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    if !reply
        .headers
        .iter()
        .any(|(n, _)| n.eq_ignore_ascii_case("content-length"))
    {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes()).ok()?;
    match reply.stop_at {
        None => stream.write_all(&reply.body).ok()?,
        Some((at, how)) => {
            stream
                .write_all(&reply.body[..at.min(reply.body.len())])
                .ok()?;
            stream.flush().ok()?;
            if let Stop::Stall(time) = how {
                std::thread::sleep(time);
            }
        }
    }
    Some(())
}
