//! The small flows of the network's figures: round trips, connections a second, idle connections.
//!
//!     flows serve PORT COUNT                      listens on COUNT ports from PORT on
//!     flows trip ADDRESS PORT SECONDS             one byte there and back, again and again
//!     flows rate ADDRESS PORT COUNT SECONDS       connect, a byte there and back, close, in turn
//!     flows short ADDRESS PORT COUNT CONNECTIONS  the same, so many of them
//!     flows idle ADDRESS PORT COUNT CONNECTIONS   holds so many open until standard input ends
//!     flows hold                                  does nothing: the program of a namespace or container
//!
//! The first byte of a connection says what the server does with it: `e` and `r` are answered in turn by the
//! thread of that port, byte by byte until the end of the connection; `k` gets a thread of its own. Several
//! ports spread the ends of connections that TCP remembers for a minute. Results are one line of JSON.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// No step of a flow takes as long as this unless something is broken.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flows: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> io::Result<()> {
    match *words {
        ["hold"] => loop {
            thread::park();
        },
        ["serve", port, count] => serve(number(port)?, number(count)?),
        ["trip", address, port, seconds] => trip(address, number(port)?, number(seconds)?),
        ["rate", address, port, count, seconds] => {
            let end = Instant::now() + Duration::from_secs_f64(number(seconds)?);
            connections(address, number(port)?, number(count)?, |_| {
                Instant::now() < end
            })
        }
        ["short", address, port, count, wanted] => {
            let wanted: u64 = number(wanted)?;
            connections(address, number(port)?, number(count)?, |made| made < wanted)
        }
        ["idle", address, port, count, wanted] => {
            idle(address, number(port)?, number(count)?, number(wanted)?)
        }
        _ => Err(io::Error::other("see the head of flows.rs for what to say")),
    }
}

fn number<T: std::str::FromStr>(word: &str) -> io::Result<T> {
    word.parse()
        .map_err(|_| io::Error::other(format!("`{word}` is not a number")))
}

fn serve(port: u16, count: u16) -> io::Result<()> {
    let mut threads = Vec::new();
    for port in port..port + count {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
        threads.push(thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A connection that broke off is the client's to report.
                let _ = answer(stream);
            }
        }));
    }
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    if byte[0] == b'k' {
        thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(move || echo(stream, byte))?;
        return Ok(());
    }
    echo(stream, byte)
}

fn echo(mut stream: TcpStream, mut byte: [u8; 1]) -> io::Result<()> {
    loop {
        stream.write_all(&byte)?;
        if stream.read(&mut byte)? == 0 {
            return Ok(());
        }
    }
}

fn connect(address: &str, port: u16, kind: u8) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((address, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    bounce(&mut stream, kind)?;
    Ok(stream)
}

fn bounce(stream: &mut TcpStream, byte: u8) -> io::Result<()> {
    stream.write_all(&[byte])?;
    stream.read_exact(&mut [0])
}

fn trip(address: &str, port: u16, seconds: f64) -> io::Result<()> {
    let mut stream = connect(address, port, b'e')?;
    for _ in 0..100 {
        bounce(&mut stream, b'e')?;
    }
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds {
        let before = Instant::now();
        bounce(&mut stream, b'e')?;
        times.push(before.elapsed());
    }
    println!("{{\"trips\": {}, {}}}", times.len(), quantiles(&mut times));
    Ok(())
}

fn connections(address: &str, port: u16, ports: u16, more: impl Fn(u64) -> bool) -> io::Result<()> {
    let (mut made, mut failed) = (0_u64, 0_u64);
    let mut times = Vec::new();
    let start = Instant::now();
    while more(made + failed) {
        let before = Instant::now();
        let next = port + ((made + failed) % u64::from(ports)) as u16;
        match connect(address, next, b'r') {
            Ok(_) => {
                times.push(before.elapsed());
                made += 1;
            }
            Err(error) => {
                failed += 1;
                if failed <= 3 {
                    eprintln!("flows: connection {}: {error}", made + failed);
                }
                if failed > 100 {
                    return Err(io::Error::other("too many connections failed"));
                }
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{{\"connections\": {made}, \"failed\": {failed}, \"seconds\": {seconds:.4}, {}}}",
        quantiles(&mut times)
    );
    Ok(())
}

fn idle(address: &str, port: u16, ports: u16, wanted: u64) -> io::Result<()> {
    let mut held = Vec::new();
    for made in 0..wanted {
        let next = port + (made % u64::from(ports)) as u16;
        held.push(connect(address, next, b'k')?);
    }
    println!("{{\"held\": {}}}", held.len());
    io::stdout().flush()?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// The middle, the 99th of a hundred and the longest, in microseconds.
fn quantiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: f64| {
        let place = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times
            .get(place)
            .map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    format!(
        "\"p50_us\": {:.1}, \"p99_us\": {:.1}, \"longest_us\": {:.1}",
        at(0.5),
        at(0.99),
        at(1.0)
    )
}
