//! A web server of a few lines: each request is answered by a function, each connection serves one request.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// One request.
pub struct Request {
    /// GET, HEAD, ….
    pub method: String,
    /// The path and the query.
    pub path: String,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

/// One answer.
pub struct Response {
    /// The status line's number.
    pub status: u16,
    /// More headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Arc<Vec<u8>>,
    /// How the body is sent.
    pub delivery: Delivery,
}

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Whole.
    Whole,
    /// This many bytes, then the connection is closed.
    Cut(usize),
    /// This many bytes, then nothing for as long as the other side waits.
    Stall(usize),
}

impl Response {
    /// An answer with a status, a type and a body.
    pub fn new(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Response {
        let headers = vec![("Content-Type".into(), kind.into())];
        Response {
            status,
            headers,
            body: Arc::new(body.into()),
            delivery: Delivery::Whole,
        }
    }

    /// The same with one header more.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Response {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// Answers requests on `listener` until the process ends.
pub fn serve(listener: TcpListener, answer: impl Fn(&Request) -> Response + Send + Sync + 'static) {
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                // The other side may go away at any moment: that is what some scenarios are about.
                let _ = converse(stream, &*answer);
            });
        }
    });
}

fn converse(stream: TcpStream, answer: &dyn Fn(&Request) -> Response) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(());
    };
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let request = Request {
        method,
        path,
        headers,
    };
    let response = answer(&request);
    let mut stream = reader.into_inner();
    let mut head = format!(
        "HTTP/1.1 {} {}\r\n",
        response.status,
        if response.status < 400 { "OK" } else { "No" }
    );
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!(
        "Content-Length: {}\r\nConnection: close\r\n\r\n",
        response.body.len()
    ));
    stream.write_all(head.as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    match response.delivery {
        Delivery::Whole => stream.write_all(&response.body),
        Delivery::Cut(n) => stream.write_all(&response.body[..n]),
        Delivery::Stall(n) => {
            stream.write_all(&response.body[..n])?;
            // Until the other side gives up.
            let _ = std::io::Read::read(&mut stream, &mut [0]);
            Ok(())
        }
    }
}
