//! `webserver`: HTTP/1.0, one answer for every request.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::words;

/// What `curl http://10.0.0.67:8080` prints in the walkthrough.
const BANNER: &str = concat!(
    "   ___          __              \n",
    "  / _ \\___  ___/ /_ _  ___ ____ \n",
    " / ___/ _ \\/ _  /  ' \\/ _ `/ _ \\\n",
    "/_/   \\___/\\_,_/_/_/_/\\_,_/_//_/\n",
);

/// A client that says nothing for this long is let go.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest request head that is read, in bytes.
const LONGEST_HEAD: u64 = 16 * 1024;

/// Listens on every address at `port` and answers until it is killed.
pub fn serve(port: u16) -> Result<(), String> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .map_err(|error| format!("cannot listen on port {port}: {}", words(&error)))?;
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => {
                thread::spawn(move || answer(stream));
            }
            Err(error) => eprintln!("webserver: accept: {error}"),
        }
    }
    Ok(())
}

/// A client that goes away in the middle is its own business, so errors end here.
fn answer(stream: TcpStream) {
    let _ = try_answer(stream);
}

fn try_answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let peer = stream.peer_addr()?;
    let mut head = std::io::Read::take(BufReader::new(&stream), LONGEST_HEAD);
    let mut request = String::new();
    head.read_line(&mut request)?;
    let mut line = String::new();
    while head.read_line(&mut line)? > 2 {
        line.clear();
    }
    println!("{} {}", peer.ip(), request.trim_end());
    write!(
        stream,
        "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{BANNER}",
        BANNER.len()
    )
}
