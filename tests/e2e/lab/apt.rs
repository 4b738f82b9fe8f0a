//! The lab's package repository.

use std::net::TcpListener;

use super::http::{Response, serve};
use super::lab;

/// Serves the packages that the image script made.
pub fn serve_packages(listener: TcpListener) {
    let dir = lab().cache.join("apt");
    serve(listener, move |request| {
        let name = request.path.trim_start_matches(['/', '.']);
        let safe = !name.is_empty() && !name.contains("..");
        match std::fs::read(dir.join(name)).ok().filter(|_| safe) {
            Some(body) => Response::new(200, "application/octet-stream", body),
            None => Response::new(404, "text/plain", "no such file\n"),
        }
    });
}
