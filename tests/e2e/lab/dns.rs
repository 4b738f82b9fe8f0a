//! A small name server for the lab: fixed names under `lab.test`, over UDP and TCP.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// The names and the addresses they stand for.
const NAMES: [(&str, Ipv4Addr); 4] = [
    ("deb.lab.test", Ipv4Addr::new(10, 0, 0, 80)),
    ("web.lab.test", Ipv4Addr::new(10, 0, 0, 80)),
    ("host.lab.test", Ipv4Addr::new(10, 0, 0, 67)),
    ("registry.lab.test", Ipv4Addr::new(10, 0, 0, 80)),
];

/// The text of `big.lab.test`: more than one datagram of the old size holds.
pub fn big_text() -> String {
    (0..12)
        .map(|n| format!("{n:02}{}", "x".repeat(198)))
        .collect()
}

/// Answers queries on these sockets until the process ends.
pub fn serve(udp: UdpSocket, tcp: TcpListener) {
    std::thread::spawn(move || {
        let mut query = [0; 4096];
        while let Ok((n, from)) = udp.recv_from(&mut query) {
            if let Some(answer) = answer(&query[..n], 512) {
                let _ = udp.send_to(&answer, from);
            }
        }
    });
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut size = [0; 2];
                while stream.read_exact(&mut size).is_ok() {
                    let mut query = vec![0; usize::from(u16::from_be_bytes(size))];
                    if stream.read_exact(&mut query).is_err() {
                        break;
                    }
                    let Some(answer) = answer(&query, 65535) else {
                        break;
                    };
                    let mut framed = (answer.len() as u16).to_be_bytes().to_vec();
                    framed.extend(answer);
                    if stream.write_all(&framed).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// The answer to one query in at most `limit` bytes (or what its EDNS record allows).
fn answer(query: &[u8], mut limit: usize) -> Option<Vec<u8>> {
    if query.len() < 17 {
        return None;
    }
    let mut name = String::new();
    let mut at = 12;
    while *query.get(at)? != 0 {
        let len = usize::from(query[at]);
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(std::str::from_utf8(query.get(at + 1..at + 1 + len)?).ok()?);
        at += 1 + len;
    }
    let kind = u16::from_be_bytes(query.get(at + 1..at + 3)?.try_into().unwrap());
    let question = query.get(12..at + 5)?;
    // An EDNS record right after the question: root name, type 41, size.
    if query.get(at + 5..at + 8) == Some(&[0, 0, 41]) {
        limit = limit.max(usize::from(u16::from_be_bytes(
            query.get(at + 8..at + 10)?.try_into().unwrap(),
        )));
    }

    let name = name.to_ascii_lowercase();
    let known = NAMES.iter().find(|(n, _)| *n == name);
    let data: Option<Vec<u8>> = match (kind, known) {
        (1, Some((_, address))) => Some(address.octets().to_vec()),
        (16, _) if name == "big.lab.test" => Some(
            big_text()
                .as_bytes()
                .chunks(200)
                .flat_map(|c| [&[c.len() as u8], c].concat())
                .collect(),
        ),
        _ => None,
    };
    let exists = known.is_some() || name == "big.lab.test";
    let head = |code: u8, answers: u8, truncated: bool| {
        let mut head = query[..2].to_vec();
        head.extend([
            0x85 | if truncated { 2 } else { 0 },
            0x80 | code,
            0,
            1,
            0,
            answers,
            0,
            0,
            0,
            0,
        ]);
        head.extend(question);
        head
    };
    let Some(data) = data else {
        return Some(head(if exists { 0 } else { 3 }, 0, false));
    };
    let mut whole = head(0, 1, false);
    whole.extend([0xc0, 12]);
    whole.extend(kind.to_be_bytes());
    whole.extend([0, 1, 0, 0, 0, 60]);
    whole.extend((data.len() as u16).to_be_bytes());
    whole.extend(data);
    Some(if whole.len() <= limit {
        whole
    } else {
        head(0, 0, true)
    })
}
